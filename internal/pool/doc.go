// Package pool keeps the connections to one instance of a service, each an [http.ClientConn], and hands them out reserved.
//
//	Pool.Acquire ─▶ Conn (one slot reserved) ─▶ Conn.RoundTrip, or Conn.Release
//	     │ none free
//	     ├ queue: slots go to callers in the order of their arrival
//	     └ dial: TCP to the first of a name's addresses to answer, TLS with the ALPN of the kind, HTTP/2 preface, the peer's SETTINGS
//	Pool.Warm ─▶ a minimum, kept
//	upkeep: closes what is idle, replaces what is old, opens what is missing; ping: asks a silent peer for which calls wait
//
// A pool speaks either HTTP/2, where a connection carries many calls, or HTTP/1.1, where it carries one at a time. A connection is
// handed out only after the peer has proved to speak the pool's protocol, so everything that fails up to then provably reached no
// handler; a peer that speaks the other protocol is told from one that is merely broken by its ALPN and its first bytes
// ([ErrNotHTTP2]), never by an error's text.
//
// net/http's own pool is not used because it repeats requests by itself and does not say so.
package pool
