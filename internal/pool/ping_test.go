package pool_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/0x1d/goplt/internal/pool"
)

// pinging is a configuration with pings.
func pinging(interval, timeout time.Duration) pool.Config {
	config := config("192.0.2.1:1", pool.HTTP2)
	config.PingInterval, config.PingTimeout = interval, timeout
	return config
}

// startCall makes a call in the background.
func startCall(t *testing.T, conn *pool.Conn) <-chan error {
	t.Helper()
	ended := make(chan error, 1)
	go func() {
		_, err := call(t.Context(), conn)
		ended <- err
	}()
	synctest.Wait()
	return ended
}

// readPings answers pings as long as answer says so, counts them, and answers the request that came before when it is told to.
func readPings(s *script, stream uint32, answer func() bool, finish <-chan struct{}) error {
	done := make(chan error, 1)
	var writing sync.Mutex
	go func() {
		for {
			frame, err := s.ReadFrame()
			if err != nil {
				done <- ended(err)
				return
			}
			if ping, ok := frame.(*http2.PingFrame); ok && answer() {
				writing.Lock()
				err = s.WritePing(true, ping.Data)
				writing.Unlock()
			}
			if err != nil {
				done <- ended(err)
				return
			}
		}
	}()
	select {
	case err := <-done:
		return err
	case <-finish:
	}
	writing.Lock()
	err := s.answer(stream)
	writing.Unlock()
	if err != nil {
		return err
	}
	return <-done
}

// silentCalls is a peer that takes a call and then does no more than to answer pings, if it wants to.
func silentCalls(answer func() bool, finish <-chan struct{}) *memoryPeer {
	return newMemoryPeer(func(_ int64, conn net.Conn) error {
		s, err := greet(conn)
		if err != nil {
			return err
		}
		stream, err := s.awaitRequest()
		if err != nil {
			return ended(err)
		}
		return readPings(s, stream, answer, finish)
	})
}

// TestPingsWithCallsInFlightAlone: a connection that is idle, or reserved and not used, is not pinged; one with a silent call is, once an
// interval, for as long as it takes.
func TestPingsWithCallsInFlightAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		finish := make(chan struct{})
		peer := silentCalls(func() bool { return true }, finish)
		p := peer.newPool(t, pinging(10*time.Second, 5*time.Second))
		conn := acquire(t, p)
		pass(time.Hour)
		if stats := p.Stats(); stats.Pings != 0 || !p.Sleeps() {
			t.Errorf("got %+v with a slot reserved, want no ping", stats)
		}
		called := startCall(t, conn)
		pass(10*time.Second - 1)
		if pings := p.Stats().Pings; pings != 0 {
			t.Errorf("%d pings before the interval", pings)
		}
		pass(1)
		if pings := p.Stats().Pings; pings != 1 {
			t.Errorf("%d pings after the interval, want 1", pings)
		}
		reserved := acquire(t, p)
		reserved.Release()
		pass(time.Hour - 10*time.Second)
		if pings := p.Stats().Pings; pings != 360 {
			t.Errorf("%d pings after an hour, want 360", pings)
		}
		reserved = acquire(t, p)
		close(finish)
		if err := <-called; err != nil {
			t.Errorf("the call: %v", err)
		}
		pass(time.Hour)
		if stats := p.Stats(); stats.Pings != 360 || stats.Open != 1 || !p.Sleeps() {
			t.Errorf("got %+v an hour after the call, with a slot reserved, want no further ping", stats)
		}
		reserved.Release()
	})
}

