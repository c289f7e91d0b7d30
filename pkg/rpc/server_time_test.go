package rpc_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/0x1d/goplt/pkg/rpc"
)

// The tests of this file run in bubbles of fake time over connections in memory, so they check the times themselves.

// startInBubble runs a server with the default times until the bubble ends.
func startInBubble(t *testing.T, handlers *connect.Server, opts ...rpc.ServerOption) (*rpc.Server, *pipeListener) {
	t.Helper()
	listener := newPipeListener()
	return startServer(t, handlers, rpc.DefaultServerConfig(), append(opts, rpc.WithListener(listener))...), listener
}

// goAwayGrace is how long net/http lets a client close an HTTP/2 connection by itself after GOAWAY.
const goAwayGrace = time.Second

func expectElapsed(t *testing.T, what string, since time.Time, want time.Duration) {
	t.Helper()
	if got := time.Since(since); got != want {
		t.Errorf("%s after %s, want %s", what, got, want)
	}
}

// TestServerSlowConnections: a connection that sends a header slowly, or nothing, is closed.
func TestServerSlowConnections(t *testing.T) {
	t.Parallel()
	const settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	for _, row := range []struct {
		name, send string
		want       time.Duration
	}{
		{"nothing", "", 5 * time.Second},
		{"part of a header", "POST /test.v1.Words/Echo HTTP/1.1\r\nHost: x\r\nX-Slow: ", 5 * time.Second},
		{"part of the preface of HTTP/2", "PRI * HTTP/2.0\r\n", 5 * time.Second},
		{"no SETTINGS of HTTP/2", http2.ClientPreface, 2 * time.Second},
		{"idle after a call", plainRequest(specEcho.Procedure), 20 * time.Second},
		{"idle after the SETTINGS of HTTP/2", http2.ClientPreface + settings, 20*time.Second + goAwayGrace},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				_, handlers := newWords()
				listener := newPipeListener()
				config := rpc.DefaultServerConfig()
				config.IdleTimeout = 20 * time.Second
				startServer(t, handlers, config, rpc.WithListener(listener))
				connection, err := listener.dial()
				if err != nil {
					t.Fatal(err)
				}
				defer connection.Close()
				began := time.Now()
				go func() { _, _ = io.WriteString(connection, row.send) }()
				_, _ = io.Copy(io.Discard, connection) // until the server closes
				expectElapsed(t, "closed", began, row.want)
			})
		})
	}
}

// TestServerSlowBody: a request of one message whose body does not arrive ends with RequestTimeout.
func TestServerSlowBody(t *testing.T) {
	t.Parallel()
	for _, version := range []int{1, 2} {
		for _, row := range []struct {
			name, path, contentType string
			status                  int
			answer                  string // part of the body
		}{
			{"unary", specEcho.Procedure, "application/json", http.StatusGatewayTimeout, `{"code":"deadline_exceeded","message":"`},
			{"server stream", specSplit.Procedure, "application/connect+json", http.StatusOK, `"deadline_exceeded"`},
			{"unknown path", "/nothing", "text/plain", http.StatusNotFound, `"unimplemented"`},
		} {
			if version == 1 && row.status == http.StatusNotFound {
				// Answered without the body, after which the server closes the connection. A pipe cannot be closed by halves as a socket
				// is, so here the client may lose the answer; TestUnreadBodyIsNoRequest shows it over a socket.
				continue
			}
			t.Run(fmt.Sprintf("%s over HTTP/%d", row.name, version), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					_, handlers := newWords()
					_, listener := startInBubble(t, handlers)
					began := time.Now()
					body, drip := io.Pipe()
					var dripping sync.WaitGroup
					dripping.Go(func() { // A byte a second: no time-out between bytes would ever end this.
						for _, err := io.WriteString(drip, "\x00\x00\x00\xff\xff"); err == nil; _, err = io.WriteString(drip, "x") {
							<-time.NewTimer(time.Second).C
						}
					})
					status, answer, _ := do(t, listener.client(t, version), "http://server"+row.path, body, "Content-Type", row.contentType)
					if status != row.status || !strings.Contains(answer, row.answer) {
						t.Errorf("got %d %s, want %d and %s", status, answer, row.status, row.answer)
					}
					if want := "the request did not arrive within 30s"; version == 1 && row.name == "unary" && !strings.Contains(answer, want) {
						t.Errorf("got %s, want an explanation", answer)
					}
					// Over HTTP/1.1, Go's client waits 50ms for its request to be written before it delivers an early answer's end.
					if elapsed := time.Since(began); elapsed > 30*time.Second+50*time.Millisecond {
						t.Errorf("answered after %s, want at most 30s", elapsed)
					}
					_ = body.Close()
					dripping.Wait()
				})
			})
		}
	}
}

