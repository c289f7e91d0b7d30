package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/0x1d/goplt/pkg/rpc"
)

// wordsAt serves the words service on a real socket and returns where.
func wordsAt(t *testing.T, wrap func(http.Handler) http.Handler, speaks protocols) (*words, string) {
	t.Helper()
	service, handlers := newWords()
	server, err := rpc.NewServer(handlers)
	if err != nil {
		t.Fatal(err)
	}
	handler := server.Handler()
	if wrap != nil {
		handler = wrap(handler)
	}
	return service, startHTTP(t, handler, speaks).Listener.Addr().String()
}

// readAll reads a stream to its end.
func readAll(stream connect.ClientStream) (string, error) {
	var all []string
	for {
		var word wrapperspb.StringValue
		if err := stream.Receive(&word); errors.Is(err, io.EOF) {
			return strings.Join(all, " "), nil
		} else if err != nil {
			return strings.Join(all, " "), err
		}
		all = append(all, word.GetValue())
	}
}

// expectReleased checks that a transport has nothing in flight any more.
func expectReleased(t *testing.T, transport *rpc.Transport) {
	t.Helper()
	await(t, "all streams to be released", func() bool {
		for _, instance := range transport.Status().Instances {
			if instance.InFlight != 0 {
				return false
			}
		}
		return true
	})
}

func TestStreams(t *testing.T) {
	for _, row := range []struct {
		name   string
		speaks protocols
		spoken rpc.Protocol
		want   rpc.Protocol
	}{
		{"gRPC", http1And2, rpc.ProtocolAuto, rpc.ProtocolGRPC},
		{"HTTP/1.1 by fallback", http1Only, rpc.ProtocolAuto, rpc.ProtocolHTTP},
		{"HTTP/1.1 by choice", http1And2, rpc.ProtocolHTTP, rpc.ProtocolHTTP},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, addr := wordsAt(t, nil, row.speaks)
			transport, status := only(t, addr, protocol(row.spoken))
			client := connect.NewClient(transport)
			for range 2 {
				stream, err := client.CallServerStream(t.Context(), specSplit, wrapperspb.String("one two three"))
				if err != nil {
					t.Fatal(err)
				}
				if got, err := readAll(stream); err != nil || got != "one two three" {
					t.Errorf("server stream: got %q, %v", got, err)
				}
				expectAtRest(t, status(), row.want) // at its end, without Close
				if err := errors.Join(stream.Close(), stream.Close()); err != nil {
					t.Error(err)
				}

				stream, err = client.CallClientStream(t.Context(), specJoin)
				if err != nil {
					t.Fatal(err)
				}
				for _, word := range []string{"one", "two"} {
					if err := stream.Send(wrapperspb.String(word)); err != nil {
						t.Fatal(err)
					}
				}
				var joined wrapperspb.StringValue
				if err := errors.Join(stream.CloseSend(), stream.Receive(&joined)); err != nil || joined.GetValue() != "one two" {
					t.Errorf("client stream: got %q, %v", joined.GetValue(), err)
				}
				expectAtRest(t, status(), row.want)
			}
			if got := status(); got.Calls != 4 || got.Failures != 0 {
				t.Errorf("status %+v; want 4 calls and no failure", got)
			}

			stream, err := client.CallClientStream(t.Context(), specChat)
			if err != nil {
				t.Fatal(err)
			}
			err = stream.Send(wrapperspb.String("hello"))
			if row.want == rpc.ProtocolHTTP {
				expectCode(t, err, connect.CodeUnimplemented)
				if want := "/test.v1.Words/Chat: a bidirectional stream needs HTTP/2, and the instance is spoken to over HTTP/1.1"; !strings.Contains(fmt.Sprint(err), want) {
					t.Errorf("got %v, want it to say %q", err, want)
				}
				if got := status(); got.InFlight != 0 || got.Failures != 0 {
					t.Errorf("status %+v", got)
				}
				return
			}
			for _, word := range []string{"hello", "again"} {
				var echo wrapperspb.StringValue
				if err := stream.Receive(&echo); err != nil || echo.GetValue() != word {
					t.Errorf("bidi: got %q, %v", echo.GetValue(), err)
				}
				if err := stream.Send(wrapperspb.String("again")); err != nil {
					t.Error(err)
				}
			}
			if err := stream.CloseSend(); err != nil {
				t.Error(err)
			}
			if rest, err := readAll(stream); err != nil || rest != "again" {
				t.Errorf("bidi: got %q, %v", rest, err)
			}
			expectAtRest(t, status(), row.want)
		})
	}
}

