//go:build integration

package faults_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	connectrpc "connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	"github.com/0x1d/goplt/internal/testcert"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// byJSON and byGRPC are what the caller is told of how the answer came.
const (
	byJSON = connectrpc.ProtocolNameConnect
	byGRPC = connectrpc.ProtocolNameGRPC
)

// expectJSON makes calls that have to be answered by Connect/JSON and be executed once.
func expectJSON(t testing.TB, transport *rpc.Transport, executions *ledger, calls int) {
	t.Helper()
	for at := range calls {
		made, protocol := invokeBy(t.Context(), transport, both[at%2])
		made.expect(t, executions, 0, 1)
		if protocol != byJSON {
			t.Errorf("%s was answered by %q, want %q", made.id, protocol, byJSON)
		}
	}
}

// TestRow26HTTP1Only: what is in front of the instance speaks HTTP/1.1 and nothing else.
func TestRow26HTTP1Only(t *testing.T) {
	t.Parallel()
	for _, what := range both {
		t.Run(what.String(), func(t *testing.T) {
			row(t)
			executions := newLedger()
			gateway := servicestest.StartHTTPProxy(t, host{}.start(t, executions).Addr())
			gateway.HTTP1Only()
			transport := reach(t, inMemory(), gateway.Addr)
			made, protocol := invokeBy(t.Context(), transport, what)
			made.expect(t, executions, 0, 1)
			if protocol != byJSON {
				t.Errorf("the first call was answered by %q, want %q", protocol, byJSON)
			}
			expectJSON(t, transport, executions, 10)
			if requests, accepted := gateway.Requests("*"), gateway.Accepted.Load(); requests != 11 || accepted != 2 {
				t.Errorf("%d requests on %d connections; want 11, and one connection by each protocol", requests, accepted)
			}
			expectUntouched(t, transport, rpc.ProtocolHTTP)
		})
	}
}

// TestRow26OneOfThree: what is found out of one instance at once by many callers says nothing of the others.
func TestRow26OneOfThree(t *testing.T) {
	row(t)
	executions := newLedger()
	old := servicestest.StartHTTPProxy(t, host{}.start(t, executions).Addr())
	old.HTTP1Only()
	modern := []*instance{host{}.start(t, executions), host{}.start(t, executions)}
	cfg := inMemory(speaking(rpc.ProtocolAuto))
	reg := newRegistry(t, cfg)
	for at, addr := range []string{old.Addr, modern[0].Addr(), modern[1].Addr()} {
		registerAt(t, reg, instanceID(at), addr)
	}
	transport := newTransport(t, cfg, reg)
	await(t, "connections to the others", func() bool {
		return statusOf(transport, instanceID(1)).Connections > 0 && statusOf(transport, instanceID(2)).Connections > 0
	})
	const calls = 64
	for _, made := range invokeAtOnce(transport, mixed, calls) {
		made.expect(t, executions, 0, 1)
	}
	await(t, "calls to each", func() bool {
		invoke(t.Context(), transport, unrepeatable, patience).expect(t, executions, 0, 1)
		return old.Requests("*") > 0 && modern[0].executed.Load() > 0 && modern[1].executed.Load() > 0
	})
	for at, want := range []rpc.Protocol{rpc.ProtocolHTTP, rpc.ProtocolGRPC, rpc.ProtocolGRPC} {
		if got := statusOf(transport, instanceID(at)); got.Protocol != want || got.Failures != 0 {
			t.Errorf("status %+v; want %s and no failure", got, want)
		}
	}
	expectAtRest(t, transport)
}

// TestRow27TLSWithoutH2: by TLS, the server says before the first byte of a request that it knows no HTTP/2, or says nothing of protocols at all.
func TestRow27TLSWithoutH2(t *testing.T) {
	t.Parallel()
	for name, offers := range map[string][]string{"http/1.1 alone": {"http/1.1"}, "no ALPN": nil} {
		for _, what := range both {
			t.Run(name+" "+what.String(), func(t *testing.T) {
				row(t)
				authority := testcert.New(t)
				executions := newLedger()
				server := startSecured(t, authority, executions, offers)
				transport := reach(t, inMemory(func(cfg *config.Config) {
					cfg.Defaults.TLS = rpc.TLSConfig{Enabled: true, CAFile: authority.CAFile}
				}), server.addr)
				made, protocol := invokeBy(t.Context(), transport, what)
				made.expect(t, executions, 0, 1)
				if protocol != byJSON {
					t.Errorf("the first call was answered by %q, want %q", protocol, byJSON)
				}
				expectJSON(t, transport, executions, 10)
				expectUntouched(t, transport, rpc.ProtocolHTTP)
				if conns, first := server.seen(); conns != 2 || len(first) != 1 || !bytes.HasPrefix(first[0], []byte("POST /goplt.auth.v1.AuthService/")) {
					t.Errorf("%d connections, on which came %q; want two, the first without a byte of a request, and the second with HTTP/1.1", conns, first)
				}
			})
		}
	}
}

