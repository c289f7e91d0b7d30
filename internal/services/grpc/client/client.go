// Package client says how gRPC is spoken to one instance: the options of the wire, the kind of connection, and what an answer looks
// like that shows gRPC not to get through. It holds what is specific to gRPC and nothing else.
package client

import (
	"net/http"
	"strings"

	"connectrpc.com/connect/v2/connecthttp"

	"github.com/0x1d/goplt/internal/pool"
)

// Connection is the kind of connection that gRPC needs (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
const Connection = pool.HTTP2

// Options returns the options that make a transport speak gRPC.
func Options() []connecthttp.Option { return []connecthttp.Option{connecthttp.WithGRPC()} }

// Answered reports whether a response carries a gRPC status in its headers, or may still bring one in its trailers.
func Answered(response *http.Response) bool {
	return response.Header.Get("Grpc-Status") != "" || isGRPC(response.Header.Get("Content-Type"))
}

// Blocked reports whether a response is hard evidence that something before the service does not let gRPC through: 415, 464 or 505 with
// neither a gRPC content type nor a status. Such an answer is given for the request's form, before any handler could run: 415 by a
// server that knows other content types only, 505 by one that knows other HTTP versions only, and 464 by load balancers
// whose backend speaks another version.
func Blocked(response *http.Response) bool {
	switch response.StatusCode {
	case http.StatusUnsupportedMediaType, statusIncompatibleProtocol, http.StatusHTTPVersionNotSupported:
		return !Answered(response)
	default:
		return false
	}
}

// statusIncompatibleProtocol is what AWS's application load balancer answers when the versions of client and target do not match
// (https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-troubleshooting.html).
const statusIncompatibleProtocol = 464

func isGRPC(contentType string) bool {
	rest, ok := strings.CutPrefix(contentType, "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}
