// Package client says how Connect with JSON over HTTP/1.1 is spoken to one instance: the options of the wire, the kind of connection, and
// what an answer of the service itself looks like. It holds what is specific to this protocol and nothing else.
package client

import (
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"

	"github.com/0x1d/goplt/internal/jsoncodec"
	"github.com/0x1d/goplt/internal/pool"
)

// Connection is the kind of connection used: HTTP/1.1, which passes where HTTP/2 does not.
const Connection = pool.HTTP1

// Options returns the options that make a transport speak Connect with JSON. GET is never used: a URL ends up in logs.
func Options() []connecthttp.Option {
	// connecthttp makes a binary codec for each call if it is given none.
	return []connecthttp.Option{connecthttp.WithCodecs(jsoncodec.New(), connectproto.NewBinaryCodec()), connecthttp.WithProtoJSON()}
}
