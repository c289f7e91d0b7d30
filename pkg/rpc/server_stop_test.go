package rpc_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/rpc"
)

// TestServerStopUnderLoad: callers that follow the registry see no failure when a server stops, in any protocol.
func TestServerStopUnderLoad(t *testing.T) {
	t.Parallel()
	for name, opts := range dialects() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var target atomic.Pointer[string] // where the registry sends callers
			reg := &recordingRegistry{onDeregister: func(context.Context, registry.Instance) error { return nil }}
			_, handlers := newWords()
			config := testConfig()
			config.DeregisterDelay = 500 * time.Millisecond
			leaving := startServer(t, handlers, config, rpc.WithRegistration(reg, "words"))
			staying := startServer(t, handlers, config)
			leavingAddr, stayingAddr := leaving.Addr(), staying.Addr()
			target.Store(&leavingAddr)
			calls := make(map[string]*atomic.Int64)
			clients := make(map[string]*connect.Client)
			for _, addr := range []string{leavingAddr, stayingAddr} {
				calls[addr] = new(atomic.Int64)
				clients[addr] = connect.NewClient(connecthttp.NewTransport(httpClient(t, versionOf(name), nil), "http://"+addr, opts...))
			}
			reg.onDeregister = func(context.Context, registry.Instance) error { target.Store(&stayingAddr); return nil }

			ctx, cancel := context.WithCancel(t.Context())
			var callers sync.WaitGroup
			reached := make(chan struct{}, 1) // a call for every hundred that succeeded
			for range 8 {
				callers.Go(func() {
					for ctx.Err() == nil {
						chosen := time.Now()
						addr := *target.Load()
						answer, err := callText(t.Context(), clients[addr], specEcho, "x")
						if err != nil && time.Since(chosen) >= config.DeregisterDelay {
							continue // a busy machine let it call later than the server promises to be there for those who chose it
						}
						if err != nil || answer != "x" {
							t.Errorf("call to %s: got %q, %v", addr, answer, err)
							cancel()
							return
						}
						if calls[addr].Add(1)%100 == 0 {
							select {
							case reached <- struct{}{}:
							default:
							}
						}
					}
				})
			}
			hundred := func() {
				select {
				case <-reached:
				case <-ctx.Done(): // a call failed
				}
			}
			hundred()
			if err := leaving.Stop(t.Context()); err != nil {
				t.Errorf("stop: %v", err)
			}
			hundred()
			cancel()
			callers.Wait()
			if calls[leavingAddr].Load() == 0 || calls[stayingAddr].Load() == 0 {
				t.Errorf("calls: %d to the server that left, %d to the other; want some to both", calls[leavingAddr].Load(), calls[stayingAddr].Load())
			}
		})
	}
}

// TestServerStopOrder: not serving, deregistered, still serving for DeregisterDelay, and only then closed.
func TestServerStopOrder(t *testing.T) {
	t.Parallel()
	t.Run("order", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			_, handlers := newWords()
			listener := newPipeListener()
			config := rpc.DefaultServerConfig()
			config.Advertise, config.DeregisterDelay = "words.example.org:80", 3*time.Second
			var server *rpc.Server
			var deregistered time.Time
			reg := &recordingRegistry{onDeregister: func(context.Context, registry.Instance) error {
				deregistered = time.Now()
				if server.Health().Status("") != rpc.HealthNotServing {
					t.Error("deregistered while still reporting to serve")
				}
				if listener.refuses() {
					t.Error("deregistered after the listener was closed")
				}
				return nil
			}}
			server = startServer(t, handlers, config, rpc.WithListener(listener), rpc.WithRegistration(reg, "words"))

			stopped := make(chan error, 1)
			go func() { stopped <- server.Stop(t.Context()) }()
			<-time.NewTimer(3*time.Second - 1).C
			client := connect.NewClient(connecthttp.NewTransport(listener.client(t, 1), "http://server"))
			if answer, err := callText(t.Context(), client, specEcho, "late"); err != nil || answer != "late" {
				t.Errorf("call on a new connection during DeregisterDelay: got %q, %v", answer, err)
			}
			<-listener.closed
			expectElapsed(t, "listener closed after deregistration", deregistered, 3*time.Second)
			if err := <-stopped; err != nil {
				t.Errorf("stop: %v", err)
			}
		})
	})
	t.Run("not registered", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			_, handlers := newWords()
			server, listener := startInBubble(t, handlers)
			began := time.Now()
			if err := server.Stop(t.Context()); err != nil {
				t.Errorf("stop: %v", err)
			}
			expectElapsed(t, "stopped, as there is no news to spread", began, 0)
			if !listener.refuses() {
				t.Error("the listener is open after Stop")
			}
		})
	})
}

