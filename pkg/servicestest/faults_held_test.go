package servicestest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// delayer are the faults of a server or a gateway.
type delayer interface {
	Delay(name string, d time.Duration, opts ...servicestest.FaultOption) *servicestest.Fault
}

// atBoth runs a test with the faults in a server that has one streaming method, and with those in a gateway before it.
func atBoth(t *testing.T, kind connect.StreamType, handler connect.ServerFunc, test func(t *testing.T, faults delayer, call call)) {
	t.Helper()
	for _, place := range []string{"server", "gateway"} {
		t.Run(place, func(t *testing.T) {
			faults, spec := servicestest.NewFaults(), connect.Spec{Procedure: procedure, StreamType: kind}
			handlers := connect.NewServer(faults.Interceptor())
			handlers.Register(connect.Method{Spec: spec, Handler: handler})
			server, err := rpc.NewServer(handlers)
			if err != nil {
				t.Fatal(err)
			}
			web := httptest.NewUnstartedServer(server.Handler())
			web.Config.Protocols = new(http.Protocols)
			web.Config.Protocols.SetUnencryptedHTTP2(true)
			web.Start()
			t.Cleanup(web.Close)
			gateway := servicestest.StartHTTPProxy(t, web.URL)
			client := connect.NewClient(connecthttp.NewTransport(speaking(t, "HTTP/2.0"), gateway.URL, connecthttp.WithGRPC()))
			call := func() (connect.ClientStream, *connect.CallInfo) {
				t.Helper()
				ctx, info := connect.NewClientContext(t.Context())
				stream, err := client.CallClientStream(ctx, spec)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = stream.Close() })
				return stream, info
			}
			if place == "server" {
				test(t, faults, call)
			} else {
				test(t, gateway, call)
			}
		})
	}
}

type call func() (connect.ClientStream, *connect.CallInfo)

// TestDelayedAnswerIsTheSame: three messages, which are one object in the handler, the headers, the trailers and the error at the end.
func TestDelayedAnswerIsTheSame(t *testing.T) {
	atBoth(t, connect.StreamTypeServer, func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
		info, _ := connect.CallInfoForServerContext(ctx)
		info.ResponseHeader().Set("X-Header", "1")
		message := new(wrapperspb.StringValue)
		if err := stream.Receive(message); err != nil {
			return err
		}
		for _, word := range []string{"a", "b", "c"} {
			message.Value = word
			if err := stream.Send(message); err != nil {
				return err
			}
		}
		info.ResponseTrailer().Set("X-Trailer", "2")
		return connect.NewError(connect.CodeDataLoss, "no more")
	}, func(t *testing.T, faults delayer, call call) {
		t.Helper()
		fault := faults.Delay("orders.Place", time.Millisecond, servicestest.AfterExecution())
		stream, info := call()
		if err := errors.Join(stream.Send(wrapperspb.String("go")), stream.CloseSend()); err != nil {
			t.Fatal(err)
		}
		var got []string
		message := new(wrapperspb.StringValue)
		err := stream.Receive(message)
		for ; err == nil; err = stream.Receive(message) {
			got = append(got, message.GetValue())
		}
		if !slices.Equal(got, []string{"a", "b", "c"}) || connect.CodeOf(err) != connect.CodeDataLoss {
			t.Errorf("got %q, %v, want a, b, c and the handler's error", got, err)
		}
		if info.ResponseHeader().Get("X-Header") != "1" || info.ResponseTrailer().Get("X-Trailer") != "2" || fault.Hits() != 1 {
			t.Errorf("got headers %v, trailers %v, %d hits", info.ResponseHeader(), info.ResponseTrailer(), fault.Hits())
		}
	})
}

