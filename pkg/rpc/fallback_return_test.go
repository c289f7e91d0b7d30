package rpc_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/0x1d/goplt/pkg/rpc"
)

// startForked forwards connections that begin with an HTTP/2 preface to one address, and others to another.
func startForked(t testing.TB, http2Addr, http1Addr func() string) string {
	t.Helper()
	listener := listen(t)
	var open sync.WaitGroup
	open.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			open.Go(func() {
				defer func() { _ = in.Close() }()
				first := make([]byte, 3)
				if _, err := io.ReadFull(in, first); err != nil {
					return
				}
				addr := http1Addr
				if string(first) == "PRI" {
					addr = http2Addr
				}
				out, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr())
				if err != nil {
					return
				}
				open.Go(func() {
					_, _ = io.Copy(in, out)
					_ = in.Close()
				})
				_, _ = io.Copy(out, io.MultiReader(bytes.NewReader(first), in))
				_ = out.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		open.Wait()
	})
	return listener.Addr().String()
}

// TestReprobe: when gRPC gets through again, a probe finds out, and no call fails for it. Where the evidence was hard, that takes no health.
func TestReprobe(t *testing.T) {
	const answered, status, works = "was answered over HTTP/2", "brought a grpc-status", "brought a message and a trailer"
	for _, row := range []struct {
		name    string
		service func(handler *authHandler) http.Handler
		start   func(t *testing.T, service http.Handler) (addr string, restore func())
		found   string
	}{
		{"after soft evidence", healthy(t), func(t *testing.T, service http.Handler) (string, func()) {
			proxy := startStripper(t, startHTTP(t, service, http2Only).Listener.Addr().String())
			return proxy.addr, func() { proxy.passes.Store(true) }
		}, works},
		{"for new connections only", healthy(t), func(t *testing.T, service http.Handler) (string, func()) {
			direct := startHTTP(t, service, http1And2).Listener.Addr().String()
			addr, restore := startReplaced(t, startStripper(t, direct).addr, direct)
			return addr, restore
		}, works},
		{"after hard evidence", healthy(t), startBlocked, works},
		{"after hard evidence, without health", healthless, startBlocked, status},
		{"after no HTTP/2", healthy(t), startWithoutHTTP2, works},
		{"after no HTTP/2, without health", healthless, startWithoutHTTP2, status},
		{"after no HTTP/2, where a router says that there is no health", (*authHandler).mount, startWithoutHTTP2, answered},
	} {
		t.Run(row.name, func(t *testing.T) {
			handler := &authHandler{}
			addr, restore := row.start(t, row.service(handler))
			transport, err := rpc.NewTransport("scripted:///auth", newScripted(instanceAt(t, "one", addr)), rpc.WithReprobe(20*time.Millisecond, 40*time.Millisecond))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = transport.Close() }()
			speaks := func(want rpc.Protocol) func() bool {
				return func() bool { return transport.Status().Instances[0].Protocol == want }
			}
			if err := validate(t.Context(), transport); err != nil {
				t.Fatal(err)
			}
			await(t, "the fallback", speaks(rpc.ProtocolHTTP))
			var calls sync.WaitGroup
			var logins atomic.Int64
			ctx, stop := context.WithCancel(t.Context())
			for range 4 {
				calls.Go(func() {
					for ctx.Err() == nil {
						if err := login(t.Context(), transport); err != nil {
							t.Error(err)
						}
						logins.Add(1)
					}
				})
			}
			restore()
			await(t, "gRPC to be back", speaks(rpc.ProtocolGRPC))
			before := logins.Load()
			await(t, "calls by gRPC", func() bool { return logins.Load() > before+20 })
			stop()
			calls.Wait()
			expectCount(t, "logins", &handler.logins, logins.Load())
			expectChange(t, transport, noteHTTP)
			expectChange(t, transport, "speaks gRPC again: a probe "+row.found)
			ctx, info := connect.NewClientContext(t.Context())
			if err := login(ctx, transport); err != nil || info.Protocol != connect.ProtocolNameGRPC {
				t.Errorf("%v by %s", err, info.Protocol)
			}
		})
	}
}

// healthy returns what makes a service of a handler that has grpc.health.v1.
func healthy(t *testing.T) func(handler *authHandler) http.Handler {
	t.Helper()
	return func(handler *authHandler) http.Handler { return handler.withHealth(t) }
}

// healthless makes a service of a handler that tells who asks for health by gRPC that there is none, as gRPC servers do.
func healthless(handler *authHandler) http.Handler {
	service := handler.mount()
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		if request.Header.Get("Content-Type") == "application/grpc" && strings.HasPrefix(request.URL.Path, "/grpc.health.v1.") {
			response.Header().Set("Content-Type", "application/grpc")
			response.Header().Set("Grpc-Status", "12")
			return
		}
		service.ServeHTTP(response, request)
	})
}

// startReplaced starts a peer that has connections by HTTP/2 forwarded to one address at first, and to another once it is told to; others to that one.
func startReplaced(t *testing.T, first, then string) (addr string, replace func()) {
	t.Helper()
	var replaced atomic.Bool
	return startForked(t, func() string {
		if replaced.Load() {
			return then
		}
		return first
	}, func() string { return then }), func() { replaced.Store(true) }
}

// startWithoutHTTP2 serves HTTP/1.1 alone until gRPC is restored.
func startWithoutHTTP2(t *testing.T, service http.Handler) (addr string, restore func()) {
	t.Helper()
	old := startHTTP(t, http.NotFoundHandler(), http1Only).Listener.Addr().String()
	return startReplaced(t, old, startHTTP(t, service, http1And2).Listener.Addr().String())
}

