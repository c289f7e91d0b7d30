package pool_test

import (
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/0x1d/goplt/internal/pool"
)

// inBubble runs a test for each kind, in a synctest bubble.
func inBubble(t *testing.T, test func(t *testing.T, kind pool.Kind)) {
	t.Helper()
	t.Parallel()
	for _, row := range kinds {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { test(t, row.kind) })
		})
	}
}

// pass lets time go by.
func pass(duration time.Duration) {
	elapse(duration)
	synctest.Wait()
}

func elapse(duration time.Duration) {
	time.Sleep(duration) //nolint:forbidigo // by the clock of the bubble
}

// TestMaxAge: a connection in use is replaced before it is taken out, in time, and no caller waits for its successor, which takes as long
// as it likes.
func TestMaxAge(t *testing.T) {
	inBubble(t, func(t *testing.T, kind pool.Kind) {
		var slow atomic.Bool
		peer := newMemoryPeer(answering(kind))
		peer.refuse = func() error {
			if slow.Load() {
				elapse(time.Second)
			}
			return nil
		}
		config := config("192.0.2.1:1", kind)
		config.MaxAge, config.IdleTimeout = time.Hour, 90*time.Second
		p := peer.newPool(t, config)
		mustCall(t, p)
		slow.Store(true)
		began := time.Now()
		for peer.accepted.Load() == 1 {
			pass(5 * time.Second)
			before := time.Now()
			mustCall(t, p)
			if waited := time.Since(before); waited > 0 {
				t.Fatalf("a caller waited for %v, at the age of %v", waited, time.Since(began))
			}
		}
		if age := time.Since(began); age < 48*time.Minute || age > 72*time.Minute+10*time.Second {
			t.Errorf("replaced at the age of %v, want 1h ± 20 %%", age)
		}
		pass(0)
		if stats := p.Stats(); stats.Open != 1 || stats.Ended != (pool.Endings{Age: 1}) || stats.Dials != 2 {
			t.Errorf("got %+v, want one connection ended by age and one open", stats)
		}
		if open := peer.open.Load(); open != 1 {
			t.Errorf("%d connections at the peer, want 1", open)
		}
	})
}

// TestMaxAgeUnused: nobody needs a successor of a connection that was not used for long, nor of one of several.
func TestMaxAgeUnused(t *testing.T) {
	inBubble(t, func(t *testing.T, kind pool.Kind) {
		peer := newMemoryPeer(func(_ int64, conn net.Conn) error {
			if kind == pool.HTTP1 {
				return ended(awaitEOF(conn))
			}
			s, err := greet(conn, oneStream)
			if err != nil {
				return err
			}
			return s.answerAll()
		})
		config := config("192.0.2.1:1", kind)
		config.MaxAge, config.MaxConnections = time.Hour, 3
		p := peer.newPool(t, config)
		held := []*pool.Conn{acquire(t, p), acquire(t, p), acquire(t, p)}
		for _, conn := range held {
			conn.Release()
		}
		pass(2 * time.Hour)
		if stats := p.Stats(); stats.Open != 0 || stats.Ended.Age != 3 || stats.Dials != 3 {
			t.Errorf("got %+v, want three connections ended by age and none opened", stats)
		}
	})
}

// TestMaxAgeInFlight: a call that outlives its connection's age ends in peace, beside calls on the successor.
func TestMaxAgeInFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		finish := make(chan struct{})
		peer := newMemoryPeer(func(number int64, conn net.Conn) error {
			s, err := greet(conn)
			if err != nil {
				return err
			}
			if number > 1 {
				return s.answerAll()
			}
			stream, err := s.awaitRequest()
			if err != nil {
				return err
			}
			<-finish
			if err := s.answer(stream); err != nil {
				return err
			}
			return ended(awaitEOF(conn))
		})
		config := config("192.0.2.1:1", pool.HTTP2)
		config.MaxAge = time.Hour
		p := peer.newPool(t, config)
		called := make(chan error, 1)
		conn := acquire(t, p)
		go func() {
			_, err := call(t.Context(), conn)
			called <- err
		}()
		pass(72*time.Minute + time.Second)
		mustCall(t, p)
		synctest.Wait()
		if stats := p.Stats(); stats.Open != 2 || stats.InFlight != 1 || conn.Usable() {
			t.Errorf("got %+v, want the old connection to finish its call beside the new one", stats)
		}
		close(finish)
		if err := <-called; err != nil {
			t.Errorf("the call in flight: %v", err)
		}
		synctest.Wait()
		if stats := p.Stats(); stats.Open != 1 || stats.InFlight != 0 {
			t.Errorf("got %+v, want the old connection closed", stats)
		}
	})
}