// TestServerDrainsHTTP1: during DeregisterDelay an HTTP/1.1 client is told, by an answer, to open another connection, so that none loses a
// request to a connection that is closed under it.
func TestServerDrainsHTTP1(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, handlers := newWords()
		listener := newPipeListener()
		config := rpc.DefaultServerConfig()
		config.Advertise = "words.example.org:80"
		server := startServer(t, handlers, config, rpc.WithListener(listener), rpc.WithRegistration(&recordingRegistry{}, "words"))
		connection, err := listener.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		answers := bufio.NewReader(connection)
		exchange := func() (closes bool) {
			t.Helper()
			if _, err := io.WriteString(connection, plainRequest(specEcho.Procedure)); err != nil {
				t.Fatal(err)
			}
			response, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != http.StatusOK {
				t.Errorf("got %d, %v, want 200", response.StatusCode, err)
			}
			return response.Close
		}
		if exchange() {
			t.Error("the connection closes before Stop")
		}
		stopped := make(chan error, 1)
		go func() { stopped <- server.Stop(t.Context()) }()
		synctest.Wait()
		if listener.refuses() {
			t.Error("the listener closed before DeregisterDelay had passed, so this proves nothing")
		}
		if !exchange() {
			t.Error("the connection stays during DeregisterDelay")
		}
		if err := <-stopped; err != nil {
			t.Errorf("stop: %v", err)
		}
	})
}

// cutOff is the error of a Stop that cut off one call after so many seconds.
func cutOff(seconds int) string {
	return fmt.Sprintf("rpc: server on pipe: calls in flight cut off after a drain of %ds: 1", seconds)
}

// TestServerStopWaitsForCalls: a call in flight finishes, unless it takes longer than DrainTimeout or Stop's context.
func TestServerStopWaitsForCalls(t *testing.T) {
	t.Parallel()
	for name, opts := range dialects() {
		for _, row := range []struct {
			what, text     string
			limit, release time.Duration
			want           time.Duration
			stopErr        string
		}{
			{"in time", "x", time.Hour, 9 * time.Second, 9 * time.Second, "<nil>"},
			{"too late", "x", time.Hour, time.Hour, 10 * time.Second, cutOff(10)},
			{"too late for the caller of Stop", "x", 2 * time.Second, time.Hour, 2 * time.Second, cutOff(2)},
			{"deaf to its context", "deaf", time.Hour, time.Hour, 11 * time.Second, cutOff(10)},
		} {
			t.Run(name+" "+row.what, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					words, handlers := newWords()
					server, listener := startInBubble(t, handlers)
					client := connect.NewClient(connecthttp.NewTransport(listener.client(t, versionOf(name)), "http://server", opts...))
					called := make(chan error, 1)
					go func() {
						_, err := callText(t.Context(), client, specHang, row.text)
						called <- err
					}()
					<-words.entered
					releasing := time.AfterFunc(row.release, func() { close(words.release) })
					ctx, cancel := context.WithTimeout(t.Context(), row.limit)
					defer cancel()
					began := time.Now()
					err := server.Stop(ctx)
					// net/http polls, at most every half second, and lets clients close their end for a second.
					if got := time.Since(began); got < row.want || got > row.want+1600*time.Millisecond {
						t.Errorf("stopped after %s, want %s", got, row.want)
					}
					if fmt.Sprint(err) != row.stopErr {
						t.Errorf("stop: got %v\nwant %s", err, row.stopErr)
					}
					if row.text == "deaf" && releasing.Stop() {
						close(words.release)
					}
					if callErr := <-called; (callErr == nil) != (err == nil) {
						t.Errorf("the call: %v, and Stop: %v", callErr, err)
					}
					if ended := <-words.left; row.text == "x" && (ended == nil) != (err == nil) {
						t.Errorf("the handler's context: %v, and Stop: %v", ended, err)
					}
					if releasing.Stop() {
						close(words.release)
					}
				})
			})
		}
	}
}

// TestServerStopEndsStreams: a stream is a call in flight, cut off at DrainTimeout.
func TestServerStopEndsStreams(t *testing.T) {
	t.Parallel()
	for name, opts := range dialects() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				words, handlers := newWords()
				server, listener := startInBubble(t, handlers)
				client := connect.NewClient(connecthttp.NewTransport(listener.client(t, versionOf(name)), "http://server", opts...))
				stream, err := client.CallServerStream(t.Context(), specStay, wrapperspb.String("x"))
				if err != nil {
					t.Fatal(err)
				}
				defer stream.Close()
				<-words.entered
				if err := server.Stop(t.Context()); err == nil {
					t.Error("stop: got nil, want an error that tells of the stream")
				}
				var last error
				for last == nil {
					last = stream.Receive(new(wrapperspb.StringValue))
				}
				if errors.Is(last, io.EOF) {
					t.Error("a stream that was cut off looks complete")
				}
			})
		})
	}
}

// TestServerStopWithIdleConnections: a connection that carries no call is no reason for an error.
func TestServerStopWithIdleConnections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, handlers := newWords()
		listener := newPipeListener()
		config := rpc.DefaultServerConfig()
		config.DrainTimeout = 2 * time.Second // less than what net/http gives a new connection to send its first request
		server := startServer(t, handlers, config, rpc.WithListener(listener))
		connection, err := listener.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		began := time.Now()
		if err := server.Stop(t.Context()); err != nil {
			t.Errorf("stop: %v", err)
		}
		expectElapsed(t, "stopped", began, 2*time.Second)
	})
}

