package rpc

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
)

// pushback is when the server wants a call to come back.
type pushback struct {
	asked bool          // whether it says anything of it
	never bool          // whether it wants no other attempt
	delay time.Duration // how long it is to stay away
}

// pushbackOf reads when the server wants a failed call to come back: the header or trailer grpc-retry-pushback-ms (gRFC A6) says it, or, in its
// absence, the detail google.rpc.RetryInfo of the error, or the header Retry-After (RFC 9110, section 10.2.3).
func pushbackOf(e *exchange, err error) pushback {
	if e.response == nil {
		return pushback{}
	}
	var values []string
	for _, header := range []http.Header{e.response.Trailer, e.response.Header} {
		values = append(values, header.Values(pushbackHeader)...)
		values = append(values, header.Values(connectTrailerPrefix+pushbackHeader)...)
	}
	if len(values) > 0 {
		return pushbackFrom(values)
	}
	if delay, ok := retryInfo(err); ok {
		return pushback{asked: true, delay: delay}
	}
	if delay, ok := retryAfter(e.response.Header, time.Now()); ok {
		return pushback{asked: true, delay: delay}
	}
	return pushback{}
}

// pushbackFrom reads the header of gRFC A6, a time in milliseconds. A value that is negative, unreadable or repeated means not to retry.
func pushbackFrom(values []string) pushback {
	milliseconds, err := strconv.ParseInt(values[0], 10, 32)
	if err != nil || milliseconds < 0 || len(values) > 1 {
		return pushback{asked: true, never: true}
	}
	return pushback{asked: true, delay: time.Duration(milliseconds) * time.Millisecond}
}

// retryInfo returns the delay that an error's detail asks for.
func retryInfo(err error) (delay time.Duration, ok bool) {
	failure, ok := errors.AsType[*connect.Error](err)
	if !ok || !failure.IsRemote() {
		return 0, false
	}
	for _, detail := range failure.Details() {
		info := &errdetails.RetryInfo{}
		if detail.Type == retryInfoName && proto.Unmarshal(detail.Value, info) == nil {
			return max(0, info.GetRetryDelay().AsDuration()), true
		}
	}
	return 0, false
}

// retryAfter returns the delay that an HTTP header asks for: seconds, or a time. What is neither says nothing.
func retryAfter(header http.Header, now time.Time) (delay time.Duration, ok bool) {
	value := header.Get("Retry-After")
	if value == "" {
		return 0, false
	}
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now)), true
	}
	return 0, false
}

const (
	retryInfoName = "google.rpc.RetryInfo"
	// pushbackHeader tells a client how many milliseconds to wait before it tries again
	// (https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback). On a server it is a trailer.
	pushbackHeader = "Grpc-Retry-Pushback-Ms"
	// connectTrailerPrefix marks the trailers of a unary call among the headers of its response
	// (https://connectrpc.com/docs/protocol#unary-response).
	connectTrailerPrefix = "Trailer-"
)
