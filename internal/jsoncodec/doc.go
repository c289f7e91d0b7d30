// Package jsoncodec is the JSON of the Connect protocol: the canonical protobuf mapping (https://protobuf.dev/programming-guides/json), as
// protojson does it, at a third of the cost, and with errors that never show a value.
//
//	message ── proto.Marshal ──▶ wire format ── tables ──▶ JSON
//	message ◀─ proto.Unmarshal ─ wire format ◀─ tables ─── JSON
//
// protojson asks reflection for each field and reads each token twice. Here the generated code's own fast path does the work on the
// message, and a table per message type (see schema) translates between the wire format and text, both of which are flat bytes.
//
// protojson remains the reference. It serves the message types for which there is no table, decides in the end on every input that this
// package would refuse, and is what the differential and fuzz tests compare with. Its own errors quote the value that does not fit, which
// a server would send back and a client would log: {"password":12345} would be answered with the password. Errors of this package say
// where the input does not fit and what would be right, and nothing of what was there.
package jsoncodec
