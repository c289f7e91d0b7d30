// Package services adapts the domain interfaces of [github.com/0x1d/goplt/pkg/services] to the generated Connect code, for clients and
// for servers, and makes clients by service name. It is the only place that knows both.
//
//	your code                                        your implementation
//	   │ services.AuthServiceClient                     ▲ services.AuthServiceClient
//	authClient      domain → proto   auth.go        authHandler     proto → domain
//	   │ call       client.go                           ▲ reply      handler.go
//	generated client                                generated handler
//	   │ connect.Client, its interceptors               ▲ connect.Server, RecoverPanics
//	rpc.Transport  ───────────── network ─────────▶ rpc.Server
//
// Each service has one file, which holds its client side, its handler side and the one mapping between domain and protobuf that both
// use. What all methods share stands once: call, which refuses what cannot be sent and gives errors their meaning; reply, which
// decides what a caller learns of a failure; and the error table, which both read.
//
// # Mapping
//
// The zero time is an unset timestamp; other times arrive in UTC, to the nanosecond. Empty lists and maps arrive as nil. A string that is not
// UTF-8 and a time outside the years 1 to 9999 cannot be carried: in a request they are [services.ErrInvalidArgument] before
// anything is sent, in a response they are the server's internal error. A response without what was asked for is
// [services.ErrInternal]. Passwords travel in CreateUser's and ResetPassword's requests only.
//
// # Errors
//
// Sentinels of the domain and status codes correspond one to one. A client's error matches the sentinel under [errors.Is], holds a
// [*connect.Error] and, from an [rpc.Transport], a [*rpc.CallError] with the attempts under [errors.As], and reads
//
//	auth.Login: unauthenticated: email or password is wrong
//
// A server tells its callers what the implementation meant for them, and logs the rest; see [RegisterAuth] and [RecoverPanics].
package services
