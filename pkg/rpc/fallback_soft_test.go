package rpc_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect/v2"
	"golang.org/x/net/http2"

	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	"github.com/0x1d/goplt/pkg/rpc"
)

// withHealth returns an HTTP handler for the service as rpc.Server has it, with grpc.health.v1.
func (h *authHandler) withHealth(t testing.TB) http.Handler {
	t.Helper()
	handlers := connect.NewServer()
	authv1connect.RegisterAuthServiceHandler(handlers, h)
	server, err := rpc.NewServer(handlers)
	if err != nil {
		t.Fatal(err)
	}
	return server.Handler()
}

// stripper is a reverse proxy, HTTP/2 or HTTP/1.1 in and HTTP/2 out, that loses the trailers.
type stripper struct {
	addr   string
	passes atomic.Bool  // the trailers on, as it should
	grpc   atomic.Int64 // calls by gRPC that met it, health left out
	health atomic.Int64 // checks by gRPC
}

// startStripper starts one before the server at addr.
func startStripper(t testing.TB, addr string) *stripper {
	t.Helper()
	outward := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	outward.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(outward.CloseIdleConnections)
	proxy := &stripper{}
	proxy.addr = startHTTP(t, http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		switch byGRPC := request.Header.Get("Content-Type") == "application/grpc"; {
		case byGRPC && strings.HasPrefix(request.URL.Path, "/grpc.health.v1."):
			proxy.health.Add(1)
		case byGRPC:
			proxy.grpc.Add(1)
		}
		forwarded := request.Clone(request.Context())
		forwarded.RequestURI, forwarded.URL.Scheme, forwarded.URL.Host = "", "http", addr
		forwarded.Header.Del("Connection")
		answer, err := outward.RoundTrip(forwarded)
		if err != nil {
			http.Error(response, err.Error(), http.StatusBadGateway)
			return
		}
		defer func() { _ = answer.Body.Close() }()
		maps.Copy(response.Header(), answer.Header)
		response.WriteHeader(answer.StatusCode)
		buffer := make([]byte, 1<<10)
		for err == nil {
			var n int
			n, err = answer.Body.Read(buffer)
			_, _ = response.Write(buffer[:n])
			_ = http.NewResponseController(response).Flush()
		}
		if !errors.Is(err, io.EOF) {
			panic(http.ErrAbortHandler)
		}
		if proxy.passes.Load() {
			for name, values := range answer.Trailer {
				response.Header()[http.TrailerPrefix+name] = values
			}
		}
	}), http1And2).Listener.Addr().String()
	return proxy
}

// expectChange checks that something happened to an instance.
func expectChange(t *testing.T, transport *rpc.Transport, what string) {
	t.Helper()
	if !hasChange(transport, what) {
		t.Errorf("changes %+v; want one that says %q", transport.Status().Changes, what)
	}
}

// expectNoChange checks that nothing of the kind happened to an instance.
func expectNoChange(t *testing.T, transport *rpc.Transport, what string) {
	t.Helper()
	if hasChange(transport, what) {
		t.Errorf("changes %+v; want none that says %q", transport.Status().Changes, what)
	}
}

func hasChange(transport *rpc.Transport, what string) bool {
	for _, change := range transport.Status().Changes {
		if strings.Contains(change.What, what) {
			return true
		}
	}
	return false
}

const noteHTTP = "is spoken to by Connect/JSON over HTTP/1.1, because gRPC does not get through: "

// TestTrailersStrippedFromMany: however many find out at the same time, each call is executed once.
func TestTrailersStrippedFromMany(t *testing.T) {
	for _, health := range []bool{true, false} {
		t.Run(fmt.Sprintf("health %t", health), func(t *testing.T) {
			handler := &authHandler{}
			service := handler.mount()
			if health {
				service = handler.withHealth(t)
			}
			proxy := startStripper(t, startHTTP(t, service, http2Only).Listener.Addr().String())
			transport, status := only(t, proxy.addr, nil)
			var callers sync.WaitGroup
			var calls, failed atomic.Int64
			for range 16 {
				callers.Go(func() {
					for more := 0; more < 5; { // until five calls got through
						calls.Add(1)
						if login(t.Context(), transport) != nil {
							failed.Add(1)
						} else {
							more++
						}
					}
				})
			}
			callers.Wait()
			expectCount(t, "logins", &handler.logins, calls.Load())
			expectCount(t, "gRPC calls", &proxy.grpc, failed.Load())
			if got := status(); got.Protocol != rpc.ProtocolHTTP || got.InFlight != 0 {
				t.Errorf("status %+v", got)
			}
		})
	}
}

