package servicestest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/net/http2"

	"github.com/0x1d/goplt/pkg/servicestest"
)

func TestHTTPProxyInjectStatus(t *testing.T) {
	eachProtocol(t, func(t *testing.T, server *backend, gateway *servicestest.HTTPProxy, call func() (*answered, error)) {
		fault := gateway.InjectStatus("orders.Place", http.StatusBadGateway, servicestest.Times(2))
		other := gateway.InjectStatus("orders.Cancel", http.StatusTeapot)
		for range 2 {
			if got, err := call(); err != nil || got.StatusCode != http.StatusBadGateway || got.body != "injected fault\n" {
				t.Fatalf("got %v, %v", got, err)
			}
		}
		if got := server.executed.Load(); got != 0 {
			t.Errorf("%d executions, want none", got)
		}
		expectHello(t, call)
		if fault.Hits() != 2 || other.Hits() != 0 || gateway.Requests("orders") != 3 {
			t.Errorf("%d and %d hits, %d requests, want 2, 0 and 3", fault.Hits(), other.Hits(), gateway.Requests("orders"))
		}
		after := gateway.InjectStatus("*", http.StatusServiceUnavailable, servicestest.AfterExecution())
		if got, err := call(); err != nil || got.StatusCode != http.StatusServiceUnavailable || server.executed.Load() != 2 {
			t.Errorf("got %v, %v and %d executions, want 503 after the second", got, err, server.executed.Load())
		}
		after.Remove()
		expectHello(t, call)
	})
}

func TestHTTPProxyGRPCOnly(t *testing.T) {
	server := startBackend(t)
	gateway := servicestest.StartHTTPProxy(t, server.URL)
	fault := gateway.InjectStatus("*", http.StatusUnsupportedMediaType, servicestest.GRPCOnly())
	for contentType, want := range map[string]int{
		"application/grpc": 415, "application/grpc+proto": 415, "application/grpc; charset=x": 415, "application/grpc-web": 200, "application/json": 200,
	} {
		if got, err := post(t, speaking(t, "HTTP/2.0"), gateway.URL, contentType); err != nil || got.StatusCode != want {
			t.Errorf("%s: got %v, %v, want %d", contentType, got, err, want)
		}
	}
	if got := fault.Hits(); got != 3 {
		t.Errorf("%d hits, want 3", got)
	}
}

func TestHTTPProxyRate(t *testing.T) {
	gateway := servicestest.StartHTTPProxy(t, startBackend(t).URL)
	client := speaking(t, "HTTP/1.1")
	gateway.InjectStatus("*", http.StatusBadGateway, servicestest.Rate(0.3))
	var got []string
	for range 10 {
		answer, err := post(t, client, gateway.URL, grpcType)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, strconv.Itoa(answer.StatusCode))
	}
	if said, want := strings.Join(got, " "), "200 200 200 502 200 200 502 200 200 502"; said != want {
		t.Errorf("got %s, want %s", said, want)
	}
}

func TestHTTPProxyRespond(t *testing.T) {
	eachProtocol(t, func(t *testing.T, server *backend, gateway *servicestest.HTTPProxy, call func() (*answered, error)) {
		gateway.Respond("*", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "1")
			http.Error(w, r.URL.Path, http.StatusTooManyRequests)
		}))
		if got, err := call(); err != nil || got.Header.Get("Retry-After") != "1" || got.StatusCode != http.StatusTooManyRequests || got.body != procedure+"\n" {
			t.Errorf("got %v, %v", got, err)
		}
		gateway.Clear()
		expectHello(t, call)
		if got := server.executed.Load(); got != 1 {
			t.Errorf("%d executions, want 1", got)
		}
	})
}

func TestHTTPProxyStripTrailers(t *testing.T) {
	eachProtocol(t, func(t *testing.T, server *backend, gateway *servicestest.HTTPProxy, call func() (*answered, error)) {
		fault := gateway.StripTrailers("*", servicestest.Times(1))
		if got := expectHello(t, call); len(got.Trailer) > 0 {
			t.Errorf("trailers %v came through", got.Trailer)
		}
		if got := expectHello(t, call); got.Trailer.Get("Grpc-Status") != "0" {
			t.Errorf("trailers %v after the fault", got.Trailer)
		}
		if fault.Hits() != 1 || server.executed.Load() != 2 {
			t.Errorf("%d hits, %d executions, want 1 and 2", fault.Hits(), server.executed.Load())
		}
	})
}