// TestStreamRefusedForItsForm: a proxy that answers 415 where nothing speaks Connect/JSON either, for a while, does not have the instance spoken to
// by it for good; nor does it end bidirectional streams, which cannot be made by it.
func TestStreamRefusedForItsForm(t *testing.T) {
	var out atomic.Bool
	_, addr := wordsAt(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
			switch {
			case !strings.HasPrefix(request.Header.Get("Content-Type"), "application/grpc"):
				http.Error(response, "no such page", http.StatusNotFound)
			case out.Load():
				http.Error(response, "no such type", http.StatusUnsupportedMediaType)
			default:
				next.ServeHTTP(response, request)
			}
		})
	}, http1And2)
	split := func(client *connect.Client) error {
		stream, err := client.CallServerStream(t.Context(), specSplit, wrapperspb.String("one two"))
		if err != nil {
			return err
		}
		defer func() { _ = stream.Close() }()
		_, err = readAll(stream)
		return err
	}
	for _, next := range []string{"server stream", "bidirectional stream"} {
		t.Run(next, func(t *testing.T) {
			transport, status := only(t, addr, nil)
			client := connect.NewClient(transport)
			out.Store(true)
			if split(client) == nil {
				t.Error("the proxy did not refuse the stream")
			}
			out.Store(false)
			if next == "server stream" {
				if split(client) == nil {
					t.Error("the second stream went by gRPC: the test shows nothing")
				}
				if err := split(client); err != nil {
					t.Error(err)
				}
			} else {
				stream, err := client.CallClientStream(t.Context(), specChat)
				if err != nil {
					t.Fatal(err)
				}
				var echo wrapperspb.StringValue
				if err := errors.Join(stream.Send(wrapperspb.String("hello")), stream.Receive(&echo), stream.CloseSend()); err != nil {
					t.Error(err)
				}
				if _, err := readAll(stream); err != nil {
					t.Error(err)
				}
			}
			expectAtRest(t, status(), rpc.ProtocolGRPC)
		})
	}
}

