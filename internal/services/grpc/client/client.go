// Package client says how gRPC is spoken to one instance: the options of the wire, the kind of connection, and what an exchange shows of
// whether gRPC gets through. It holds what is specific to gRPC and nothing else.
package client

import (
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/0x1d/goplt/internal/pool"
)

// Connection is the kind of connection that gRPC needs (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
const Connection = pool.HTTP2

// Options returns the options that make a transport speak gRPC.
func Options() []connecthttp.Option { return []connecthttp.Option{connecthttp.WithGRPC()} }
