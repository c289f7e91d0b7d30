package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/pkg/rpc"
)

// receive returns what comes from a channel within patience.
func receive[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	select {
	case got := <-from:
		return got
	case <-ctx.Done():
		t.Fatalf("%s did not happen", what)
		panic("unreachable")
	}
}

// counted is a server of Echo that counts how often its interceptor and its handler run, and tells when the time of a call has passed.
type counted struct {
	*rpc.Server

	intercepted, executed atomic.Int64
	passed                chan struct{}
}

func startCounted(t *testing.T) *counted {
	t.Helper()
	c := &counted{passed: make(chan struct{}, 64)}
	handlers := connect.NewServer(func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			c.intercepted.Add(1)
			context.AfterFunc(ctx, func() { c.passed <- struct{}{} })
			return next(ctx, spec, stream)
		}
	})
	for _, spec := range []connect.Spec{specEcho, specSplit, specJoin, specChat} {
		handlers.Register(unary(spec, func(_ context.Context, text string) (string, error) { // for streams of one message each way
			c.executed.Add(1)
			return text, nil
		}))
	}
	c.Server = startServer(t, handlers, testConfig())
	return c
}

// wire is a way to make one call by hand.
type wire struct {
	version                                int
	contentType, timeout, unit, head, tail string // the headers, and a message in two parts
	procedure                              connect.Spec
}

// wires are the ways by name.
var wires = map[string]wire{
	"gRPC":                {2, "application/grpc", "Grpc-Timeout", "m", "\x00\x00\x00\x00\x03\x0a\x01", "x", specEcho},
	"gRPC, server stream": {2, "application/grpc", "Grpc-Timeout", "m", "\x00\x00\x00\x00\x03\x0a\x01", "x", specSplit},
	"gRPC, client stream": {2, "application/grpc", "Grpc-Timeout", "m", "\x00\x00\x00\x00\x03\x0a\x01", "x", specJoin},
	"gRPC, both":          {2, "application/grpc", "Grpc-Timeout", "m", "\x00\x00\x00\x00\x03\x0a\x01", "x", specChat},
	"Connect/JSON":        {1, "application/json", "Connect-Timeout-Ms", "", `"`, `x"`, specEcho},
}

// send makes a call with milliseconds to live, and returns the error that the answer carries.
func (w wire) send(t *testing.T, addr string, milliseconds int, body io.Reader) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+w.procedure.Procedure, body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", w.contentType)
	request.Header.Set(w.timeout, fmt.Sprint(milliseconds, w.unit))
	response, err := httpClient(t, w.version, nil).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if w.version == 1 {
		return fmt.Sprintf("%d %s", response.StatusCode, answer)
	}
	for _, fields := range []http.Header{response.Trailer, response.Header} { // an answer without a message has its trailer in the header
		if status := fields.Get("Grpc-Status"); status != "" {
			return status + " " + fields.Get("Grpc-Message")
		}
	}
	return ""
}

// TestServerCallerOutOfTime: a call whose deadline passed on the way is not begun.
func TestServerCallerOutOfTime(t *testing.T) {
	t.Parallel()
	for name, wire := range wires {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := startCounted(t)
			want := map[int]string{
				1: `504 {"code":"deadline_exceeded","message":"the call's deadline passed before the call was served"}`,
				2: "4 the call's deadline passed before the call was served",
			}[wire.version]
			if got := wire.send(t, server.Addr(), 0, strings.NewReader(wire.head+wire.tail)); got != want {
				t.Errorf("got %s\nwant %s", got, want)
			}
			if server.intercepted.Load() != 0 || server.executed.Load() != 0 {
				t.Errorf("%d calls were intercepted and %d executed, want none", server.intercepted.Load(), server.executed.Load())
			}
		})
	}
}

// TestServerMessageOutOfTime: a message that arrives after the deadline is not served.
func TestServerMessageOutOfTime(t *testing.T) {
	t.Parallel()
	for name, wire := range wires {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := startCounted(t)
			body, slow := io.Pipe()
			answered := make(chan string, 1)
			go func() { answered <- wire.send(t, server.Addr(), 500, body) }()
			if _, err := io.WriteString(slow, wire.head); err != nil {
				t.Fatal(err)
			}
			receive(t, "the passing of the deadline", server.passed)
			if _, err := io.WriteString(slow, wire.tail); err != nil {
				t.Fatal(err)
			}
			_ = slow.Close()
			want := map[int]string{
				1: `504 {"code":"deadline_exceeded","message":"the call's deadline passed before its message had arrived"}`,
				2: "4 the call's deadline passed before its message had arrived",
			}[wire.version]
			if got := receive(t, "the answer", answered); got != want {
				t.Errorf("got %s\nwant %s", got, want)
			}
			if server.executed.Load() != 0 {
				t.Errorf("%d calls were executed, want none", server.executed.Load())
			}
			if got := wire.send(t, server.Addr(), 10_000, strings.NewReader(wire.head+wire.tail)); got != map[int]string{1: `200 "x"`, 2: "0 "}[wire.version] {
				t.Errorf("the next call: got %s", got)
			}
		})
	}
}

