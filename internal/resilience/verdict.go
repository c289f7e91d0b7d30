package resilience

import (
	"errors"

	"golang.org/x/net/http2"
)

// Verdict says what is known of a failed attempt's execution. Whether anything may be sent again depends on it alone.
type Verdict int

const (
	// NotSent says that no handler can have seen the request: nothing of its message left.
	NotSent Verdict = iota
	// Refused says that the peer declared not to have processed the request and never to do so.
	Refused
	// MaybeProcessed says that the request left and that no answer tells what became of it.
	MaybeProcessed
	// Processed says that the service answered.
	Processed
)

// String returns the verdict in words.
func (v Verdict) String() string {
	switch v {
	case NotSent:
		return "not sent"
	case Refused:
		return "refused"
	case MaybeProcessed:
		return "maybe processed"
	case Processed:
		return "processed"
	}
	return "unknown"
}

// Unexecuted reports whether the attempt provably was not executed, so that even a call that is not idempotent may be sent again.
func (v Verdict) Unexecuted() bool { return v == NotSent || v == Refused }

// Evidence is what an attempt's failure left to see.
type Evidence struct {
	// Sent says that at least a part of the request's message was handed to the connection.
	Sent bool
	// Disowned says that the peer closed the connection with a GOAWAY which says that it processed nothing that came on it.
	Disowned bool
	// Answered says that response headers of the service's own arrived. Those of something before it are no word on the execution.
	Answered bool
	// Err is the transport's error, if any.
	Err error
}

// Classify draws the verdict from the evidence.
func Classify(evidence Evidence) Verdict {
	switch {
	case evidence.Answered:
		return Processed
	case evidence.Disowned || refused(evidence.Err):
		return Refused
	case !evidence.Sent:
		return NotSent
	default:
		return MaybeProcessed
	}
}

// refused reports whether the peer reset the stream with REFUSED_STREAM (RFC 9113, section 8.7), or closed the connection with a GOAWAY
// whose last stream is below ours (section 6.8): it then has not processed the request.
func refused(err error) bool {
	if stream, ok := errors.AsType[http2.StreamError](err); ok {
		return stream.Code == http2.ErrCodeRefusedStream
	}
	return aboveGoAway(err)
}