// TestStreamThroughProxyThatRefusesGRPC: a stream's message is gone when the proxy has refused it; the next stream gets through.
func TestStreamThroughProxyThatRefusesGRPC(t *testing.T) {
	var refused atomic.Int64
	_, addr := wordsAt(t, func(next http.Handler) http.Handler {
		return blockGRPC(next, http.StatusUnsupportedMediaType, &refused)
	}, http1And2)
	transport, status := only(t, addr, nil)
	client := connect.NewClient(transport)
	stream, err := client.CallServerStream(t.Context(), specSplit, wrapperspb.String("one two"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = readAll(stream)
	expectCode(t, err, connect.CodeUnknown)
	expectAtRest(t, status(), rpc.ProtocolHTTP)
	stream, err = client.CallServerStream(t.Context(), specSplit, wrapperspb.String("one two"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(stream); err != nil || got != "one two" {
		t.Errorf("got %q, %v", got, err)
	}
	expectCount(t, "gRPC calls that met the proxy", &refused, 1)
}

func TestStreamOpensOnAnotherInstance(t *testing.T) {
	_, addr := wordsAt(t, nil, http1And2)
	down := nobody(t)
	transport := newTransport(t, newScripted(instanceAt(t, "down", down), instanceAt(t, "up", addr)), func(config *rpc.ClientConfig) {
		config.Retry.InitialBackoff, config.Breaker.Enabled = time.Millisecond, false
	})
	client := connect.NewClient(transport)
	for range 20 {
		stream, err := client.CallServerStream(t.Context(), specSplit, wrapperspb.String("one two"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := readAll(stream); err != nil || got != "one two" {
			t.Errorf("got %q, %v", got, err)
		}
	}
	status := transport.Status()
	if down, up := status.Instances[0], status.Instances[1]; down.Failures == 0 || up.Calls != 20 || up.Failures != 0 {
		t.Errorf("status %+v", status.Instances)
	}
	expectReleased(t, transport)
}

// TestBidiFindsInstanceWithHTTP2: a bidirectional stream avoids the instances that cannot take it.
func TestBidiFindsInstanceWithHTTP2(t *testing.T) {
	_, old := wordsAt(t, nil, http1Only)
	_, modern := wordsAt(t, nil, http1And2)
	transport := newTransport(t, newScripted(instanceAt(t, "modern", modern), instanceAt(t, "old", old)), func(config *rpc.ClientConfig) {
		config.Retry.InitialBackoff = time.Millisecond
	})
	for range 10 {
		stream, err := transport.NewClientStream(t.Context(), specChat)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(stream.Send(wrapperspb.String("x")), stream.CloseSend()); err != nil {
			t.Fatal(err)
		}
		if got, err := readAll(stream); err != nil || got != "x" {
			t.Errorf("got %q, %v", got, err)
		}
	}
	expectReleased(t, transport)
}

func TestStreamFailsToOpen(t *testing.T) {
	down := nobody(t)
	transport, status := only(t, down, func(config *rpc.ClientConfig) { config.Retry.InitialBackoff = time.Millisecond })
	stream, err := transport.NewClientStream(t.Context(), specChat)
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(wrapperspb.String("x"))
	expectCode(t, err, connect.CodeUnavailable)
	if attempts := callError(t, err).Attempts; len(attempts) != 3 || attempts[2].Verdict != "not sent" {
		t.Errorf("attempts %v; want 3 that were not sent", attempts)
	}
	if again := stream.Receive(&wrapperspb.StringValue{}); !errors.Is(again, err) {
		t.Errorf("later operations: got %v, want the same error", again)
	}
	if err := stream.Close(); err != nil {
		t.Error(err)
	}
	expectAtRest(t, status(), rpc.ProtocolGRPC)
	if _, err := connect.NewClient(newTransport(t, newScripted(), nil)).CallServerStream(t.Context(), specSplit, wrapperspb.String("x")); !errors.Is(err, rpc.ErrNoInstances) {
		t.Errorf("no instances: got %v", err)
	}
}

// TestStreamAbandoned: however a caller lets go of a stream, what it holds is given back.
func TestStreamAbandoned(t *testing.T) {
	for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
		open := func(ctx context.Context, t *testing.T) (*rpc.Transport, connect.ClientStream) {
			t.Helper()
			service, addr := wordsAt(t, nil, http1And2)
			transport, status := only(t, addr, protocol(spoken))
			stream, err := connect.NewClient(transport).CallServerStream(ctx, specStay, wrapperspb.String("x"))
			if err != nil {
				t.Fatal(err)
			}
			<-service.entered
			if got := status(); got.InFlight != 1 {
				t.Fatalf("in flight %d, want the stream", got.InFlight)
			}
			return transport, stream
		}
		t.Run("by its context alone, "+string(spoken), func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			transport, _ := open(ctx, t)
			cancel()
			expectReleased(t, transport)
			expectUntroubled(t, transport)
		})
		t.Run("by Close, "+string(spoken), func(t *testing.T) {
			transport, stream := open(t.Context(), t)
			if err := stream.Close(); err != nil {
				t.Error(err)
			}
			if got := transport.Status().Instances[0].InFlight; got != 0 {
				t.Errorf("in flight %d after Close", got)
			}
			expectUntroubled(t, transport)
		})
		t.Run("by Close while receiving, "+string(spoken), func(t *testing.T) {
			transport, stream := open(t.Context(), t)
			if err := stream.Receive(&wrapperspb.StringValue{}); err != nil {
				t.Fatal(err)
			}
			received := make(chan error)
			go func() { received <- stream.Receive(&wrapperspb.StringValue{}) }()
			var closing sync.WaitGroup
			for range 4 {
				closing.Go(func() {
					if err := stream.Close(); err != nil {
						t.Error(err)
					}
				})
			}
			expectCode(t, <-received, connect.CodeCanceled)
			closing.Wait()
			expectReleased(t, transport)
			expectUntroubled(t, transport)
		})
	}
	t.Run("by Close while it opens", func(t *testing.T) {
		listener := listen(t)
		serveOn(t, deaf{Listener: listener, toAll: true}, http.NotFoundHandler(), http1Only)
		transport, status := only(t, listener.Addr().String(), nil)
		stream, err := transport.NewClientStream(t.Context(), specChat)
		if err != nil {
			t.Fatal(err)
		}
		opened := make(chan error)
		go func() { opened <- stream.Send(wrapperspb.String("x")) }()
		await(t, "the stream to open", func() bool { return status().InFlight == 1 })
		began := time.Now()
		if err := stream.Close(); err != nil {
			t.Error(err)
		}
		expectCode(t, <-opened, connect.CodeCanceled)
		if took := time.Since(began); took > time.Second {
			t.Errorf("took %v", took)
		}
		expectUntroubled(t, transport)
	})
	t.Run("before it opens", func(t *testing.T) {
		transport := newTransport(t, newScripted(), nil)
		stream, err := transport.NewClientStream(t.Context(), specChat)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Close(); err != nil {
			t.Error(err)
		}
		expectCode(t, stream.Send(wrapperspb.String("x")), connect.CodeCanceled)
	})
	t.Run("because its one message cannot be sent", func(t *testing.T) {
		_, addr := wordsAt(t, nil, http1And2)
		transport, status := only(t, addr, func(config *rpc.ClientConfig) { config.MaxSendBytes = 10 })
		_, err := connect.NewClient(transport).CallServerStream(t.Context(), specSplit, wrapperspb.String(strings.Repeat("x", 100)))
		expectCode(t, err, connect.CodeResourceExhausted)
		expectAtRest(t, status(), rpc.ProtocolGRPC)
	})
}

// expectUntroubled checks that nothing was taken for a failure.
func expectUntroubled(t *testing.T, transport *rpc.Transport) {
	t.Helper()
	for _, instance := range transport.Status().Instances {
		if instance.Failures != 0 || instance.Breaker != "closed" {
			t.Errorf("status %+v; want no failure", instance)
		}
	}
}

// TestStreamCutOffByPeer: a stream whose connection is lost ends with an error that says so, and counts as a failure.
func TestStreamCutOffByPeer(t *testing.T) {
	service, handlers := newWords()
	server, err := rpc.NewServer(handlers)
	if err != nil {
		t.Fatal(err)
	}
	running := startHTTP(t, server.Handler(), http1And2)
	transport, status := only(t, running.Listener.Addr().String(), nil)
	stream, err := connect.NewClient(transport).CallServerStream(t.Context(), specStay, wrapperspb.String("x"))
	if err != nil {
		t.Fatal(err)
	}
	<-service.entered
	running.CloseClientConnections()
	_, err = readAll(stream)
	expectCode(t, err, connect.CodeUnavailable)
	if got := status(); got.Failures != 1 || got.InFlight != 0 {
		t.Errorf("status %+v; want one failure and nothing in flight", got)
	}
}

// TestStreamsOutliveTheCallTimeout: Timeout bounds the opening of a stream, not its life.
func TestStreamsOutliveTheCallTimeout(t *testing.T) {
	service, addr := wordsAt(t, nil, http1And2)
	transport, _ := only(t, addr, func(config *rpc.ClientConfig) { config.Timeout = time.Second })
	stream, err := connect.NewClient(transport).CallServerStream(t.Context(), specStay, wrapperspb.String("x"))
	if err != nil {
		t.Fatal(err)
	}
	<-service.entered
	// A call that is made later runs into the timeout while the stream lives on.
	_, err = callText(t.Context(), connect.NewClient(transport), specHang, "x")
	expectCode(t, err, connect.CodeDeadlineExceeded)
	close(service.release)
	if got, err := readAll(stream); err != nil || got != "x x" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestStreamErrorNamesTheInstance: who loses a stream is told where it was.
func TestStreamErrorNamesTheInstance(t *testing.T) {
	peer := startH2Peer(t, func(_ int, conn *h2Conn) {
		conn.Greet()
		if request, ok := conn.Next(); ok {
			conn.Begin(request.Stream)
			conn.Abort()
		}
	})
	transport, _ := only(t, peer.Addr, nil)
	stream, err := connect.NewClient(transport).CallServerStream(t.Context(), specSplit, wrapperspb.String("x"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }()
	err = stream.Receive(&wrapperspb.StringValue{})
	expectCode(t, err, connect.CodeUnavailable)
	if attempts := callError(t, err).Attempts; len(attempts) != 1 || attempts[0].Instance != "one" || attempts[0].Addr != peer.Addr {
		t.Errorf("attempts %v; want the one at %s", attempts, peer.Addr)
	}
}
