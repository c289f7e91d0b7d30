// Package servicestest has in-memory versions of the four core services that really behave, for tests and for development, and what
// tests them and tests with them.
//
//	Platform    the in-memory services and the state that they share: users, sessions, tokens, grants, log
//	Start       a server on a real socket that hosts a Platform, or several, and clients connected to it, for the life of a test
//	RunSuite    what every implementation of the services, and every client of them, must do
//
// A [Platform] hashes passwords with argon2id, signs its access tokens and lets them expire, rotates refresh tokens and notices their
// reuse, sends single-use tokens to an outbox, resolves roles with wildcards, and pages through an append-only audit log. What it does
// not do is keep anything: its state ends with the process. Nor does it ask who is calling, which is the business of whoever exposes
// it.
//
// # Faults
//
// The rest is for tests of any service, Connect or gRPC, and of any client, whatever they are written with: it makes fail what is between
// the caller and the handler, each place by itself, and shows what became of the calls.
//
//	caller ──▶ Proxy ──▶ HTTPProxy ──▶ Faults ──▶ handler         or   caller ──▶ HTTP2Server
//	           bytes     requests      calls      Executions           frames
//
//	Faults       in a Connect server: calls that are late, that fail, or whose connection is lost
//	HTTPProxy    a gateway: statuses injected, trailers stripped, responses late or cut off, HTTP/1.1 only; and all that a Proxy does
//	Proxy        the network: connections refused, reset, frozen, dripping, or in a black hole
//	HTTP2Server  a peer that breaks the rules: GOAWAY, RST_STREAM, no SETTINGS, frames that are invalid, by a script
//	Executions   how often each call was executed, to prove that it was at most once
//
// Faults of calls have names and options in common, and can be told to strike n times, or a share of the calls, before or after execution:
// see [Fault]. Faults of connections last until the function is called that they return. Everything can be changed while calls are under
// way, and ends with the test.
//
// What is seen on the wire, and where to get it:
//
//	connection refused                      Proxy.Refuse
//	no answer to SYN, half-open TCP         Proxy.BlackHole (Linux)
//	hung process, dead behind a balancer    Proxy.Freeze
//	reset (RST) of connections, of a call   Proxy.DropConnections, HTTPProxy.Drop, HTTP2Conn.Abort
//	one byte at a time, 1 Mbit/s            Proxy.SlowDrip
//	HTTP/1.1 only, no h2 in ALPN            HTTPProxy.HTTP1Only
//	415 to gRPC, bursts of 502, 429         HTTPProxy.InjectStatus, HTTPProxy.Respond
//	trailers missing                        HTTPProxy.StripTrailers
//	late request, late answer               HTTPProxy.Delay
//	process dies within a response          HTTPProxy.KillMidResponse
//	REFUSED_STREAM, other RST_STREAM        HTTP2Conn.Reset
//	GOAWAY                                  HTTP2Conn.GoAway
//	no SETTINGS, MAX_CONCURRENT_STREAMS     HTTP2Conn.Greet, or not
//	early response                          HTTP2Conn.NextHeaders
//	invalid frames, no HTTP/2 at all        HTTP2Conn.Framer, HTTP2Conn.Write
//	errors of the application, pushback     Faults.Fail, HTTP2Conn.Headers
package servicestest