// securedServer is an HTTP/1.1 server behind TLS that keeps what comes first on each connection.
type securedServer struct {
	net.Listener

	addr     string
	accepted atomic.Int64
	mu       sync.Mutex
	first    [][]byte
}

func startSecured(t testing.TB, authority *testcert.Authority, executions *ledger, offers []string) *securedServer {
	t.Helper()
	pair := authority.Issue(t, "127.0.0.1")
	certificate, err := tls.LoadX509KeyPair(pair.CertFile, pair.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &securedServer{addr: listener.Addr().String()}
	s.Listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: offers, MinVersion: tls.VersionTLS12})
	handlers := connectrpc.NewServer()
	authv1connect.RegisterAuthServiceHandler(handlers, newHandler(executions, new(atomic.Int64), nil))
	hosted, err := rpc.NewServer(handlers)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: hosted.Handler(), Protocols: new(http.Protocols), ReadHeaderTimeout: within}
	server.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // of the connection that begins and is given up
	server.Protocols.SetHTTP1(true)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(s) }) // that it was closed
	t.Cleanup(func() {
		_ = server.Close()
		serving.Wait()
	})
	return s
}

// Accept implements [net.Listener].
func (s *securedServer) Accept() (net.Conn, error) {
	conn, err := s.Listener.Accept()
	if err == nil {
		s.accepted.Add(1)
		conn = &firstRead{Conn: conn, server: s}
	}
	return conn, err
}

// seen returns how many connections there were, and the first bytes within TLS of those on which there were any.
func (s *securedServer) seen() (conns int64, first [][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted.Load(), s.first
}

// firstRead is a connection that keeps what is read first.
type firstRead struct {
	net.Conn

	server *securedServer
	read   bool
}

// Read implements [net.Conn]. net/http reads from one goroutine at a time.
func (c *firstRead) Read(buffer []byte) (int, error) {
	n, err := c.Conn.Read(buffer)
	if n > 0 && !c.read {
		c.read = true
		c.server.mu.Lock()
		defer c.server.mu.Unlock()
		c.server.first = append(c.server.first, bytes.Clone(buffer[:n]))
	}
	return n, err
}

// TestRow28GatewayRefusesGRPC: what is in front of the instance answers gRPC, and gRPC alone, with a status that says that it does not know its form.
func TestRow28GatewayRefusesGRPC(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusUnsupportedMediaType, 464, http.StatusHTTPVersionNotSupported} {
		for _, what := range both {
			t.Run(fmt.Sprintf("%d %s", status, what), func(t *testing.T) {
				row(t)
				executions := newLedger()
				gateway := servicestest.StartHTTPProxy(t, host{}.start(t, executions).Addr())
				refusal := gateway.InjectStatus("*", status, servicestest.GRPCOnly())
				transport := reach(t, inMemory(speaking(rpc.ProtocolAuto)), gateway.Addr)
				made, protocol := invokeBy(t.Context(), transport, what)
				made.expect(t, executions, 0, 1)
				if got := gateway.Requests("*"); protocol != byJSON || got != 2 {
					t.Errorf("the first call took %d requests and was answered by %q; want one replay, and %q", got, protocol, byJSON)
				}
				expectJSON(t, transport, executions, 10)
				if got := refusal.Hits(); got != 1 || gateway.Requests("*") != 12 {
					t.Errorf("%d of %d requests were by gRPC; want the first of 12", got, gateway.Requests("*"))
				}
				expectUntouched(t, transport, rpc.ProtocolHTTP)
			})
		}
		t.Run(fmt.Sprintf("%d at once", status), func(t *testing.T) {
			row(t)
			executions := newLedger()
			gateway := servicestest.StartHTTPProxy(t, host{}.start(t, executions).Addr())
			refusal := gateway.InjectStatus("*", status, servicestest.GRPCOnly())
			transport := reach(t, inMemory(speaking(rpc.ProtocolAuto)), gateway.Addr)
			const calls = 64
			for _, made := range invokeAtOnce(transport, mixed, calls) {
				made.expect(t, executions, 0, 1)
			}
			if got := gateway.Requests("*"); got != calls+refusal.Hits() {
				t.Errorf("%d requests for %d calls, of which %d met the refusal; want one replay for each of those", got, calls, refusal.Hits())
			}
			expectUntouched(t, transport, rpc.ProtocolHTTP)
		})
	}
}

