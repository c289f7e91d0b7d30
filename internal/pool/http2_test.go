package pool_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/0x1d/goplt/internal/pool"
)

var oneStream = http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1}

// TestColdCallersShareOneDial: whoever comes while the first connection is opened waits for it.
func TestColdCallersShareOneDial(t *testing.T) {
	t.Parallel()
	const callers = 1000
	server := startServer(t, cleartextHTTP2, callers, echoRemote)
	config := config(server.addr, pool.HTTP2)
	config.MaxConnections = 4
	p := newPool(t, config)
	begin := make(chan struct{})
	var running sync.WaitGroup
	for range callers {
		running.Go(func() {
			<-begin
			conn, err := p.Acquire(t.Context())
			if err != nil {
				t.Errorf("acquire: %v", err)
				return
			}
			if _, err := call(t.Context(), conn); err != nil {
				t.Errorf("call: %v", err)
			}
		})
	}
	close(begin)
	running.Wait()
	if accepted := server.accepted.Load(); accepted != 1 {
		t.Errorf("%d connections, want 1", accepted)
	}
}

// TestColdCallersDialAtMostTheLimit: a thousand callers at once, connections that carry one call at a time, and a peer that counts.
func TestColdCallersDialAtMostTheLimit(t *testing.T) {
	t.Parallel()
	const callers = 1000
	for _, row := range kinds {
		for _, limit := range []int{1, 8} {
			t.Run(fmt.Sprintf("%s %d", row.name, limit), func(t *testing.T) {
				t.Parallel()
				server := startServer(t, row.protocols, 1, echoRemote)
				config := config(server.addr, row.kind)
				config.MaxConnections = limit
				p := newPool(t, config)
				begin := make(chan struct{})
				var running sync.WaitGroup
				for range callers {
					running.Go(func() {
						<-begin
						conn, err := p.Acquire(t.Context())
						if err == nil {
							_, err = call(t.Context(), conn)
						}
						if err != nil {
							t.Errorf("call: %v", err)
						}
					})
				}
				close(begin)
				running.Wait()
				stats := p.Stats()
				allowed := uint64(limit)
				if row.kind == pool.HTTP1 {
					// net/http does not use a connection again whose write it has not seen to be done 50 ms after the answer, as on a busy machine.
					allowed += stats.Ended.Lost
				}
				eventually(t, "all connections to be accepted", func() bool { return uint64(server.accepted.Load()) >= stats.Dials })
				if accepted := server.accepted.Load(); stats.Dials < 1 || stats.Dials > allowed || stats.Dials != uint64(accepted) || stats.DialFailures > 0 {
					t.Errorf("%d connections, want at most %d; %+v", accepted, limit, stats)
				}
			})
		}
	}
}

// TestOneStreamPerConnection is row 24 of the fault matrix: a hundred callers, four connections with one stream each, three of which are
// taken by calls that do not end. The rest are served one after the other on the fourth.
func TestOneStreamPerConnection(t *testing.T) {
	t.Parallel()
	const callers, connections = 100, 4
	stuck, release := make(chan struct{}, connections), make(chan struct{})
	var arrived, serving, most atomic.Int64
	server := startServer(t, cleartextHTTP2, 1, func(w http.ResponseWriter, r *http.Request) {
		now := serving.Add(1)
		defer serving.Add(-1)
		for before := most.Load(); now > before && !most.CompareAndSwap(before, now); before = most.Load() {
		}
		if arrived.Add(1) < connections {
			stuck <- struct{}{}
			<-release
		}
		echoRemote(w, r)
	})
	config := config(server.addr, pool.HTTP2)
	config.MaxConnections = connections
	p := newPool(t, config)
	var running sync.WaitGroup
	served := make(chan string, callers)
	for range callers {
		running.Go(func() {
			conn, err := p.Acquire(t.Context())
			if err != nil {
				t.Errorf("acquire: %v", err)
				return
			}
			remote, err := call(t.Context(), conn)
			if err != nil {
				t.Errorf("call: %v", err)
			}
			served <- remote
		})
	}
	for range connections - 1 {
		<-stuck
	}
	remotes := make(map[string]int)
	for range callers - (connections - 1) {
		remotes[<-served]++
	}
	if len(remotes) != 1 {
		t.Errorf("served beside the stuck calls by connections %v, want by one", remotes)
	}
	close(release)
	running.Wait()
	if accepted := server.accepted.Load(); accepted != connections {
		t.Errorf("%d connections, want %d", accepted, connections)
	}
	if most.Load() != connections {
		t.Errorf("at most %d calls at a time, want %d", most.Load(), connections)
	}
}

