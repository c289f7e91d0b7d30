package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/0x1d/goplt/internal/resilience"
)

// admission decides which calls a server takes on.
type admission struct {
	max      int64               // 0 if there is no bound
	inFlight atomic.Int64        // counted only if there is
	shedder  *resilience.Shedder // nil unless load is shed
	pushback time.Duration
	news     sheddingNews
}

// newAdmission returns nil for a server that takes on whatever comes.
func newAdmission(config ServerConfig, logger *slog.Logger) *admission {
	if config.MaxConcurrentCalls == 0 && !config.Shedding.Enabled {
		return nil
	}
	a := &admission{max: int64(config.MaxConcurrentCalls), pushback: config.Shedding.Pushback, news: sheddingNews{logger: logger}}
	if config.Shedding.Enabled {
		a.shedder = resilience.NewShedder(resilience.ShedderConfig{
			FailureRate: config.Shedding.FailureRate, MinCalls: config.Shedding.MinCalls,
			Window: config.Shedding.Window, Least: runtime.GOMAXPROCS(0),
		})
	}
	return a
}

// neverShed says which services a server goes on to offer whatever its load: who asks for its health wants to know whether it serves, and would
// otherwise take it out when it serves as much as it can.
func neverShed(service string) bool {
	return strings.HasPrefix(service, "grpc.health.") || strings.HasPrefix(service, "grpc.reflection.")
}

// guard has next serve the calls that the server takes on, and rejects the others before anything of them is read but the header. A call counts
// from here until it ends, by a panic too. It is for calls of one method, and stands behind inTime, whose stream knows the deadline and when the
// message has arrived.
func (a *admission) guard(next connect.ServerFunc) connect.ServerFunc {
	var method resilience.Method
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		if a.max > 0 {
			if !a.enter() {
				return a.reject(ctx, spec, fmt.Sprintf("max_concurrent_calls is %d, and so many are in flight", a.max))
			}
			defer a.inFlight.Add(-1)
		}
		timely, ok := stream.(*timelyStream)
		if !ok || a.shedder == nil || spec.StreamType != connect.StreamTypeUnary {
			return next(ctx, spec, stream)
		}
		if timely.permit, ok = a.shedder.Admit(&method); !ok {
			return a.reject(ctx, spec, "it has more calls than it can serve before their deadlines")
		}
		began, err := time.Now(), errPanicked
		defer func() { timely.permit.End(timely.outcome(began, err)) }()
		err = next(ctx, spec, stream)
		return err
	}
}

// errPanicked is what a call ends with that does not return.
var errPanicked = errors.New("the handler panicked")

// enter counts a call in, unless there are as many as there may be.
func (a *admission) enter() bool {
	for {
		calls := a.inFlight.Load()
		if calls >= a.max {
			return false
		}
		if a.inFlight.CompareAndSwap(calls, calls+1) {
			return true
		}
	}
}

// outcome says what the end of a call tells of the server's load. The time for which its message was waited for is not the server's; all before
// is, with the interceptors, and also if they took so long that nobody can say when the message was there. A caller that gives up tells nothing,
// unless most of its time is over: clients let go of a call at its deadline, which they see a little earlier than the server does.
func (s *timelyStream) outcome(began time.Time, err error) resilience.Outcome {
	deadline, ok := s.ctx.Deadline()
	left := time.Until(deadline)
	if !s.arrived && !s.awaited.IsZero() {
		left = deadline.Sub(s.awaited)
	}
	canceled := errors.Is(s.ctx.Err(), context.Canceled)
	switch {
	case ok && (left <= 0 || canceled && left <= deadline.Sub(began)/10):
		if !s.arrived {
			s.permit.Begin(0, deadline)
		}
		return resilience.OutOfTime
	case canceled || !s.arrived:
		return resilience.Unknown
	case err != nil:
		return resilience.ErrorInTime
	default:
		return resilience.InTime
	}
}

// reject returns the error of a call that is not taken on, and tells its client when to try again.
func (a *admission) reject(ctx context.Context, spec connect.Spec, reason string) error {
	a.news.rejected(reason)
	err := connect.NewError(connect.CodeResourceExhausted, "the server sheds load: "+reason)
	if a.pushback == 0 {
		return err
	}
	wait := max(time.Millisecond, (a.pushback/2 + rand.N(a.pushback)).Round(time.Millisecond))
	if info, ok := connect.CallInfoForServerContext(ctx); ok {
		info.ResponseTrailer().Set(pushbackHeader, strconv.FormatInt(wait.Milliseconds(), 10))
		if info.Protocol == connect.ProtocolNameConnect && spec.StreamType == connect.StreamTypeUnary { // whose status is 429, not 200
			seconds := (wait + time.Second - 1) / time.Second
			info.ResponseHeader().Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
		}
	}
	if detail, detailErr := connectproto.NewErrorDetail(&errdetails.RetryInfo{RetryDelay: durationpb.New(wait)}); detailErr == nil {
		err = err.WithDetail(detail)
	}
	return err
}