// TestInProcessOutOfTime: a handler in the caller's own process does not run for nobody either.
func TestInProcessOutOfTime(t *testing.T) {
	t.Parallel()
	var executed atomic.Int64
	handlers := connect.NewServer()
	handlers.Register(unary(specEcho, func(_ context.Context, text string) (string, error) {
		executed.Add(1)
		return text, nil
	}))
	config := rpc.DefaultClientConfig()
	config.Protocol = rpc.ProtocolInProcess
	transport, err := rpc.NewTransport("words", nil, rpc.WithClientConfig(config), rpc.WithInProcess(handlers))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = transport.Close() }()
	client := connect.NewClient(transport)

	late, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	if _, err := callText(late, client, specEcho, "x"); connect.CodeOf(err) != connect.CodeDeadlineExceeded || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("out of time: got %v, want deadline_exceeded", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := callText(gone, client, specEcho, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("the caller gone: got %v, want it canceled", err)
	}
	if executed.Load() != 0 {
		t.Errorf("%d calls were executed, want none", executed.Load())
	}
	if answer, err := callText(t.Context(), client, specEcho, "x"); err != nil || answer != "x" {
		t.Errorf("in time: got %q, %v", answer, err)
	}
}

// chain is A, a client, which calls B, whose handler calls C. What each handler is to do a test says.
type chain struct {
	a    *connect.Client
	b, c func(ctx context.Context, text string) (string, error)

	executed [2]atomic.Int64 // of b and c
}

// startChain starts the servers and the transports between them, over real sockets and by one protocol.
func startChain(t *testing.T, spoken rpc.Protocol, requestTimeout time.Duration) *chain {
	t.Helper()
	chained := &chain{}
	serve := func(at int, handler *func(context.Context, string) (string, error)) *connect.Client {
		handlers := connect.NewServer()
		handlers.Register(unary(specEcho, func(ctx context.Context, text string) (string, error) {
			chained.executed[at].Add(1)
			return (*handler)(ctx, text)
		}))
		config := testConfig()
		config.RequestTimeout = requestTimeout
		server := startServer(t, handlers, config)
		return connect.NewClient(newTransport(t, newScripted(instanceAt(t, fmt.Sprint("auth-", at), server.Addr())), func(config *rpc.ClientConfig) {
			config.Protocol, config.Timeout, config.AttemptTimeout = spoken, 0, 0 // whatever bound a call has, it has from its caller
		}))
	}
	toC := serve(1, &chained.c)
	chained.a = serve(0, &chained.b)
	chained.b = func(ctx context.Context, text string) (string, error) { return callText(ctx, toC, specEcho, text) }
	return chained
}

func forEachProtocol(t *testing.T, run func(*testing.T, rpc.Protocol)) {
	t.Helper()
	for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
		t.Run(string(spoken), func(t *testing.T) {
			t.Parallel()
			run(t, spoken)
		})
	}
}

// left returns how much time a context has.
func left(t *testing.T, ctx context.Context) time.Duration {
	t.Helper()
	deadline, ok := ctx.Deadline()
	if !ok {
		t.Error("the context has no deadline")
	}
	return time.Until(deadline)
}

