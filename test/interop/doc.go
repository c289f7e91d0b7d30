// Package interop tests goplt against grpc-go, the reference implementation of gRPC in Go: a grpc-go client calls [rpc.Server], and
// [rpc.Transport] calls a grpc-go server, over real sockets. It is a module of its own because the library must not depend on grpc-go.
//
// The tests come in two kinds. The conformance suite of servicestest runs over all four services in both directions, with grpc-go
// adapted to connect's interfaces at one end (bridge_client_test.go, bridge_server_test.go). Everything that the services do not show, such
// as metadata, deadlines, error details, streams, flow limits and draining, is tested with grpc-go's own API.
//
// That the test binary starts at all shows that goplt and grpc-go's health and reflection protos live in one process: the
// protobuf runtime panics on two files that declare the same names.
package interop

import "github.com/0x1d/goplt/pkg/rpc"

// The ends of goplt under test, named here for the documentation's links.
var (
	_ *rpc.Server
	_ *rpc.Transport
)