// TestSettingsHoldFromTheFirstCall: the peer's limit of streams is known before a slot is handed out, however its SETTINGS come in.
func TestSettingsHoldFromTheFirstCall(t *testing.T) {
	t.Parallel()
	peer := startPeer(t, func(_ int64, conn net.Conn) error {
		s, err := greet(slowly{conn}, oneStream)
		if err != nil {
			return err
		}
		return s.answerAll()
	})
	config := config(peer.addr, pool.HTTP2)
	config.MaxConnections = 2
	p := newPool(t, config)
	first, second := acquire(t, p), acquire(t, p)
	if first == second {
		t.Error("two slots on a connection of one stream")
	}
	first.Release()
	second.Release()
}

// slowly writes byte by byte.
type slowly struct{ net.Conn }

func (c slowly) Write(data []byte) (int, error) {
	for at := range data {
		if _, err := c.Conn.Write(data[at : at+1]); err != nil {
			return at, err
		}
	}
	return len(data), nil
}

// TestQueue: slots go to those who wait in the order of their arrival, and nobody overtakes them.
func TestQueue(t *testing.T) {
	t.Parallel()
	for _, kind := range []pool.Kind{pool.HTTP2, pool.HTTP1} {
		server := startServer(t, []func(*http.Protocols){cleartextHTTP2, http1}[kind], 1, echoRemote)
		p := newPool(t, config(server.addr, kind))
		held := acquire(t, p)
		const callers = 5
		order := make(chan int, callers)
		var running sync.WaitGroup
		for number := range callers {
			running.Go(func() {
				conn, err := p.Acquire(t.Context())
				if err != nil {
					t.Errorf("acquire: %v", err)
					return
				}
				order <- number
				if number%2 == 0 {
					conn.Release()
				} else if _, err := call(t.Context(), conn); err != nil {
					t.Errorf("call: %v", err)
				}
			})
			eventually(t, "the caller waits", func() bool { return p.Queued() == number+1 })
		}
		held.Release()
		running.Wait()
		for want := range callers {
			if got := <-order; got != want {
				t.Errorf("kind %d: caller %d was served in place %d", kind, got, want)
			}
		}
	}
}

// TestCallerStopsWaiting: it gets its context's error at once, and what it waited for goes to the next.
func TestCallerStopsWaiting(t *testing.T) {
	t.Parallel()
	for _, kind := range []pool.Kind{pool.HTTP2, pool.HTTP1} {
		server := startServer(t, []func(*http.Protocols){cleartextHTTP2, http1}[kind], 1, echoRemote)
		p := newPool(t, config(server.addr, kind))
		held := acquire(t, p)
		ctx, cancel := context.WithCancel(t.Context())
		gone, stayed := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := p.Acquire(ctx)
			gone <- err
		}()
		eventually(t, "the first waits", func() bool { return p.Queued() == 1 })
		go func() {
			conn, err := p.Acquire(t.Context())
			if err == nil {
				conn.Release()
			}
			stayed <- err
		}()
		eventually(t, "the second waits", func() bool { return p.Queued() == 2 })
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) || err.Error() != "wait for a connection to "+server.addr+": context canceled" {
			t.Errorf("got %v, want the context's error", err)
		}
		expired, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
		if _, err := p.Acquire(expired); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want deadline exceeded", err)
		}
		cancel()
		held.Release()
		if err := <-stayed; err != nil {
			t.Errorf("got %v, want the slot", err)
		}
	}
}