// TestMaxAgeNoSuccessor: a connection whose successor cannot be opened serves on, and the peer is asked again with pauses.
func TestMaxAgeNoSuccessor(t *testing.T) {
	inBubble(t, func(t *testing.T, kind pool.Kind) {
		var refusing atomic.Bool
		peer := newMemoryPeer(answering(kind))
		peer.refuse = func() error {
			if refusing.Load() {
				return errors.New("refused")
			}
			return nil
		}
		config := config("192.0.2.1:1", kind)
		config.MaxAge = time.Hour
		p := peer.newPool(t, config)
		mustCall(t, p)
		refusing.Store(true)
		for range 90 {
			pass(time.Minute - time.Second) // used recently, always
			mustCall(t, p)
		}
		stats := p.Stats()
		if stats.Open != 1 || stats.DialFailures < 25 || stats.DialFailures > 45*60/24+10 {
			t.Errorf("got %+v, want the connection and a dial each 30s ± 20 %% since its age was up", stats)
		}
		refusing.Store(false)
		pass(36 * time.Second)
		mustCall(t, p)
		if stats := p.Stats(); stats.Open != 1 || stats.Ended.Age != 1 {
			t.Errorf("got %+v, want the successor", stats)
		}
	})
}

// TestMaxAgeIsJittered: what was opened at one time is not closed at one time.
func TestMaxAgeIsJittered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		peer := newMemoryPeer(answering(pool.HTTP2))
		config := config("192.0.2.1:1", pool.HTTP2)
		config.MaxAge = 100 * time.Minute
		for range 100 {
			acquire(t, peer.newPool(t, config)).Release()
		}
		pass(80*time.Minute - time.Second)
		if open := peer.open.Load(); open != 100 {
			t.Errorf("%d connections after 80 %% of the age, want 100", open)
		}
		for _, row := range []struct {
			minutes     time.Duration
			least, most int64
		}{{90, 55, 95}, {100, 30, 70}, {110, 5, 45}, {120, 0, 0}} {
			pass(10*time.Minute + time.Second)
			if open := peer.open.Load(); open < row.least || open > row.most {
				t.Errorf("%d connections after %d minutes, want %d to %d", open, row.minutes, row.least, row.most)
			}
		}
	})
}

// TestWarm: the minimum is opened without a call, outlives the idle timeout and the maximum age, and what goes beyond it does not.
func TestWarm(t *testing.T) {
	inBubble(t, func(t *testing.T, kind pool.Kind) {
		peer := newMemoryPeer(func(_ int64, conn net.Conn) error {
			if kind == pool.HTTP1 {
				return ended(awaitEOF(conn))
			}
			s, err := greet(conn, oneStream)
			if err != nil {
				return err
			}
			return s.answerAll()
		})
		config := config("192.0.2.1:1", kind)
		config.MinConnections, config.MaxConnections, config.IdleTimeout, config.MaxAge = 2, 4, time.Minute, time.Hour
		p := peer.newPool(t, config)
		pass(time.Hour)
		if stats := p.Stats(); stats.Dials != 0 {
			t.Fatalf("got %+v before Warm", stats)
		}
		p.Warm()
		p.Warm()
		synctest.Wait()
		if stats := p.Stats(); stats.Open != 2 || stats.Dials != 2 {
			t.Fatalf("got %+v, want two connections", stats)
		}
		var held []*pool.Conn
		for range 4 {
			held = append(held, acquire(t, p))
		}
		for _, conn := range held {
			conn.Release()
		}
		pass(time.Minute)
		if stats := p.Stats(); stats.Open != 2 || stats.Dials != 4 || stats.Ended.Idle != 2 {
			t.Fatalf("got %+v, want the minimum left after the idle timeout", stats)
		}
		for range 30 * 60 {
			pass(10 * time.Second)
			if open := p.Len(); open < 2 || open > 3 {
				t.Fatalf("%d connections, want two, or three in passing", open)
			}
		}
		if stats := p.Stats(); stats.Ended.Age < 8 || stats.Ended.Age > 14 || stats.Ended.Idle != 2 || stats.Ended.Lost != 0 {
			t.Errorf("got %+v after 5 hours, want each connection replaced each hour", stats)
		}
		p.Cool()
		pass(2 * time.Minute)
		if stats := p.Stats(); stats.Open != 0 {
			t.Errorf("got %+v after Cool and the idle timeout", stats)
		}
		dials := p.Stats().Dials
		pass(time.Hour)
		if stats := p.Stats(); stats.Dials != dials {
			t.Errorf("got %+v, want no dial after Cool", stats)
		}
	})
}