func TestServerStopTwice(t *testing.T) {
	t.Parallel()
	t.Run("concurrently", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			words, handlers := newWords()
			server, listener := startInBubble(t, handlers)
			client := connect.NewClient(connecthttp.NewTransport(listener.client(t, 1), "http://server"))
			called := make(chan error, 1)
			go func() {
				_, err := callText(t.Context(), client, specHang, "x")
				called <- err
			}()
			<-words.entered
			want := cutOff(10)
			var stopping sync.WaitGroup
			for range 3 {
				stopping.Go(func() {
					if err := server.Stop(t.Context()); err == nil || err.Error() != want {
						t.Errorf("got %v, want %s", err, want)
					}
				})
			}
			<-listener.closed
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := server.Stop(ctx); !errors.Is(err, context.Canceled) || err.Error() != "rpc: waiting for the server on pipe to stop: context canceled" {
				t.Errorf("impatient: got %v", err)
			}
			stopping.Wait()
			if err := server.Stop(t.Context()); err == nil || err.Error() != want {
				t.Errorf("later: got %v, want %s", err, want)
			}
			<-called
		})
	})
	t.Run("before start", func(t *testing.T) {
		t.Parallel()
		_, handlers := newWords()
		listener := newPipeListener()
		server, err := rpc.NewServer(handlers, rpc.WithListener(listener))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := server.Stop(t.Context()); err != nil {
				t.Errorf("stop: %v", err)
			}
		}
		if err := server.Start(t.Context()); err == nil || err.Error() != "rpc: start server: already stopped; make a new one" {
			t.Errorf("start: %v", err)
		}
		if !listener.refuses() {
			t.Error("the listener is open after Stop")
		}
	})
}

// TestServerDeregistrationFails: a registry that fails, or does not answer, is told of and keeps no server from stopping.
func TestServerDeregistrationFails(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		deregister func(context.Context, registry.Instance) error
		want       time.Duration
		text       string
	}{
		"refused": {func(context.Context, registry.Instance) error { return errors.New("refused") }, time.Second, "refused"},
		"hung": {
			func(ctx context.Context, _ registry.Instance) error { <-ctx.Done(); return ctx.Err() }, 6 * time.Second, "context deadline exceeded",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				_, handlers := newWords()
				listener := newPipeListener()
				config := rpc.DefaultServerConfig()
				config.Advertise = "words.example.org:80"
				reg := &recordingRegistry{onDeregister: row.deregister}
				server := startServer(t, handlers, config, rpc.WithListener(listener), rpc.WithRegistration(reg, "words"))
				began := time.Now()
				err := server.Stop(t.Context())
				expectElapsed(t, "stopped", began, row.want)
				want := "rpc: deregistering " + reg.registered[0].ID + ": " + row.text
				if err == nil || err.Error() != want || !listener.refuses() {
					t.Errorf("got %v, listener closed: %t; want %s, true", err, listener.refuses(), want)
				}
			})
		})
	}
}

func TestServerRun(t *testing.T) {
	t.Parallel()
	t.Run("until the context is done", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			_, handlers := newWords()
			listener := newPipeListener()
			server, err := rpc.NewServer(handlers, rpc.WithListener(listener))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ran := make(chan error, 1)
			go func() { ran <- server.Run(ctx) }()
			client := connect.NewClient(connecthttp.NewTransport(listener.client(t, 1), "http://server"))
			if answer, err := callText(t.Context(), client, specEcho, "x"); err != nil || answer != "x" {
				t.Errorf("got %q, %v", answer, err)
			}
			cancel()
			if err := <-ran; err != nil || !listener.refuses() {
				t.Errorf("got %v, listener closed: %t; want nil, true", err, listener.refuses())
			}
		})
	})
	t.Run("until the listener fails", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			_, handlers := newWords()
			listener := newPipeListener()
			config := rpc.DefaultServerConfig()
			config.Advertise = "words.example.org:80"
			reg := &recordingRegistry{}
			server, err := rpc.NewServer(handlers, rpc.WithServerConfig(config), rpc.WithListener(listener), rpc.WithRegistration(reg, "words"))
			if err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(time.Second, func() { _ = listener.Close() })
			began := time.Now()
			err = server.Run(t.Context())
			expectElapsed(t, "ended, without a delay for callers that it cannot serve", began, time.Second)
			if want := "rpc: server on pipe: use of closed network connection"; err == nil || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
			if len(reg.deregistered) != 1 {
				t.Errorf("deregistered %v, want the one instance", reg.deregistered)
			}
		})
	})
	t.Run("start fails", func(t *testing.T) {
		t.Parallel()
		_, handlers := newWords()
		config := testConfig()
		config.Listen = startServer(t, handlers, testConfig()).Addr()
		server, err := rpc.NewServer(handlers, rpc.WithServerConfig(config))
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Run(t.Context()); err == nil {
			t.Error("got nil, want an error")
		}
	})
}