// TestDeadlineIsInherited: what a handler calls has what is left of its own caller's time.
func TestDeadlineIsInherited(t *testing.T) {
	t.Parallel()
	forEachProtocol(t, func(t *testing.T, spoken rpc.Protocol) {
		chained := startChain(t, spoken, 30*time.Second)
		var leftB, leftC time.Duration
		callC := chained.b
		chained.b = func(ctx context.Context, text string) (string, error) {
			leftB = left(t, ctx)
			return callC(ctx, text)
		}
		chained.c = func(ctx context.Context, text string) (string, error) {
			leftC = left(t, ctx)
			return text, nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		leftA := left(t, ctx)
		if _, err := callText(ctx, chained.a, specEcho, "x"); err != nil {
			t.Fatal(err)
		}
		if leftC <= 0 || leftC > leftB || leftB > leftA {
			t.Errorf("A had %s left, B %s, and C %s: want less each", leftA, leftB, leftC)
		}
	})
}

// TestRequestTimeoutIsInherited by what a handler calls whose caller set no deadline.
func TestRequestTimeoutIsInherited(t *testing.T) {
	t.Parallel()
	forEachProtocol(t, func(t *testing.T, spoken rpc.Protocol) {
		chained := startChain(t, spoken, patience)
		var leftC time.Duration
		chained.c = func(ctx context.Context, text string) (string, error) {
			if deadline, ok := ctx.Deadline(); ok {
				leftC = time.Until(deadline)
			}
			return text, nil
		}
		inner := chained.b
		var sent time.Duration
		chained.b = func(ctx context.Context, text string) (string, error) {
			sent = left(t, ctx)
			return inner(ctx, text)
		}
		if _, err := callText(t.Context(), chained.a, specEcho, "x"); err != nil {
			t.Fatal(err)
		}
		if leftC <= 0 || leftC > sent || sent > patience {
			t.Errorf("B had %s left, and C %s: want no more than %s", sent, leftC, patience)
		}
	})
}

// TestNothingRunsAfterTheDeadline of the first caller, however long the chain.
func TestNothingRunsAfterTheDeadline(t *testing.T) {
	t.Parallel()
	forEachProtocol(t, func(t *testing.T, spoken rpc.Protocol) {
		chained := startChain(t, spoken, 30*time.Second)
		callC, ended := chained.b, make(chan error, 1)
		chained.b = func(ctx context.Context, text string) (string, error) {
			<-ctx.Done()
			_, err := callC(ctx, text)
			ended <- err
			return "", err
		}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if _, err := callText(ctx, chained.a, specEcho, "x"); connect.CodeOf(err) != connect.CodeDeadlineExceeded {
			t.Errorf("A: got %v, want deadline_exceeded", err)
		}
		if err := receive(t, "the end of B's call", ended); err == nil {
			t.Error("B called C after the deadline")
		}
		if got := chained.executed[1].Load(); got != 0 {
			t.Errorf("C ran %d times, want 0", got)
		}
	})
}

// TestDeadlineAndCancelReachTheLast in a chain, while it works.
func TestDeadlineAndCancelReachTheLast(t *testing.T) {
	t.Parallel()
	forEachProtocol(t, func(t *testing.T, spoken rpc.Protocol) {
		chained := startChain(t, spoken, 0) // no bound but the caller's
		begun, ended := make(chan struct{}, 1), make(chan error, 1)
		chained.c = func(ctx context.Context, _ string) (string, error) {
			begun <- struct{}{}
			<-ctx.Done()
			ended <- ctx.Err()
			return "", ctx.Err()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if _, err := callText(ctx, chained.a, specEcho, "x"); connect.CodeOf(err) != connect.CodeDeadlineExceeded {
			t.Errorf("A: got %v, want deadline_exceeded", err)
		}
		receive(t, "the call of C", begun)
		if err := receive(t, "the end of C", ended); err == nil {
			t.Error("C's context was not done")
		}

		ctx, giveUp := context.WithCancel(t.Context())
		given := make(chan error, 1)
		go func() {
			_, err := callText(ctx, chained.a, specEcho, "x")
			given <- err
		}()
		receive(t, "the call of C", begun)
		giveUp()
		if err := receive(t, "the end of A", given); connect.CodeOf(err) != connect.CodeCanceled {
			t.Errorf("A: got %v, want canceled", err)
		}
		if err := receive(t, "the end of C", ended); !errors.Is(err, context.Canceled) {
			t.Errorf("C: got %v, want canceled", err)
		}
	})
}

// TestServerDeadlineOfAnother: of the deadline that another server reports, a caller hears where it is that of the call itself.
func TestServerDeadlineOfAnother(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, text, timeout, want string
	}{
		{"the caller's", "wait", "1500", `504 {"code":"deadline_exceeded","message":"the caller's deadline has passed"}`},
		{"request_timeout", "wait", "", `504 {"code":"deadline_exceeded","message":"the server's request_timeout of 30s has passed"}`},
		{"the other's own", "hurry", "1500", `500 {"code":"internal"}`},
		{"the other's own, without a caller's", "hurry", "", `500 {"code":"internal"}`},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				handlers := connect.NewServer()
				handlers.Register(unary(specEcho, func(ctx context.Context, text string) (string, error) {
					if text == "wait" {
						<-ctx.Done()
					}
					return "", fmt.Errorf("asked another: %w", connect.NewError(connect.CodeDeadlineExceeded, "too late").WithRemote())
				}))
				_, listener := startInBubble(t, handlers)
				status, body, _ := do(t, listener.client(t, 1), "http://server"+specEcho.Procedure, strings.NewReader(`"`+row.text+`"`),
					"Content-Type", "application/json", "Connect-Timeout-Ms", row.timeout)
				if got := fmt.Sprint(status, " ", body); got != row.want {
					t.Errorf("got %s\nwant %s", got, row.want)
				}
			})
		})
	}
}
