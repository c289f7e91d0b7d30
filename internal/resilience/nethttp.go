package resilience

import (
	"errors"

	"golang.org/x/net/http2"
)

// What net/http tells by a text alone, as the error has neither a type nor a variable that can be named. Tests provoke each, and fail when Go
// changes it: TestNetHTTPRefusals here, and TestEvidenceOfStreams of the gRPC client.
const (
	// goAwayText is the error of a stream above the last one of a GOAWAY.
	goAwayText = "http2: Transport received Server's graceful shutdown GOAWAY"
	// fromPeerText is the cause of a stream's reset that the peer sent, and not net/http itself.
	fromPeerText = "received from peer"
)

// aboveGoAway reports whether a stream was above the last one of a GOAWAY.
func aboveGoAway(err error) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		if err.Error() == goAwayText {
			return true
		}
	}
	return false
}

// ResetByPeer reports whether it was the peer that reset a stream. A stream that net/http ended itself, for an answer that it does not take, has the
// same type and code.
func ResetByPeer(reset http2.StreamError) bool {
	return reset.Cause != nil && reset.Cause.Error() == fromPeerText
}