// TestCoolLetsTheOldGo: connections that waited for successors, which could not be opened, wait no longer when nobody needs those.
func TestCoolLetsTheOldGo(t *testing.T) {
	inBubble(t, func(t *testing.T, kind pool.Kind) {
		var refusing atomic.Bool
		peer := newMemoryPeer(answering(kind))
		peer.refuse = func() error {
			if refusing.Load() {
				return errors.New("refused")
			}
			return nil
		}
		config := config("192.0.2.1:1", kind)
		config.MinConnections, config.MaxConnections, config.MaxAge = 2, 2, time.Hour
		p := peer.newPool(t, config)
		p.Warm()
		synctest.Wait()
		refusing.Store(true)
		pass(2 * time.Hour)
		if stats := p.Stats(); stats.Open != 2 || stats.DialFailures == 0 {
			t.Errorf("got %+v, want the old connections", stats)
		}
		p.Cool()
		synctest.Wait()
		if stats := p.Stats(); stats.Open != 0 || stats.Ended.Age != 2 {
			t.Errorf("got %+v, want none", stats)
		}
	})
}

// TestWarmSharesItsDial: a caller who comes while the minimum is being opened is served by that, and callers and minimum together open no
// more than is allowed.
func TestWarmSharesItsDial(t *testing.T) {
	inBubble(t, func(t *testing.T, kind pool.Kind) {
		peer := newMemoryPeer(answering(kind))
		peer.refuse = func() error {
			elapse(time.Second)
			return nil
		}
		config := config("192.0.2.1:1", kind)
		config.MinConnections, config.MaxConnections = 2, 2
		p := peer.newPool(t, config)
		p.Warm()
		done := make(chan error, 10)
		for range cap(done) {
			go func() {
				conn, err := p.Acquire(t.Context())
				if err == nil {
					_, err = call(t.Context(), conn)
				}
				done <- err
			}()
		}
		for range cap(done) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		if stats := p.Stats(); stats.Dials != 2 || stats.Open != 2 {
			t.Errorf("got %+v, want two dials", stats)
		}
	})
}

// TestWarmReplacesWhatGoes is row 18 of the fault matrix with a minimum: after a GOAWAY while idle, and after a loss, the minimum is there
// again at once, before anyone asks.
func TestWarmReplacesWhatGoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		leave := make(chan bool)
		peer := newMemoryPeer(func(_ int64, conn net.Conn) error {
			s, err := greet(conn)
			if err != nil {
				return err
			}
			answered := make(chan error, 1)
			go func() { answered <- s.answerAll() }() // ends with the connection
			select {
			case announced := <-leave:
				if !announced {
					return nil
				}
			case err := <-answered:
				return ended(err)
			}
			if err := http2.NewFramer(conn, nil).WriteGoAway(0, http2.ErrCodeNo, nil); err != nil {
				return err
			}
			return ended(<-answered)
		})
		config := config("192.0.2.1:1", pool.HTTP2)
		config.MinConnections = 1
		p := peer.newPool(t, config)
		p.Warm()
		synctest.Wait()
		for number, announced := range []bool{true, false, true} {
			if number > 0 { // once, even a young connection's end is replaced at once
				pass(10 * time.Second)
			}
			leave <- announced
			synctest.Wait()
			if stats := p.Stats(); stats.Open != 1 || stats.Dials != uint64(number+2) {
				t.Fatalf("got %+v, want the next connection", stats)
			}
		}
		if stats := p.Stats(); stats.Ended != (pool.Endings{GoAway: 2, Lost: 1}) {
			t.Errorf("got %+v", stats)
		}
	})
}