// TestPingTimeout is what pings are for, and row 22 of the fault matrix: the peer's process hangs, and its kernel does not say so. The
// connection is closed 15 s after the last sign of life, its calls say why, and the next call gets another.
func TestPingTimeout(t *testing.T) {
	t.Parallel()
	for name, lively := range map[string]int64{"from the first ping on": 0, "after some pings": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var pings atomic.Int64
				peer := silentCalls(func() bool { return pings.Add(1) <= lively }, nil)
				p := peer.newPool(t, pinging(10*time.Second, 5*time.Second))
				began := time.Now()
				err := <-startCall(t, acquire(t, p))
				if err == nil || !strings.HasSuffix(err.Error(), "peer did not answer a ping within 5s") {
					t.Errorf("got %v", err)
				}
				if took, want := time.Since(began), time.Duration(lively)*10*time.Second+15*time.Second; took != want {
					t.Errorf("took %v, want %v", took, want)
				}
				synctest.Wait()
				if stats := p.Stats(); stats.Open != 0 || stats.Ended != (pool.Endings{PingTimeout: 1}) {
					t.Errorf("got %+v", stats)
				}
				acquire(t, p).Release()
			})
		})
	}
}

// TestPingTimeoutOutlivesTheCall: a caller who gives up does not spare a peer that hangs.
func TestPingTimeoutOutlivesTheCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		peer := silentCalls(func() bool { return false }, nil)
		p := peer.newPool(t, pinging(10*time.Second, 5*time.Second))
		ctx, cancel := context.WithTimeout(t.Context(), 11*time.Second)
		defer cancel()
		if _, err := call(ctx, acquire(t, p)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		pass(4 * time.Second)
		if stats := p.Stats(); stats.Open != 0 || stats.Ended.PingTimeout != 1 {
			t.Errorf("got %+v", stats)
		}
	})
}

// TestPingBehindBlockedWrite: a peer that does not even read leaves no room for a ping, and is given no more time than with one.
func TestPingBehindBlockedWrite(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		peer := newMemoryPeer(func(_ int64, conn net.Conn) error {
			s, err := greet(conn, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
			if err != nil {
				return err
			}
			if err := s.WriteWindowUpdate(0, 1<<20); err != nil {
				return err
			}
			<-t.Context().Done() // reads nothing; the bubble's end cancels it
			return nil
		})
		p := peer.newPool(t, pinging(10*time.Second, 5*time.Second))
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://peer.test/", bytes.NewReader(make([]byte, 1<<20)))
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := acquire(t, p).RoundTrip(request); err == nil || time.Since(began) != 15*time.Second {
			t.Errorf("got %v after %v, want an error after 15s", err, time.Since(began))
		}
		if stats := p.Stats(); stats.Pings != 0 {
			t.Errorf("got %+v, want no ping sent", stats)
		}
	})
}

// TestPingsAreCalmed: connections to a peer that complains are pinged half as often, and again half as often; what several connections
// are told of one interval counts once; and a complaint where nothing was pinged means something else.
func TestPingsAreCalmed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		complain := make(chan struct{})
		peer := newMemoryPeer(func(_ int64, conn net.Conn) error {
			s, err := greet(conn, oneStream)
			if err != nil {
				return err
			}
			if _, err := s.awaitRequest(); err != nil {
				return ended(err)
			}
			answered := make(chan error, 1)
			go func() { answered <- readPings(s, 0, func() bool { return true }, nil) }()
			select {
			case <-complain:
			case err := <-answered:
				return err
			}
			if err := http2.NewFramer(conn, nil).WriteGoAway(1, http2.ErrCodeEnhanceYourCalm, []byte("too_many_pings")); err != nil {
				return err
			}
			return nil // which closes the connection, as grpc-go does
		})
		config := pinging(10*time.Second, 5*time.Second)
		config.MaxConnections = 3
		p := peer.newPool(t, config)
		round := func(callers int, after time.Duration) pool.Stats {
			var called []<-chan error
			for range callers {
				called = append(called, startCall(t, acquire(t, p)))
			}
			pass(after)
			for range callers {
				complain <- struct{}{}
			}
			for _, called := range called {
				if err := <-called; err == nil {
					t.Error("the call succeeded")
				}
			}
			synctest.Wait()
			return p.Stats()
		}
		for _, step := range []struct {
			callers  int
			after    time.Duration
			pings    uint64
			interval time.Duration
		}{
			{1, 5 * time.Second, 0, 10 * time.Second},
			{3, 25 * time.Second, 6, 20 * time.Second},
			{1, 19 * time.Second, 6, 20 * time.Second},
			{1, 20 * time.Second, 7, 40 * time.Second},
			{3, 85 * time.Second, 13, 80 * time.Second},
		} {
			if stats := round(step.callers, step.after); stats.Pings != step.pings || stats.PingInterval != step.interval || stats.Ended.Lost > 0 {
				t.Errorf("%+v: got %+v", step, stats)
			}
		}
	})
}