// startBlocked serves all but gRPC until that is restored.
func startBlocked(t *testing.T, service http.Handler) (addr string, restore func()) {
	t.Helper()
	var refused atomic.Int64
	var restored atomic.Bool
	blocked := blockGRPC(service, http.StatusUnsupportedMediaType, &refused)
	return startHTTP(t, http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		if restored.Load() {
			service.ServeHTTP(response, request)
		} else {
			blocked.ServeHTTP(response, request)
		}
	}), http1And2).Listener.Addr().String(), func() { restored.Store(true) }
}

// TestRegistrationOutdatesDials: that the program of before does not speak HTTP/2 is not told to those who call the one after it.
func TestRegistrationOutdatesDials(t *testing.T) {
	handler, listener := &authHandler{}, &deafAtFirst{Listener: listen(t)}
	serveOn(t, listener, handler.mount(), http1And2)
	instance := instanceAt(t, "one", listener.Addr().String())
	reg := newScripted(instance)
	transport := newTransport(t, reg, nil)
	first := make(chan error)
	go func() { first <- login(t.Context(), transport) }()
	await(t, "the dial", func() bool { return listener.accepted.Load() == 1 })
	instance.Revision, instance.Weight = 2, 7
	reg.Set(instance)
	await(t, "the registration", func() bool { return transport.Status().Instances[0].Weight == 7 })
	if err := login(t.Context(), transport); err != nil {
		t.Error(err)
	}
	if err := <-first; err != nil {
		t.Error(err)
	}
	expectCount(t, "logins", &handler.logins, 2)
	expectAtRest(t, transport.Status().Instances[0], rpc.ProtocolGRPC)
}

// deafAtFirst is a listener whose first connection keeps silent.
type deafAtFirst struct {
	net.Listener

	accepted atomic.Int64
}

func (l *deafAtFirst) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil || l.accepted.Add(1) > 1 {
		return conn, err
	}
	return &deafConn{Conn: conn, toAll: true, closed: make(chan struct{})}, nil
}

// TestStreamWithoutTrailers: soft evidence on a stream makes the instance suspect. The stream itself stays where it is, and the next gets through.
func TestStreamWithoutTrailers(t *testing.T) {
	_, addr := wordsAt(t, nil, http2Only)
	proxy := startStripper(t, addr)
	transport, status := only(t, proxy.addr, nil)
	client := connect.NewClient(transport)
	stream, err := client.CallServerStream(t.Context(), specSplit, wrapperspb.String("one two"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := readAll(stream)
	if got != "one two" || connect.CodeOf(err) != connect.CodeInternal {
		t.Errorf("got %q, %v; want the words and an error", got, err)
	}
	if err := stream.Close(); err != nil {
		t.Error(err)
	}
	expectCount(t, "gRPC calls", &proxy.grpc, 1)
	await(t, "the switch", func() bool { return status().Protocol == rpc.ProtocolHTTP })
	stream, err = client.CallServerStream(t.Context(), specSplit, wrapperspb.String("three four"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(stream); got != "three four" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	expectCount(t, "gRPC calls", &proxy.grpc, 1)
	expectReleased(t, transport)
}

// TestStreamsWithoutHealth: streams alone are enough to find out what there is no health to ask for.
func TestStreamsWithoutHealth(t *testing.T) {
	_, handlers := newWords()
	mux := http.NewServeMux()
	connecthttp.Mount(mux, handlers)
	proxy := startStripper(t, startHTTP(t, mux, http2Only).Listener.Addr().String())
	transport, status := only(t, proxy.addr, nil)
	client := connect.NewClient(transport)
	failed := int64(0)
	for ; failed < 1000; failed++ {
		stream, err := client.CallServerStream(t.Context(), specSplit, wrapperspb.String("one two"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := readAll(stream)
		if got != "one two" {
			t.Errorf("got %q, %v", got, err)
		}
		_ = stream.Close()
		if err == nil {
			break
		}
	}
	if failed < 3 || failed == 1000 {
		t.Errorf("%d streams failed; want at least 3, and not all", failed)
	}
	expectCount(t, "gRPC calls", &proxy.grpc, failed)
	expectReleased(t, transport)
	if got := status(); got.Protocol != rpc.ProtocolHTTP {
		t.Errorf("status %+v", got)
	}
	expectChange(t, transport, noteHTTP)
}

// TestCloseEndsProbes: Close does not wait for a probe whose peer does not answer, but for the probe to be gone.
func TestCloseEndsProbes(t *testing.T) {
	handler := &authHandler{}
	service, probed, left := handler.mount(), make(chan struct{}, 1), make(chan struct{}, 1)
	inner := startHTTP(t, http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		if strings.Contains(request.URL.Path, "health") {
			probed <- struct{}{}
			<-request.Context().Done()
			left <- struct{}{}
			return
		}
		service.ServeHTTP(response, request)
	}), http2Only)
	transport, _ := only(t, startStripper(t, inner.Listener.Addr().String()).addr, nil)
	expectCode(t, login(t.Context(), transport), connect.CodeInternal)
	<-probed
	began := time.Now()
	if err := transport.Close(); err != nil {
		t.Error(err)
	}
	<-left
	if took := time.Since(began); took > 2*time.Second { // a probe left alone takes 5 s
		t.Errorf("Close and the end of the probe took %v", took)
	}
}