// TestWarmBacksOff: a peer that refuses connections is asked after 1 s, 2 s and so on up to 30 s, each ± 20 %, and found within that time
// when it is back.
func TestWarmBacksOff(t *testing.T) {
	inBubble(t, func(t *testing.T, kind pool.Kind) {
		var refusing atomic.Bool
		refusing.Store(true)
		peer := newMemoryPeer(answering(kind))
		peer.refuse = func() error {
			if refusing.Load() {
				return errors.New("refused")
			}
			return nil
		}
		config := config("192.0.2.1:1", kind)
		config.MinConnections, config.MaxConnections = 2, 4
		p := peer.newPool(t, config)
		p.Warm()
		want := []int{0, 1, 2, 4, 8, 16, 30, 30, 30, 30} // seconds
		var last time.Time
		for round, pause := range want {
			first, second := <-peer.dials, <-peer.dials
			if second.After(first) {
				t.Errorf("round %d: the second dial came %v after the first", round, second.Sub(first))
			}
			if waited, around := first.Sub(last), time.Duration(pause)*time.Second; round > 0 && (waited < around*8/10 || waited > around*12/10) {
				t.Errorf("round %d: after %v, want %v ± 20 %%", round, waited, around)
			}
			last = first
		}
		refusing.Store(false)
		pass(36 * time.Second)
		if stats := p.Stats(); stats.Open != 2 || stats.DialFailures != uint64(2*len(want)) {
			t.Errorf("got %+v, want the minimum to be there again", stats)
		}
	})
}

// TestWarmIsNoBusyLoop: a peer that takes connections and closes them at once is not dialed without end.
func TestWarmIsNoBusyLoop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		peer := newMemoryPeer(func(_ int64, conn net.Conn) error {
			if _, err := greet(conn); err != nil {
				return err
			}
			elapse(10 * time.Millisecond)
			return nil
		})
		config := config("192.0.2.1:1", pool.HTTP2)
		config.MinConnections, config.MaxConnections = 2, 4
		p := peer.newPool(t, config)
		p.Warm()
		pass(10 * time.Minute)
		if stats := p.Stats(); stats.Dials < 40 || stats.Dials > 70 {
			t.Errorf("got %+v after 10 minutes, want two dials each 30 s", stats)
		}
	})
}

// TestIdlePoolSleeps: a pool that has nothing to do sets no timer.
func TestIdlePoolSleeps(t *testing.T) {
	inBubble(t, func(t *testing.T, kind pool.Kind) {
		config := config("192.0.2.1:1", kind)
		config.MinConnections, config.PingInterval, config.PingTimeout = 1, time.Second, time.Second
		peer := newMemoryPeer(answering(kind))
		p := peer.newPool(t, config)
		p.Warm()
		mustCall(t, p)
		pass(time.Minute)
		if !p.Sleeps() {
			t.Error("a timer is set")
		}
		if stats := p.Stats(); stats.Open != 1 || stats.Dials != 1 || stats.Pings != 0 {
			t.Errorf("got %+v, want one connection left alone", stats)
		}
	})
}

// TestCoolOfAPoolThatIsNotWarm does nothing: each update of a set cools a pool or two of each of its instances.
func TestCoolOfAPoolThatIsNotWarm(t *testing.T) {
	inBubble(t, func(t *testing.T, kind pool.Kind) {
		p := newMemoryPeer(answering(kind)).newPool(t, config("192.0.2.1:1", kind))
		p.Cool()
		if !p.Sleeps() {
			t.Error("a timer is set")
		}
	})
}