// TestTrailersStrippedWithoutHealth: an instance that has no health to be probed is judged by calls in a row, each sent once and by one protocol.
func TestTrailersStrippedWithoutHealth(t *testing.T) {
	handler := &authHandler{}
	proxy := startStripper(t, startHTTP(t, handler.mount(), http2Only).Listener.Addr().String())
	transport, status := only(t, proxy.addr, nil)
	failed := int64(0)
	for ; failed < 1000 && login(t.Context(), transport) != nil; failed++ { // until probe and calls have shown enough
		expectCount(t, "logins", &handler.logins, failed+1)
	}
	if failed < 3 || failed == 1000 {
		t.Errorf("%d logins failed; want at least 3, and not all", failed)
	}
	if err := login(t.Context(), transport); err != nil {
		t.Error(err)
	}
	expectCount(t, "logins", &handler.logins, failed+2)
	expectCount(t, "gRPC calls", &proxy.grpc, failed)
	if got := status(); got.Protocol != rpc.ProtocolHTTP || got.InFlight != 0 { // the breaker may have opened meanwhile
		t.Errorf("status %+v", got)
	}
	expectChange(t, transport, noteHTTP)
}

// TestTrailersStrippedAndNoJSON: where Connect/JSON does not answer either, calls go on by gRPC, and none is sent twice.
func TestTrailersStrippedAndNoJSON(t *testing.T) {
	for name, other := range map[string]http.Handler{
		"text": http.NotFoundHandler(), "a gateway's JSON": healthAnswer(http.StatusNotFound, "application/json", `{"message":"no route"}`),
	} {
		t.Run(name, func(t *testing.T) {
			handler := &authHandler{}
			var unanswered atomic.Int64
			counted := http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
				if strings.HasSuffix(request.URL.Path, "/Login") { // and not health
					unanswered.Add(1)
				}
				other.ServeHTTP(response, request)
			})
			proxy := startStripper(t, startHTTP(t, byContentType(handler.mount(), counted), http2Only).Listener.Addr().String())
			transport, status := only(t, proxy.addr, nil)
			calls := int64(0)
			for ; calls < 1000 && !hasChange(transport, "does not answer to Connect/JSON either"); calls++ {
				if err := login(t.Context(), transport); err == nil {
					t.Fatal("succeeded without trailers")
				}
			}
			if calls == 1000 {
				t.Errorf("never tried by Connect/JSON: %+v", transport.Status())
			}
			// One that began as the trial did tells nothing of it, so two may have met the answer 404.
			if got := unanswered.Load(); got < 1 || got > 2 {
				t.Errorf("%d logins by Connect/JSON, want 1 or 2", got)
			}
			expectCount(t, "logins", &handler.logins, calls-unanswered.Load())
			if got := status(); got.Protocol != rpc.ProtocolGRPC || got.InFlight != 0 {
				t.Errorf("status %+v", got)
			}
		})
	}
}

// TestTrailersStrippedIdempotent: calls that are idempotent succeed all the while that calls alone find out.
func TestTrailersStrippedIdempotent(t *testing.T) {
	handler := &authHandler{}
	proxy := startStripper(t, startHTTP(t, handler.mount(), http2Only).Listener.Addr().String())
	transport, status := only(t, proxy.addr, nil)
	ctx, info := connect.NewClientContext(t.Context())
	if err := validate(ctx, transport); err != nil {
		t.Fatal(err)
	}
	if info.Protocol != connect.ProtocolNameConnect {
		t.Errorf("the call's protocol is %q, want connect: that is what brought the answer", info.Protocol)
	}
	expectCount(t, "executions", &handler.validations, 2)
	calls := int64(1)
	await(t, "the switch", func() bool {
		if err := validate(t.Context(), transport); err != nil {
			t.Error(err)
		}
		calls++
		return status().Protocol == rpc.ProtocolHTTP
	})
	before := proxy.grpc.Load()
	if err := validate(t.Context(), transport); err != nil {
		t.Error(err)
	}
	expectCount(t, "gRPC calls", &proxy.grpc, before)
	expectCount(t, "executions", &handler.validations, calls+1+before)
	expectAtRest(t, status(), rpc.ProtocolHTTP)
	if got := status(); got.Failures != 0 {
		t.Errorf("%d failures: to find out the protocol is none", got.Failures)
	}
}

