package rpc

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
)

var (
	// ErrNoInstances is matched by the error of a call whose target has no instance. Its code is [connect.CodeUnavailable].
	ErrNoInstances = errors.New("no instances")
	// ErrClosed is matched by the error of a call on a closed [Transport]. Its code is [connect.CodeUnavailable].
	ErrClosed = errors.New("transport is closed")
	// ErrTooManyCalls is matched by the error of a call that [AdmissionConfig] did not let begin. Its code is [connect.CodeResourceExhausted].
	ErrTooManyCalls = errors.New("too many calls are under way")
)

// Attempt says what became of one attempt of a failed call.
type Attempt struct {
	// Instance is the ID of the instance that was tried.
	Instance string
	// Addr is its host:port.
	Addr string
	// Protocol is how it was spoken to.
	Protocol Protocol
	// Verdict says what is known of the request's execution: "not sent", "refused", "maybe processed" or "processed".
	Verdict string
	// Code is the status that the attempt ended with.
	Code connect.Code
	// Duration is how long the attempt took.
	Duration time.Duration
	// Hedge says that the attempt was made beside an earlier one that was slow.
	Hedge bool
	// Err is the attempt's own error.
	Err error

	unexecuted bool
}

// String describes the attempt in one line.
func (a Attempt) String() string {
	return fmt.Sprintf("%s: %v", a.summary(), a.Err)
}

// summary is the attempt without its error.
func (a Attempt) summary() string {
	where := a.Instance
	if a.Addr != a.Instance {
		where += " (" + a.Addr + ")"
	}
	how := ""
	if a.Hedge {
		how = "hedge, "
	}
	return fmt.Sprintf("%s by %s, %s%s, %s", where, a.Protocol, how, a.Verdict, a.Duration.Round(10*time.Microsecond))
}

// CallError is the error of a unary call, or of the transport below a stream, that failed: the last attempt's error, which [errors.Is] and
// [errors.As] reach ([*connect.Error], [context.DeadlineExceeded], [ErrNoInstances], …), and every attempt that led to it.
type CallError struct {
	// Procedure is what was called, such as "/goplt.auth.v1.AuthService/Login".
	Procedure string
	// Target is the text form of the target.
	Target string
	// Attempts are the attempts made, in the order in which they began; of a stream that was opened, the one that it is on. Empty if no instance could
	// be tried.
	Attempts []Attempt

	err error
}

// Error is the last attempt's error in one line, followed by the attempts where they explain it. The service's own answer needs no
// explanation: its text stands alone. An attempt that ended as the call did is not said to have done so again.
func (e *CallError) Error() string {
	answered := len(e.Attempts) == 1 && isRemote(e.err)
	if answered || len(e.Attempts) == 0 {
		return e.err.Error()
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%v [%s", e.err, e.Target)
	for number, attempt := range e.Attempts {
		fmt.Fprintf(&text, "; attempt %d: %s", number+1, attempt.summary())
		if attempt.Err.Error() != e.err.Error() {
			fmt.Fprintf(&text, ": %v", attempt.Err)
		}
	}
	text.WriteByte(']')
	return text.String()
}

// Unwrap returns the last attempt's error.
func (e *CallError) Unwrap() error { return e.err }

// LogValue gives the attempts a structure in logs.
func (e *CallError) LogValue() slog.Value {
	attempts := make([]any, len(e.Attempts))
	for number, attempt := range e.Attempts {
		attempts[number] = slog.Group(strconv.Itoa(number+1),
			slog.String("instance", attempt.Instance), slog.String("addr", attempt.Addr), slog.String("protocol", string(attempt.Protocol)),
			slog.Bool("hedge", attempt.Hedge), slog.String("verdict", attempt.Verdict), slog.String("code", attempt.Code.String()),
			slog.Duration("duration", attempt.Duration), slog.String("error", attempt.Err.Error()))
	}
	return slog.GroupValue(slog.String("procedure", e.Procedure), slog.String("target", e.Target), slog.String("error", e.err.Error()),
		slog.Group("attempts", attempts...))
}

func isRemote(err error) bool {
	remote, ok := errors.AsType[*connect.Error](err)
	return ok && remote.IsRemote()
}

// unavailable is a local failure to reach the service.
func unavailable(cause error) error {
	return connect.NewError(connect.CodeUnavailable, cause.Error()).WithCause(cause)
}

// contextError gives the end of a context its code, as connecthttp does.
func contextError(err error) error {
	code := connect.CodeCanceled
	if isDeadline(err) {
		code = connect.CodeDeadlineExceeded
	}
	return connect.NewError(code, err.Error()).WithCause(err)
}

// cutOff is the error of what was under way when the transport was closed and did not end within the drain timeout.
func cutOff(cause error) error {
	return connect.NewError(connect.CodeUnavailable, ErrClosed.Error()+": cut off after the drain timeout: "+cause.Error()).
		WithCause(errors.Join(ErrClosed, cause))
}