func TestHTTPProxyDelay(t *testing.T) {
	eachProtocol(t, func(t *testing.T, server *backend, gateway *servicestest.HTTPProxy, call func() (*answered, error)) {
		const d = 20 * time.Millisecond
		gateway.Delay("*", d, servicestest.Times(1))
		began := time.Now()
		expectHello(t, call)
		if took := time.Since(began); took < d {
			t.Errorf("took %v, want at least %v", took, d)
		}
		long := gateway.Delay("*", time.Hour, servicestest.AfterExecution())
		done := make(chan error, 1)
		go func() {
			_, err := call()
			done <- err
		}()
		awaitThat(t, "the call to be executed", func() bool { return server.executed.Load() == 2 && long.Hits() == 1 })
		select {
		case <-done:
			t.Error("the answer was not delayed")
		default:
		}
		long.Remove()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// isReset reports whether a call ended because its connection was reset. The kernel says so once: if writing is told, reading sees an end.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE)
}

func TestHTTPProxyDrop(t *testing.T) {
	eachProtocol(t, func(t *testing.T, server *backend, gateway *servicestest.HTTPProxy, call func() (*answered, error)) {
		gateway.Drop("*", servicestest.Times(1))
		if got, err := call(); !isReset(err) {
			t.Errorf("got %v, %v, want a reset", got, err)
		}
		if got := server.executed.Load(); got != 0 {
			t.Errorf("%d executions, want none", got)
		}
		gateway.Drop("*", servicestest.Times(1), servicestest.AfterExecution())
		if got, err := call(); !isReset(err) {
			t.Errorf("got %v, %v, want a reset", got, err)
		}
		if got := server.executed.Load(); got != 1 {
			t.Errorf("%d executions, want 1", got)
		}
		expectHello(t, call)
		if got := gateway.Accepted.Load(); got != 3 {
			t.Errorf("%d connections, want a new one after each reset", got)
		}
	})
}

func TestHTTPProxyKillMidResponse(t *testing.T) {
	eachProtocol(t, func(t *testing.T, server *backend, gateway *servicestest.HTTPProxy, call func() (*answered, error)) {
		server.answer = strings.Repeat("x", 100_000)
		for _, row := range []struct{ after, want int }{{0, 0}, {1, 1}, {40_000, 40_000}, {1 << 30, 100_000}} {
			fault := gateway.KillMidResponse("*", row.after, servicestest.Times(1))
			got, err := call()
			if err != nil {
				t.Fatalf("after %d bytes: %v, want a response that begins", row.after, err)
			}
			if got.err == nil || len(got.body) != row.want || len(got.Trailer["Grpc-Status"]) > 0 {
				t.Errorf("after %d bytes: got %d and %v, trailers %v; want %d, an error, and none", row.after, len(got.body), got.err, got.Trailer, row.want)
			}
			if fault.Hits() != 1 {
				t.Errorf("%d hits", fault.Hits())
			}
		}
		server.answer = "hello"
		expectHello(t, call)
		if got := gateway.Accepted.Load(); got != 5 {
			t.Errorf("%d connections, want a new one after each kill", got)
		}
	})
}

func TestHTTPProxyHTTP1Only(t *testing.T) {
	server := startBackend(t)
	gateway := servicestest.StartHTTPProxy(t, server.URL)
	old, fresh, plain := speaking(t, "HTTP/2.0"), speaking(t, "HTTP/2.0"), speaking(t, "HTTP/1.1")
	by := func(client *http.Client) func() (*answered, error) {
		return func() (*answered, error) { return post(t, client, gateway.URL, grpcType) }
	}
	expectHello(t, by(old))
	restore := gateway.HTTP1Only()
	if got, err := by(fresh)(); err == nil {
		t.Errorf("got %v by HTTP/2", got)
	}
	raw := dialLines(t, gateway.Addr)
	if _, err := io.WriteString(raw, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := raw.in.ReadString(' '); got != "HTTP/1.1 " {
		t.Errorf("the answer to a preface begins with %q, %v", got, err)
	}
	expectHello(t, by(plain))
	expectHello(t, by(old)) // its connection stays
	restore()
	expectHello(t, by(fresh))
	if got := gateway.Requests("*"); got != 4 {
		t.Errorf("%d requests were counted, want 4: a preface is none", got)
	}
}

// TestHTTPProxyEndsAsTheServer: an answer ends as the server ends it, late or not: be it cut off, or a status alone, which gRPC sends without a body.
func TestHTTPProxyEndsAsTheServer(t *testing.T) {
	for name, test := range map[string]struct {
		answer func(conn *servicestest.HTTP2Conn, stream uint32)
		expect func(got *answered) bool
	}{
		"cut off": {func(conn *servicestest.HTTP2Conn, stream uint32) {
			conn.Begin(stream)
			conn.Message(stream, []byte("half"))
			conn.Reset(stream, http2.ErrCodeInternal)
		}, func(got *answered) bool { return got.body == "\x00\x00\x00\x00\x04half" && got.err != nil }},
		"a status alone": {func(conn *servicestest.HTTP2Conn, stream uint32) {
			conn.Headers(stream, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "5")
		}, func(got *answered) bool {
			return got.ContentLength == 0 && got.Header.Get("Grpc-Status") == "5" && got.err == nil
		}},
		"trailers of an empty body": {func(conn *servicestest.HTTP2Conn, stream uint32) {
			conn.Headers(stream, false, ":status", "200", "content-type", "application/grpc", "content-length", "0")
			conn.End(stream, connect.CodeNotFound)
		}, func(got *answered) bool {
			return got.body == "" && got.Trailer.Get("Grpc-Status") == "5" && got.err == nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			server := servicestest.StartHTTP2(t, func(conn *servicestest.HTTP2Conn) {
				conn.Greet()
				for request, ok := conn.Next(); ok; request, ok = conn.Next() {
					test.answer(conn, request.Stream)
				}
			})
			gateway := servicestest.StartHTTPProxy(t, server.URL)
			fault := gateway.Delay("*", time.Millisecond, servicestest.AfterExecution(), servicestest.Times(1))
			for _, when := range []string{"late", "in time"} {
				if got, err := grpcPost(t, speaking(t, "HTTP/2.0"), gateway.URL); err != nil || !test.expect(got) {
					t.Errorf("%s: got %+v, %v", when, got, err)
				}
			}
			if fault.Hits() != 1 {
				t.Errorf("%d hits, want 1", fault.Hits())
			}
		})
	}
}

// TestHTTPProxyReservesStrikes: a request has its strike from the beginning, and leaves it to a later one if there is no answer to be struck.
func TestHTTPProxyReservesStrikes(t *testing.T) {
	for name, began := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": false, "HTTP/1.1 late": true, "HTTP/2.0 late": true} { // the first answer
		t.Run(name, func(t *testing.T) {
			proto, _, _ := strings.Cut(name, " ")
			entered, requests := make(chan struct{}), new(atomic.Int64)
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if requests.Add(1) == 1 {
					if began {
						_ = http.NewResponseController(w).Flush()
					}
					close(entered)
					_, _ = io.Copy(io.Discard, r.Body) // or net/http would not look whether the client has gone
					<-r.Context().Done()
				}
				_, _ = io.WriteString(w, "hello")
			}))
			server.Config.Protocols = new(http.Protocols)
			server.Config.Protocols.SetHTTP1(true)
			server.Config.Protocols.SetUnencryptedHTTP2(true)
			server.Start()
			t.Cleanup(server.Close)
			gateway := servicestest.StartHTTPProxy(t, server.URL)
			fault := gateway.InjectStatus("*", http.StatusBadGateway, servicestest.AfterExecution(), servicestest.Times(1))
			client := speaking(t, proto)
			ctx, leave := context.WithCancel(t.Context())
			left := make(chan error, 1)
			request, err := http.NewRequestWithContext(ctx, http.MethodPost, gateway.URL+procedure, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				response, err := client.Do(request)
				if err == nil {
					response.Body.Close()
				}
				left <- err
			}()
			<-entered
			call := func() (*answered, error) { return post(t, client, gateway.URL, grpcType) }
			expectHello(t, call)
			leave()
			if err := <-left; !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want canceled", err)
			}
			awaitThat(t, "the strike to be left to another request", func() bool {
				got, err := call()
				if err != nil {
					t.Fatal(err)
				}
				return got.StatusCode == http.StatusBadGateway
			})
			expectHello(t, call)
			if fault.Hits() != 1 {
				t.Errorf("%d hits, want 1", fault.Hits())
			}
		})
	}
}