// TestSoftEvidence: each kind of it has an idempotent call replayed, no other, and the instance probed.
func TestSoftEvidence(t *testing.T) {
	for _, row := range []struct {
		name   string
		answer func(conn *h2Conn, stream uint32)
	}{
		{"PROTOCOL_ERROR", func(conn *h2Conn, stream uint32) { conn.Reset(stream, http2.ErrCodeProtocol) }},
		{"HTTP_1_1_REQUIRED", func(conn *h2Conn, stream uint32) { conn.Reset(stream, http2.ErrCodeHTTP11Required) }},
		{"PROTOCOL_ERROR in the answer", func(conn *h2Conn, stream uint32) {
			conn.Begin(stream)
			conn.Reset(stream, http2.ErrCodeProtocol)
		}},
		{"another content type", func(conn *h2Conn, stream uint32) {
			conn.Headers(stream, false, ":status", "200", "content-type", "text/html")
			conn.Data(stream, true, []byte("<html>welcome</html>"))
		}},
		{"headers alone", func(conn *h2Conn, stream uint32) {
			conn.Headers(stream, true, ":status", "200", "content-type", "application/grpc")
		}},
		{"trailers without a status", func(conn *h2Conn, stream uint32) {
			conn.Begin(stream)
			conn.Message(stream, nil)
			conn.Headers(stream, true, "x-cache", "miss")
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			var executed atomic.Int64
			peer := startH2Peer(t, func(_ int, conn *h2Conn) {
				conn.Greet()
				for {
					request, ok := conn.Next()
					if !ok {
						return
					}
					if !strings.Contains(request.Path(), "health") {
						executed.Add(1)
					}
					row.answer(conn, request.Stream)
				}
			})
			for _, idempotent := range []bool{true, false} {
				executed.Store(0)
				handler := &authHandler{}
				other := startHTTP(t, handler.withHealth(t), http1Only)
				transport, status := only(t, startForked(t, func() string { return peer.Addr }, other.Listener.Addr().String), nil)
				if idempotent {
					if err := validate(t.Context(), transport); err != nil {
						t.Errorf("idempotent: %v", err)
					}
					expectCount(t, "executions by JSON", &handler.validations, 1)
				} else {
					if err := login(t.Context(), transport); err == nil {
						t.Error("not idempotent: it was sent again")
					}
					expectCount(t, "executions by JSON", &handler.logins, 0)
				}
				expectCount(t, "executions by gRPC", &executed, 1)
				await(t, "the switch", func() bool { return status().Protocol == rpc.ProtocolHTTP })
				if err := login(t.Context(), transport); err != nil {
					t.Error(err)
				}
				expectCount(t, "executions by gRPC", &executed, 1)
				expectChange(t, transport, noteHTTP)
			}
		})
	}
}

// TestSoftEvidenceOfOneHandler: what is wrong with one answer is not wrong with gRPC: the probe brings a message and a trailer, and nothing changes.
func TestSoftEvidenceOfOneHandler(t *testing.T) {
	handler := &authHandler{}
	service := handler.withHealth(t)
	addr := startHTTP(t, http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		if strings.HasSuffix(request.URL.Path, "/Login") {
			response.Header().Set("Content-Type", "application/grpc")
			return // a 200 and nothing else
		}
		service.ServeHTTP(response, request)
	}), http1And2).Listener.Addr().String()
	transport, status := only(t, addr, nil)
	for range 10 {
		if err := login(t.Context(), transport); err == nil {
			t.Error("a login without an answer succeeded")
		}
	}
	await(t, "the probe", func() bool { return hasChange(transport, "is probed, because gRPC may not get through: ") })
	if err := validate(t.Context(), transport); err != nil {
		t.Error(err)
	}
	if got := status(); got.Protocol != rpc.ProtocolGRPC || got.InFlight != 0 || got.Failures != 10 {
		t.Errorf("status %+v; want protocol grpc and 10 failures", got)
	}
}

// TestPinnedProtocolIgnoresSoftEvidence: protocol grpc neither replays nor probes, and an instance that says that it speaks gRPC is not suspected.
func TestPinnedProtocolIgnoresSoftEvidence(t *testing.T) {
	for _, row := range []struct {
		name   string
		hint   string
		spoken rpc.Protocol
	}{{"by the client", "", rpc.ProtocolGRPC}, {"by the instance", "grpc", rpc.ProtocolAuto}} {
		t.Run(row.name, func(t *testing.T) {
			handler := &authHandler{}
			proxy := startStripper(t, startHTTP(t, handler.withHealth(t), http2Only).Listener.Addr().String())
			instance := instanceAt(t, "one", proxy.addr)
			instance.Metadata = map[string]string{"protocol": row.hint}
			transport := newTransport(t, newScripted(instance), protocol(row.spoken))
			for range 5 {
				expectCode(t, login(t.Context(), transport), connect.CodeInternal)
			}
			expectCount(t, "logins", &handler.logins, 5)
			expectCount(t, "gRPC calls", &proxy.grpc, 5)
			expectCount(t, "probes", &proxy.health, 0)
			if got := transport.Status().Instances[0]; got.Protocol != rpc.ProtocolGRPC {
				t.Errorf("status %+v", got)
			}
			if row.spoken == rpc.ProtocolGRPC {
				expectCode(t, validate(t.Context(), transport), connect.CodeInternal)
				expectCount(t, "validations", &handler.validations, 1)
			}
		})
	}
}

// TestHintGRPCYieldsToProof: that an instance says that it speaks gRPC is no reason for calls to fail that provably can only be made by HTTP.
func TestHintGRPCYieldsToProof(t *testing.T) {
	handler, listener := &authHandler{}, listen(t)
	serveOn(t, listener, handler.mount(), http1Only)
	instance := instanceAt(t, "one", listener.Addr().String())
	instance.Metadata = map[string]string{"protocol": "grpc"}
	transport := newTransport(t, newScripted(instance), nil)
	for range 3 {
		if err := login(t.Context(), transport); err != nil {
			t.Error(err)
		}
	}
	expectCount(t, "logins", &handler.logins, 3)
	expectAtRest(t, transport.Status().Instances[0], rpc.ProtocolHTTP)
	if _, http2, _ := listener.begins(); http2 != 1 {
		t.Errorf("%d connections by HTTP/2, want 1: what is proved is learned", http2)
	}
}
