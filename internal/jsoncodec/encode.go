package jsoncodec

import (
	"encoding/base64"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// appendMessage appends the JSON of a message in the wire format, as proto.Marshal made it: the values of one field in a row. It reports
// false for what has no JSON, such as a string that is not UTF-8.
func appendMessage(out []byte, s *schema, wire []byte) ([]byte, bool) {
	if s.timestamp {
		return appendTimestamp(out, wire)
	}
	out = append(out, '{')
	start := len(out)
	var open *field // the list or map whose values are being written
	for len(wire) > 0 {
		number, kind, n := protowire.ConsumeTag(wire)
		if n < 0 {
			return out, false
		}
		wire = wire[n:]
		f := s.field(number)
		if f == nil || !f.comesAs(kind) {
			// Unknown. A field of another wire type than the schema's is kept with the unknown fields, too.
			if n = protowire.ConsumeFieldValue(number, kind, wire); n < 0 {
				return out, false
			}
			wire = wire[n:]
			continue
		}
		if f != open {
			out = closeField(out, open)
			open = nil
			if len(out) > start {
				out = append(out, ',')
			}
			out = append(out, f.key...)
			switch {
			case f.mapTo != nil:
				out, open = append(out, '{'), f
			case f.list:
				out, open = append(out, '['), f
			}
		} else {
			out = append(out, ',')
		}
		var ok bool
		if out, n, ok = appendField(out, f, kind, wire); !ok {
			return out, false
		}
		wire = wire[n:]
	}
	return append(closeField(out, open), '}'), true
}

func closeField(out []byte, open *field) []byte {
	switch {
	case open == nil:
		return out
	case open.mapTo != nil:
		return append(out, '}')
	default:
		return append(out, ']')
	}
}

// appendField appends the value of a field, an entry of a map, an element of a list, or all elements of a packed one, and returns how many
// bytes of wire they took.
func appendField(out []byte, f *field, kind protowire.Type, wire []byte) ([]byte, int, bool) {
	if f.mapTo == nil && (!f.packed || kind != protowire.BytesType) {
		return appendValue(out, f, wire)
	}
	content, n := protowire.ConsumeBytes(wire)
	if n < 0 {
		return out, n, false
	}
	if f.mapTo != nil {
		out, ok := appendEntry(out, f, content)
		return out, n, ok
	}
	for len(content) > 0 {
		var size int
		var ok bool
		if out, size, ok = appendValue(out, f, content); !ok {
			return out, n, false
		}
		if content = content[size:]; len(content) > 0 {
			out = append(out, ',')
		}
	}
	return out, n, true
}

// appendEntry appends the entry of a map. proto.Marshal always writes key and value, in this order.
func appendEntry(out []byte, f *field, entry []byte) ([]byte, bool) {
	number, _, n := protowire.ConsumeTag(entry)
	if n < 0 || number != f.mapKey.number {
		return out, false
	}
	entry = entry[n:]
	quoted := f.mapKey.kind == protoreflect.StringKind || is64(f.mapKey.kind)
	if !quoted {
		out = append(out, '"')
	}
	out, n, ok := appendValue(out, f.mapKey, entry)
	if !ok {
		return out, false
	}
	if !quoted {
		out = append(out, '"')
	}
	out = append(out, ':')
	entry = entry[n:]
	if number, _, n = protowire.ConsumeTag(entry); n < 0 || number != f.mapTo.number {
		return out, false
	}
	out, _, ok = appendValue(out, f.mapTo, entry[n:])
	return out, ok
}

// is64 reports whether values of a kind are strings in JSON although they are numbers.
func is64(kind protoreflect.Kind) bool {
	switch kind {
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Uint64Kind, protoreflect.Sfixed64Kind, protoreflect.Fixed64Kind:
		return true
	default:
		return false
	}
}

// appendValue appends one value and returns how many bytes of wire it took.
func appendValue(out []byte, f *field, wire []byte) ([]byte, int, bool) {
	switch f.wire {
	case protowire.VarintType:
		v, n := protowire.ConsumeVarint(wire)
		return appendVarint(out, f, v), n, n >= 0
	case protowire.Fixed32Type:
		v, n := protowire.ConsumeFixed32(wire)
		return appendFixed32(out, f.kind, v), n, n >= 0
	case protowire.Fixed64Type:
		v, n := protowire.ConsumeFixed64(wire)
		return appendFixed64(out, f.kind, v), n, n >= 0
	default:
	}
	content, n := protowire.ConsumeBytes(wire)
	if n < 0 {
		return out, n, false
	}
	ok := true
	switch f.kind {
	case protoreflect.StringKind:
		out, ok = appendString(out, content)
	case protoreflect.BytesKind:
		out = append(out, '"')
		out = base64.StdEncoding.AppendEncode(out, content)
		out = append(out, '"')
	default:
		out, ok = appendMessage(out, f.message, content)
	}
	return out, n, ok
}

func appendVarint(out []byte, f *field, v uint64) []byte {
	switch f.kind {
	case protoreflect.BoolKind:
		return strconv.AppendBool(out, protowire.DecodeBool(v))
	case protoreflect.Int32Kind:
		return strconv.AppendInt(out, int64(int32(v)), 10) //nolint:gosec // the wire format extends the sign to 64 bits
	case protoreflect.Sint32Kind:
		return strconv.AppendInt(out, int64(int32(protowire.DecodeZigZag(v&math.MaxUint32))), 10) //nolint:gosec // as above
	case protoreflect.Uint32Kind:
		return strconv.AppendUint(out, v&math.MaxUint32, 10)
	case protoreflect.EnumKind:
		number := protoreflect.EnumNumber(int32(v)) //nolint:gosec // as above
		if name, ok := f.enum.names[number]; ok {
			return append(out, name...)
		}
		return strconv.AppendInt(out, int64(number), 10)
	default:
	}
	out = append(out, '"')
	switch f.kind {
	case protoreflect.Int64Kind:
		out = strconv.AppendInt(out, int64(v), 10) //nolint:gosec // two's complement
	case protoreflect.Sint64Kind:
		out = strconv.AppendInt(out, protowire.DecodeZigZag(v), 10)
	default:
		out = strconv.AppendUint(out, v, 10)
	}
	return append(out, '"')
}

func appendFixed32(out []byte, kind protoreflect.Kind, v uint32) []byte {
	switch kind {
	case protoreflect.FloatKind:
		return appendFloat(out, float64(math.Float32frombits(v)), 32)
	case protoreflect.Sfixed32Kind:
		return strconv.AppendInt(out, int64(int32(v)), 10) //nolint:gosec // two's complement
	default:
		return strconv.AppendUint(out, uint64(v), 10)
	}
}

func appendFixed64(out []byte, kind protoreflect.Kind, v uint64) []byte {
	if kind == protoreflect.DoubleKind {
		return appendFloat(out, math.Float64frombits(v), 64)
	}
	out = append(out, '"')
	if kind == protoreflect.Sfixed64Kind {
		out = strconv.AppendInt(out, int64(v), 10) //nolint:gosec // two's complement
	} else {
		out = strconv.AppendUint(out, v, 10)
	}
	return append(out, '"')
}

// appendFloat writes as encoding/json does: exponents for the very small and the very large, without a leading zero.
func appendFloat(out []byte, v float64, bits int) []byte {
	switch {
	case math.IsNaN(v):
		return append(out, `"NaN"`...)
	case math.IsInf(v, 1):
		return append(out, `"Infinity"`...)
	case math.IsInf(v, -1):
		return append(out, `"-Infinity"`...)
	}
	format := byte('f')
	switch size := math.Abs(v); {
	case size == 0:
	case bits == 64 && (size < 1e-6 || size >= 1e21), bits == 32 && (float32(size) < 1e-6 || float32(size) >= 1e21):
		format = 'e'
	}
	out = strconv.AppendFloat(out, v, format, -1, bits)
	if n := len(out); format == 'e' && n >= 4 && string(out[n-4:n-1]) == "e-0" {
		out[n-2] = out[n-1]
		out = out[:n-1]
	}
	return out
}

// appendString reports false for what is not UTF-8.
func appendString(out, text []byte) ([]byte, bool) {
	out = append(out, '"')
	written, ascii := 0, true
	for i, c := range text {
		if c >= utf8.RuneSelf {
			ascii = false
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		out = append(out, text[written:i]...)
		written = i + 1
		switch c {
		case '"', '\\':
			out = append(out, '\\', c)
		case '\b':
			out = append(out, '\\', 'b')
		case '\f':
			out = append(out, '\\', 'f')
		case '\n':
			out = append(out, '\\', 'n')
		case '\r':
			out = append(out, '\\', 'r')
		case '\t':
			out = append(out, '\\', 't')
		default:
			out = append(out, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		}
	}
	out = append(append(out, text[written:]...), '"')
	return out, ascii || utf8.Valid(text)
}

const hex = "0123456789abcdef"

// The fields of a Timestamp, and its range: the years 1 to 9999.
const (
	timestampSeconds    = protowire.Number(1)
	timestampNanos      = protowire.Number(2)
	minTimestampSeconds = -62135596800
	maxTimestampSeconds = 253402300799
	nanosPerSecond      = 1_000_000_000
)

// appendTimestamp appends a google.protobuf.Timestamp: RFC 3339 in UTC with 0, 3, 6 or 9 digits after the second.
func appendTimestamp(out, wire []byte) ([]byte, bool) {
	var seconds, nanos int64
	for len(wire) > 0 {
		number, kind, n := protowire.ConsumeTag(wire)
		if n < 0 {
			return out, false
		}
		wire = wire[n:]
		if kind != protowire.VarintType {
			n = protowire.ConsumeFieldValue(number, kind, wire)
		} else {
			var v uint64
			v, n = protowire.ConsumeVarint(wire)
			switch number {
			case timestampSeconds:
				seconds = int64(v) //nolint:gosec // two's complement
			case timestampNanos:
				nanos = int64(int32(v)) //nolint:gosec // as above
			default:
			}
		}
		if n < 0 {
			return out, false
		}
		wire = wire[n:]
	}
	if seconds < minTimestampSeconds || seconds > maxTimestampSeconds || nanos < 0 || nanos >= nanosPerSecond {
		return out, false
	}
	out = append(out, '"')
	out = time.Unix(seconds, 0).UTC().AppendFormat(out, time.RFC3339)
	if nanos != 0 {
		out[len(out)-1] = '.' // in place of the Z
		digits, unit := 9, int64(nanosPerSecond)
		for nanos%1000 == 0 {
			nanos, digits, unit = nanos/1000, digits-3, unit/1000
		}
		for range digits {
			unit /= 10
			out = append(out, byte('0'+nanos/unit%10))
		}
		out = append(out, 'Z')
	}
	return append(out, '"'), true
}