// TestStreamThatIsNotStruckGoesOn: what a fault does not strike is not held back for it.
func TestStreamThatIsNotStruckGoesOn(t *testing.T) {
	atBoth(t, connect.StreamTypeBidi, func(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
		message := new(wrapperspb.StringValue)
		err := stream.Receive(message)
		for ; err == nil; err = stream.Receive(message) {
			if err := stream.Send(message); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}, func(t *testing.T, faults delayer, call call) {
		t.Helper()
		rare := faults.Delay("orders.Place", time.Hour, servicestest.AfterExecution(), servicestest.Rate(0.001))
		never := faults.Delay("orders.Place", time.Hour, servicestest.AfterExecution(), servicestest.Times(0))
		stream, _ := call()
		for _, word := range []string{"to", "and", "fro"} {
			message := wrapperspb.String(word)
			if err := errors.Join(stream.Send(message), stream.Receive(message)); err != nil || message.GetValue() != word {
				t.Fatalf("%q came back as %q, %v", word, message.GetValue(), err)
			}
		}
		if rare.Hits() != 0 || never.Hits() != 0 {
			t.Errorf("%d and %d hits, want none", rare.Hits(), never.Hits())
		}
	})
}

// sent is a server's stream that notes what is sent.
type sent struct {
	connect.ServerStream

	what []string
}

func (s *sent) SendHeaders() error {
	s.what = append(s.what, "headers")
	return nil
}

func (s *sent) Send(message any) error {
	switch message := message.(type) {
	case *wrapperspb.StringValue:
		s.what = append(s.what, message.GetValue())
	case string:
		s.what = append(s.what, message)
	}
	return nil
}

// TestAnswerIsHeldWithItsHeaders: nothing of an answer that may be lost is sent before it is known whether it is.
func TestAnswerIsHeldWithItsHeaders(t *testing.T) {
	for _, test := range []struct {
		code connect.Code // of the fault; 0 for a delay
		want []string
	}{
		{connect.CodeAborted, nil},
		{0, []string{"headers", "message", "no protobuf"}},
	} {
		stream, faults := new(sent), servicestest.NewFaults()
		call := faults.Interceptor()(func(_ context.Context, _ connect.Spec, held connect.ServerStream) error {
			err := errors.Join(held.SendHeaders(), held.Send(wrapperspb.String("message")), held.Send("no protobuf"))
			if len(stream.what) > 0 {
				t.Errorf("%q were sent at once", stream.what)
			}
			return err
		})
		if test.code == 0 {
			faults.Delay("*", 0, servicestest.AfterExecution())
		} else {
			faults.Fail("*", test.code, servicestest.AfterExecution())
		}
		err := call(t.Context(), connect.Spec{Procedure: procedure}, stream)
		if (err != nil) != (test.code != 0) || !slices.Equal(stream.what, test.want) {
			t.Errorf("%v: got %v after %q was sent, want %q", test.code, err, stream.what, test.want)
		}
	}
}

// TestHeldAnswerEndsWithItsClient: a handler that sends until that fails ends, though what it sends goes nowhere.
func TestHeldAnswerEndsWithItsClient(t *testing.T) {
	faults := servicestest.NewFaults()
	ctx, leave := context.WithCancel(t.Context())
	call := faults.Interceptor()(func(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
		if err := errors.Join(stream.SendHeaders(), stream.Send("message")); err != nil {
			t.Errorf("got %v while the client is there", err)
		}
		leave()
		if err := stream.SendHeaders(); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v of headers, want canceled", err)
		}
		return stream.Send("message")
	})
	fault := faults.Fail("*", connect.CodeAborted, servicestest.AfterExecution())
	if err := call(ctx, connect.Spec{Procedure: procedure}, new(sent)); !errors.Is(err, context.Canceled) || fault.Hits() != 0 {
		t.Errorf("got %v and %d hits, want canceled, and none", err, fault.Hits())
	}
}

// callThrough makes a call that faults may strike, and returns its code; 0 is success.
func callThrough(t *testing.T, faults *servicestest.Faults, handler func(leave func())) connect.Code {
	t.Helper()
	defer func() { _ = recover() }() // of a handler that panics
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	err := faults.Interceptor()(func(context.Context, connect.Spec, connect.ServerStream) error {
		handler(leave)
		return nil
	})(ctx, connect.Spec{Procedure: procedure}, new(sent))
	if err == nil {
		return 0
	}
	return connect.CodeOf(err)
}

func answer(func()) {}

// TestStrikeIsReserved: a call has its strike from the beginning, and leaves it to a later one if it comes to have no answer to be struck.
func TestStrikeIsReserved(t *testing.T) {
	const struck = connect.CodeAborted
	for name, test := range map[string]struct {
		end         func(leave func(), fault *servicestest.Fault)
		first, next connect.Code
	}{
		"it is answered":       {func(func(), *servicestest.Fault) {}, struck, 0},
		"its client leaves":    {func(leave func(), _ *servicestest.Fault) { leave() }, 0, struck},
		"its handler panics":   {func(func(), *servicestest.Fault) { panic("handler") }, 0, struck},
		"the fault is removed": {func(_ func(), fault *servicestest.Fault) { fault.Remove() }, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				faults := servicestest.NewFaults()
				fault := faults.Fail("*", struck, servicestest.AfterExecution(), servicestest.Times(1))
				over, first := make(chan struct{}), make(chan connect.Code)
				go func() {
					first <- callThrough(t, faults, func(leave func()) {
						<-over
						test.end(leave, fault)
					})
				}()
				synctest.Wait()
				if got := callThrough(t, faults, answer); got != 0 || fault.Hits() != 0 {
					t.Errorf("another call got %v, and there are %d hits, while the first is under way; want none", got, fault.Hits())
				}
				close(over)
				hits := 0
				for _, call := range []struct{ got, want connect.Code }{
					{<-first, test.first}, {callThrough(t, faults, answer), test.next}, {callThrough(t, faults, answer), 0},
				} {
					if call.got != call.want {
						t.Errorf("got %v, want %v", call.got, call.want)
					}
					if call.want == struck {
						hits++
					}
				}
				if fault.Hits() != hits {
					t.Errorf("%d hits, want %d", fault.Hits(), hits)
				}
			})
		})
	}
}

// TestStrikeThatAnotherFaultTookIsGivenBack: the share that a fault strikes stays what it is.
func TestStrikeThatAnotherFaultTookIsGivenBack(t *testing.T) {
	faults := servicestest.NewFaults()
	then := servicestest.AfterExecution()
	first := faults.Fail("*", connect.CodeAborted, then, servicestest.Times(2))
	second := faults.Fail("*", connect.CodeDataLoss, then, servicestest.Rate(0.5))
	var got []connect.Code
	for range 8 {
		got = append(got, callThrough(t, faults, answer))
	}
	const one, two = connect.CodeAborted, connect.CodeDataLoss
	if want := []connect.Code{one, one, two, two, 0, two, 0, two}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if first.Hits() != 2 || second.Hits() != 4 {
		t.Errorf("%d and %d hits, want 2 and 4", first.Hits(), second.Hits())
	}
}