// TestServerSlowReader: an answer that is not read is given up a second after RequestTimeout.
func TestServerSlowReader(t *testing.T) {
	t.Parallel()
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprintf("HTTP/%d", version), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				done := make(chan error, 1)
				_, handlers := newWords(func(next connect.ServerFunc) connect.ServerFunc {
					return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
						err := next(ctx, spec, stream)
						done <- err
						return err
					}
				})
				listener := newPipeListener()
				config := rpc.DefaultServerConfig()
				config.MaxSendBytes = 32 << 20 // more than the client's window over HTTP/2
				startServer(t, handlers, config, rpc.WithListener(listener))
				began := time.Now()
				request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://server"+specEcho.Procedure, strings.NewReader(`"grow 16777216"`))
				if err != nil {
					t.Fatal(err)
				}
				request.Header.Set("Content-Type", "application/json")
				response, err := listener.client(t, version).Do(request)
				if err != nil {
					t.Fatal(err)
				}
				defer response.Body.Close()
				if err := <-done; err == nil {
					t.Error("the answer was written to a client that does not read")
				}
				expectElapsed(t, "given up", began, 31*time.Second)
				_ = response.Body.Close()
			})
		})
	}
}

// TestServerRequestTimeout: the handler's context ends with RequestTimeout, or with the caller's deadline if that is earlier.
func TestServerRequestTimeout(t *testing.T) {
	t.Parallel()
	for name, opts := range dialects() {
		version := versionOf(name)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				words, handlers := newWords()
				_, listener := startInBubble(t, handlers)
				client := connect.NewClient(connecthttp.NewTransport(listener.client(t, version), "http://server", opts...))

				began := time.Now()
				_, err := callText(t.Context(), client, specHang, "x")
				if want := "deadline_exceeded: the server's request_timeout of 30s has passed"; err == nil || err.Error() != want {
					t.Errorf("got %v\nwant %s", err, want)
				}
				expectElapsed(t, "ended", began, 30*time.Second)

				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				began = time.Now()
				if _, err := callText(ctx, client, specHang, "x"); connect.CodeOf(err) != connect.CodeDeadlineExceeded {
					t.Errorf("got %v, want deadline_exceeded", err)
				}
				<-words.left // of the first call
				if err := <-words.left; err == nil {
					t.Error("the handler was not told")
				}
				expectElapsed(t, "ended by the caller's deadline", began, 2*time.Second)

				if answer, err := callText(t.Context(), client, specEcho, "still here"); err != nil || answer != "still here" {
					t.Errorf("next call: got %q, %v", answer, err)
				}
			})
		})
	}
}

// dialects are the ways to call, by name; see versionOf.
func dialects() map[string][]connecthttp.Option {
	return map[string][]connecthttp.Option{
		"gRPC over HTTP/2":         {connecthttp.WithGRPC()},
		"Connect JSON over HTTP/1": {connecthttp.WithProtoJSON()},
		"Connect over HTTP/2":      nil,
	}
}

func versionOf(dialect string) int {
	if strings.HasSuffix(dialect, "1") {
		return 1
	}
	return 2
}

// TestServerWithoutRequestTimeout: 0 means no bound.
func TestServerWithoutRequestTimeout(t *testing.T) {
	t.Parallel()
	for name, opts := range dialects() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				words, handlers := newWords()
				listener := newPipeListener()
				config := rpc.DefaultServerConfig()
				config.RequestTimeout = 0
				startServer(t, handlers, config, rpc.WithListener(listener))
				client := connect.NewClient(connecthttp.NewTransport(listener.client(t, versionOf(name)), "http://server", opts...))
				time.AfterFunc(time.Hour, func() { close(words.release) })
				if answer, err := callText(t.Context(), client, specHang, "x"); err != nil || answer != "x" {
					t.Errorf("after an hour: got %q, %v", answer, err)
				}
			})
		})
	}
}

// TestServerLongCallsOnOneConnection: a deadline of one call over HTTP/1.1 is not felt by the next one on its connection.
func TestServerLongCallsOnOneConnection(t *testing.T) {
	t.Parallel()
	t.Run("20s each", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			words, handlers := newWords()
			_, listener := startInBubble(t, handlers)
			connection, err := listener.dial()
			if err != nil {
				t.Fatal(err)
			}
			defer connection.Close()
			answers := bufio.NewReader(connection)
			for range 3 {
				time.AfterFunc(20*time.Second, func() { words.release <- struct{}{} })
				_, err := io.WriteString(connection, plainRequest(specHang.Procedure))
				if err != nil {
					t.Fatal(err)
				}
				response, err := http.ReadResponse(answers, nil)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(response.Body)
				_ = response.Body.Close()
				if err != nil || response.StatusCode != http.StatusOK || string(body) != `"x"` {
					t.Errorf("got %d %s, %v", response.StatusCode, body, err)
				}
				if err := <-words.left; err != nil {
					t.Errorf("the handler's context: %v", err)
				}
			}
		})
	})
}

