package client

import (
	"errors"
	"net/http"
	"strings"

	"golang.org/x/net/http2"

	"github.com/0x1d/goplt/internal/resilience"
)

// Evidence is what an exchange shows of whether gRPC gets through to an instance.
type Evidence int32

const (
	// None is no evidence: nothing answered, or something did that may do so by any protocol (404, 429, 502 to 504, …).
	None Evidence = iota
	// Works is a grpc-status, in headers or trailers: only a gRPC server sends one, and so it reached us.
	Works
	// Blocked is hard evidence that gRPC does not get through, given before any handler could run.
	Blocked
	// Doubtful is soft evidence that gRPC does not get through whole. The call may have been executed.
	Doubtful
)

// Answered reports whether a response carries a gRPC status in its headers, or may still bring one in its trailers.
func Answered(response *http.Response) bool {
	return hasStatus(response.Header) || isGRPC(response.Header)
}

// Begun returns what the head of a response shows.
//
// Blocked is 415, 464 or 505 with neither a gRPC content type nor a status. Such an answer is given for the request's form: 415 by a server that
// knows other content types only, 505 by one that knows other HTTP versions only, and 464 by load balancers whose backend speaks another version.
// Doubtful is 200 with another content type: gRPC answers 200 to everything, and so does many a proxy's page of apology.
func Begun(response *http.Response) Evidence {
	switch {
	case hasStatus(response.Header):
		return Works
	case isGRPC(response.Header):
		return None // the end will tell
	}
	switch response.StatusCode {
	case http.StatusUnsupportedMediaType, statusIncompatibleProtocol, http.StatusHTTPVersionNotSupported:
		return Blocked
	case http.StatusOK:
		return Doubtful
	default:
		return None
	}
}

// Ended returns what a response shows whose body was read to its end: what its head showed, unless there is a status in the trailers. Doubtful is
// also a 200 that ends without one: something on the way took the trailers.
func Ended(response *http.Response) Evidence {
	if hasStatus(response.Trailer) {
		return Works
	}
	begun := Begun(response)
	if begun == None && response.StatusCode == http.StatusOK {
		return Doubtful
	}
	return begun
}

// Failed returns what an error of the exchange shows. Doubtful is a stream that the peer reset with PROTOCOL_ERROR, because it does not like the
// form of what gRPC sends, or with HTTP_1_1_REQUIRED (RFC 9113, section 7). A stream that net/http ended itself, for a response that it does not
// take, has the same type and code: it says that the answer was bad, and nothing of what becomes of gRPC on the way.
func Failed(err error) Evidence {
	reset, ok := errors.AsType[http2.StreamError](err)
	if ok && resilience.ResetByPeer(reset) && (reset.Code == http2.ErrCodeProtocol || reset.Code == http2.ErrCodeHTTP11Required) {
		return Doubtful
	}
	return None
}

// statusIncompatibleProtocol is what AWS's application load balancer answers when the versions of client and target do not match
// (https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-troubleshooting.html).
const statusIncompatibleProtocol = 464

func hasStatus(fields http.Header) bool { return len(fields["Grpc-Status"]) > 0 }

// isGRPC looks a field up by the name that net/http keeps it by, on the path of each call.
func isGRPC(fields http.Header) bool {
	contentType := fields["Content-Type"]
	if len(contentType) == 0 {
		return false
	}
	rest, ok := strings.CutPrefix(contentType[0], "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}