// TestPingsBesideTraffic: pings at any time disturb neither large messages, nor headers of several frames, nor net/http's own frames.
func TestPingsBesideTraffic(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		serverTLS, clientTLS := tlsConfigs(t, "h2")
		listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{
			Protocols: new(http.Protocols), ReadHeaderTimeout: time.Minute, TLSConfig: serverTLS, MaxHeaderBytes: 1 << 20,
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(w, r.Body)
				_, _ = io.WriteString(w, r.Header.Get("Large"))
			}),
		}
		server.Protocols.SetUnencryptedHTTP2(true)
		server.Protocols.SetHTTP2(true)
		var serving sync.WaitGroup
		serving.Go(func() {
			if secure {
				_ = server.ServeTLS(listener, "", "")
			} else {
				_ = server.Serve(listener)
			}
		})
		t.Cleanup(func() {
			_ = server.Close()
			serving.Wait()
		})
		config := pinging(20*time.Microsecond, time.Minute)
		config.Addr = listener.Addr().String()
		if secure {
			config.TLS = clientTLS
		}
		p := newPool(t, config)
		header, body := strings.Repeat("h", 40<<10), strings.Repeat("b", 100<<10)
		var callers sync.WaitGroup
		for range 4 {
			callers.Go(func() {
				for range 8 {
					request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://peer.test/", strings.NewReader(body))
					if err != nil {
						t.Error(err)
						return
					}
					request.Header.Set("Large", header)
					response, err := acquire(t, p).RoundTrip(request)
					if err != nil {
						t.Error(err)
						return
					}
					got, err := io.ReadAll(response.Body)
					_ = response.Body.Close()
					if err != nil || string(got) != body+header {
						t.Errorf("got %d bytes, %v, want %d", len(got), err, len(body)+len(header))
					}
				}
			})
		}
		callers.Wait()
		if stats := p.Stats(); stats.Pings < 10 || stats.Dials != 1 {
			t.Errorf("got %+v, want pings on one connection", stats)
		}
	}
}

// TestPingThroughDeafProxy is row 22 with real sockets: a proxy on the way stops forwarding, and its kernel acknowledges all.
func TestPingThroughDeafProxy(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	server := startServer(t, cleartextHTTP2, 10, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		arrived <- struct{}{}
		<-r.Context().Done()
	})
	deaf := make(chan struct{})
	proxy := startPeer(t, func(_ int64, conn net.Conn) error {
		upstream, err := new(net.Dialer).DialContext(t.Context(), "tcp", server.addr)
		if err != nil {
			return err
		}
		defer func() { _ = upstream.Close() }()
		go func() { _, _ = io.Copy(upstream, conn) }()
		go func() {
			buffer := make([]byte, 4<<10)
			for {
				n, err := upstream.Read(buffer)
				select {
				case <-deaf:
					return // with what was read not forwarded
				default:
				}
				if _, writeErr := conn.Write(buffer[:n]); err != nil || writeErr != nil {
					return
				}
			}
		}()
		<-t.Context().Done() // holds the connection, and reads on
		return nil
	})
	config := pinging(20*time.Millisecond, time.Second)
	config.Addr = proxy.addr
	p := newPool(t, config)
	ended := make(chan error, 1)
	conn := acquire(t, p)
	go func() {
		_, err := call(t.Context(), conn)
		ended <- err
	}()
	<-arrived
	eventually(t, "a ping is answered", func() bool { return p.Stats().Pings >= 2 })
	began := time.Now()
	close(deaf)
	if err := <-ended; err == nil || !strings.HasSuffix(err.Error(), "peer did not answer a ping within 1s") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}