// TestRow29TrailersStripped: what is in front of the instance loses the trailers, and with them the status of a call that was executed and must not
// be executed again.
func TestRow29TrailersStripped(t *testing.T) {
	row(t)
	executions := newLedger()
	gateway := servicestest.StartHTTPProxy(t, host{}.start(t, executions).Addr())
	gateway.StripTrailers("*")
	transport := reach(t, inMemory(speaking(rpc.ProtocolAuto)), gateway.Addr)
	made := invoke(t.Context(), transport, unrepeatable, patience)
	made.expect(t, executions, connectrpc.CodeInternal, 1)
	if attempts := made.attempts(t); len(attempts) != 1 || attempts[0].Protocol != rpc.ProtocolGRPC || attempts[0].Verdict != "processed" {
		t.Errorf("attempts %v; want one, by gRPC", attempts)
	}
	if got := gateway.Requests("auth.Login"); got != 1 {
		t.Errorf("the call was sent %d times", got)
	}
	await(t, "the instance to be spoken to by JSON", func() bool { return statusOf(transport, instanceID(0)).Protocol == rpc.ProtocolHTTP })
	expectJSON(t, transport, executions, 10)
	expectAtRest(t, transport)
}

// TestRow29UnderLoad: the trailers of one of three instances are lost from some moment on. Only calls that are not idempotent fail for it, none is
// executed twice, and that ends.
func TestRow29UnderLoad(t *testing.T) {
	row(t)
	executions := newLedger()
	gateway := servicestest.StartHTTPProxy(t, host{}.start(t, executions).Addr())
	transport := reach(t, inMemory(speaking(rpc.ProtocolAuto)), gateway.Addr, host{}.start(t, executions).Addr(), host{}.start(t, executions).Addr())
	l := startCrowd(t, transport, executions, mixed, patience)
	await(t, "calls through the gateway", func() bool { return gateway.Requests("*") > 100 })
	strip := gateway.StripTrailers("*")
	await(t, "the instance to be spoken to by JSON", func() bool { return statusOf(transport, instanceID(0)).Protocol == rpc.ProtocolHTTP })
	switched, before := time.Now(), gateway.Requests("auth")
	await(t, "calls by JSON", func() bool { return gateway.Requests("auth") > before+100 })
	for _, made := range l.finish(t) {
		if made.ended.Add(-made.took).After(switched) {
			t.Errorf("%s failed though the instance was spoken to by JSON: %v", made.id, made.err)
		}
		if code := connectrpc.CodeOf(made.err); made.kind == idempotent || code != connectrpc.CodeInternal || executions.executions(made.id) != 1 {
			t.Errorf("%s, %s, executed %d times, failed: %v", made.id, made.kind, executions.executions(made.id), made.err)
		}
	}
	if strip.Hits() == 0 {
		t.Error("no trailers were stripped: the test tests nothing")
	}
	expectAtRest(t, transport)
}

// TestRow30TrailersStrippedIdempotent: the same for a call that may be executed again, and is, by the other protocol.
func TestRow30TrailersStrippedIdempotent(t *testing.T) {
	row(t)
	executions := newLedger()
	gateway := servicestest.StartHTTPProxy(t, host{}.start(t, executions).Addr())
	gateway.StripTrailers("*")
	transport := reach(t, inMemory(speaking(rpc.ProtocolAuto)), gateway.Addr)
	made, protocol := invokeBy(t.Context(), transport, idempotent)
	made.expect(t, executions, 0, 2)
	if got := gateway.Requests("auth.ValidateToken"); protocol != byJSON || got != 2 {
		t.Errorf("the call took %d requests and was answered by %q; want 2 and %q", got, protocol, byJSON)
	}
	await(t, "the instance to be spoken to by JSON", func() bool { return statusOf(transport, instanceID(0)).Protocol == rpc.ProtocolHTTP })
	expectJSON(t, transport, executions, 10)
	expectUntouched(t, transport, rpc.ProtocolHTTP)
}