// TestServerRequestTimeoutIsNotTheCallers: an answer does not blame request_timeout for the deadline that the caller set.
func TestServerRequestTimeoutIsNotTheCallers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, handlers := newWords()
		_, listener := startInBubble(t, handlers)
		began := time.Now()
		status, body, _ := do(t, listener.client(t, 1), "http://server"+specHang.Procedure, strings.NewReader(`"x"`),
			"Content-Type", "application/json", "Connect-Timeout-Ms", "1500")
		if want := `{"code":"deadline_exceeded"}`; status != http.StatusGatewayTimeout || body != want {
			t.Errorf("got %d %s, want 504 %s", status, body, want)
		}
		expectElapsed(t, "ended", began, 1500*time.Millisecond)
	})
}

// TestServerEarlyConnection: RequestTimeout does not begin when a connection is opened, ahead of its first request.
func TestServerEarlyConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, handlers := newWords()
		listener := newPipeListener()
		authority, config := securedConfig(t)
		config.RequestTimeout = 2 * time.Second
		startServer(t, handlers, config, rpc.WithListener(listener))
		pipe, err := listener.dial()
		if err != nil {
			t.Fatal(err)
		}
		trust := trusting(t, authority)
		trust.ServerName = "127.0.0.1"
		connection := tls.Client(pipe, trust)
		defer connection.Close()
		if err := connection.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-time.NewTimer(4 * time.Second).C // less than ReadHeaderTimeout
		header, body, _ := strings.Cut(plainRequest(specEcho.Procedure), "\r\n\r\n")
		for _, part := range []string{header + "\r\n\r\n", body} {
			if _, err := io.WriteString(connection, part); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // The body is read from the connection, and not with the header.
		}
		response, err := http.ReadResponse(bufio.NewReader(connection), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("got %d, want 200", response.StatusCode)
		}
	})
}

// TestServerStreamsAreNotTimed: an hour of silence ends no stream.
func TestServerStreamsAreNotTimed(t *testing.T) {
	t.Parallel()
	for name, opts := range dialects() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				words, handlers := newWords()
				_, listener := startInBubble(t, handlers)
				client := connect.NewClient(connecthttp.NewTransport(listener.client(t, versionOf(name)), "http://server", opts...))

				stream, err := client.CallServerStream(t.Context(), specStay, wrapperspb.String("still"))
				if err != nil {
					t.Fatal(err)
				}
				time.AfterFunc(time.Hour, func() { close(words.release) })
				if got := receiveAll(t, stream); len(got) != 2 {
					t.Errorf("server stream: got %q, want two messages an hour apart", got)
				}

				stream, err = client.CallClientStream(t.Context(), specJoin)
				if err != nil {
					t.Fatal(err)
				}
				for _, word := range []string{"a", "b"} {
					if err := stream.Send(wrapperspb.String(word)); err != nil {
						t.Fatalf("client stream: %v", err)
					}
					<-time.NewTimer(time.Hour).C
				}
				if err := stream.CloseSend(); err != nil {
					t.Fatal(err)
				}
				if got := receiveAll(t, stream); len(got) != 1 || got[0] != "a b" {
					t.Errorf("client stream: got %q", got)
				}
			})
		})
	}
}

// TestServerVanishedClient: the stream of a client that answers no ping ends, 30s and 15s after its last sign.
func TestServerVanishedClient(t *testing.T) {
	t.Parallel()
	t.Run("HTTP/2", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			done := make(chan error, 1)
			_, handlers := newWords(func(next connect.ServerFunc) connect.ServerFunc {
				return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
					err := next(ctx, spec, stream)
					done <- err
					return err
				}
			})
			_, listener := startInBubble(t, handlers)
			connection, err := listener.dial()
			if err != nil {
				t.Fatal(err)
			}
			defer connection.Close()
			go func() { _, _ = io.Copy(io.Discard, connection) }() // reads, but answers nothing
			began := time.Now()
			var block strings.Builder
			encoder := hpack.NewEncoder(&block)
			for _, field := range [][2]string{
				{":method", "POST"}, {":scheme", "http"}, {":authority", "x"}, {":path", specStay.Procedure}, {"content-type", "application/grpc"},
			} {
				_ = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
			}
			_, err = io.WriteString(connection, http2.ClientPreface)
			framer := http2.NewFramer(connection, connection)
			err = errors.Join(err, framer.WriteSettings(), framer.WriteHeaders(http2.HeadersFrameParam{
				StreamID: 1, BlockFragment: []byte(block.String()), EndHeaders: true,
			}), framer.WriteData(1, true, []byte{0, 0, 0, 0, 0}))
			if err != nil {
				t.Fatal(err)
			}
			if err := <-done; connect.CodeOf(err) != connect.CodeCanceled && !errors.Is(err, context.Canceled) {
				t.Errorf("the handler ended with %v, want canceled", err)
			}
			expectElapsed(t, "ended", began, 45*time.Second)
		})
	})
}