// TestCallersComeAndGo: whatever callers do at the same time, no slot is lost and no connection too many is opened.
func TestCallersComeAndGo(t *testing.T) {
	t.Parallel()
	for _, kind := range []pool.Kind{pool.HTTP2, pool.HTTP1} {
		server := startServer(t, []func(*http.Protocols){cleartextHTTP2, http1}[kind], 1, echoRemote)
		config := config(server.addr, kind)
		config.MaxConnections = 3
		p := newPool(t, config)
		var running sync.WaitGroup
		for caller := range 16 {
			running.Go(func() {
				for round := range 30 {
					ctx, cancel := context.WithCancel(t.Context())
					if (caller+round)%4 == 0 {
						go cancel()
					}
					conn, err := p.Acquire(ctx)
					switch {
					case err != nil && ctx.Err() == nil:
						t.Errorf("acquire: %v", err)
					case err != nil:
					case round%3 == 0:
						conn.Release()
					default:
						if _, err := call(ctx, conn); err != nil && ctx.Err() == nil {
							t.Errorf("call: %v", err)
						}
					}
					cancel()
				}
			})
		}
		running.Wait()
		held := []*pool.Conn{acquire(t, p), acquire(t, p), acquire(t, p)}
		if n := p.Len(); n > config.MaxConnections {
			t.Errorf("kind %d: %d connections, want at most %d", kind, n, config.MaxConnections)
		}
		for _, conn := range held {
			conn.Release()
		}
	}
}

// TestDialError: those who waited share the error, and those who come later get a dial of their own.
func TestDialError(t *testing.T) {
	t.Parallel()
	const callers = 10
	refuse := make(chan struct{})
	peer := startPeer(t, func(number int64, conn net.Conn) error {
		if number == 1 {
			<-refuse
			return nil
		}
		s, err := greet(conn)
		if err != nil {
			return err
		}
		return s.answerAll()
	})
	p := newPool(t, config(peer.addr, pool.HTTP2))
	failures := make(chan error, callers)
	for range callers {
		go func() {
			_, err := p.Acquire(t.Context())
			failures <- err
		}()
	}
	eventually(t, "all wait", func() bool { return p.Queued() == callers })
	close(refuse)
	for range callers {
		if err := <-failures; err == nil || !strings.HasSuffix(err.Error(), "connection closed before an answer, as by a server that wants TLS") {
			t.Errorf("got %v, want the connection closed", err)
		}
	}
	mustCall(t, p)
	if accepted := peer.accepted.Load(); accepted != 2 {
		t.Errorf("%d dials, want 2", accepted)
	}
}

// TestConnectionRefused: the error says what was tried and keeps its type.
func TestConnectionRefused(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	_ = listener.Close()
	for _, kind := range []pool.Kind{pool.HTTP2, pool.HTTP1} {
		_, err := newPool(t, config(addr, kind)).Acquire(t.Context())
		if _, ok := errors.AsType[*net.OpError](err); !ok || !strings.HasPrefix(err.Error(), "dial tcp "+addr+": ") || errors.Is(err, pool.ErrNotHTTP2) {
			t.Errorf("got %v, want dial tcp %s: connection refused", err, addr)
		}
	}
}

// TestDialErrorBesideWorkingConnection: a peer that takes no more connections is no reason to fail callers that it is about to serve.
func TestDialErrorBesideWorkingConnection(t *testing.T) {
	t.Parallel()
	for _, kind := range []pool.Kind{pool.HTTP2, pool.HTTP1} {
		server := startServer(t, []func(*http.Protocols){cleartextHTTP2, http1}[kind], 1, echoRemote)
		config := config(server.addr, kind)
		config.MaxConnections = 2
		p := newPool(t, config)
		held := acquire(t, p)
		eventually(t, "the first connection was accepted", func() bool { return server.accepted.Load() == 1 }) // else it is refused with the others
		server.stopAccepting()
		served := make(chan error, 1)
		go func() {
			conn, err := p.Acquire(t.Context())
			if err == nil {
				_, err = call(t.Context(), conn)
			}
			served <- err
		}()
		eventually(t, "the second connection was refused", p.DialFailed)
		if p.Queued() != 1 {
			t.Error("the caller does not wait")
		}
		held.Release()
		if err := <-served; err != nil {
			t.Errorf("got %v, want to be served by the first connection", err)
		}
	}
}
