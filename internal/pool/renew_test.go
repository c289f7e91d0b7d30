package pool_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/0x1d/goplt/internal/pool"
)

// TestRenew: after it, calls go over new connections only. Those that were idle are closed at once, and those with calls after the last.
func TestRenew(t *testing.T) {
	inBubble(t, func(t *testing.T, kind pool.Kind) {
		peer := newMemoryPeer(answering(kind))
		p := peer.newPool(t, config("192.0.2.1:1", kind))
		p.Renew() // of nothing
		mustCall(t, p)
		busy := acquire(t, p)
		p.Renew()
		if busy.Usable() {
			t.Error("the connection takes further calls")
		}
		mustCall(t, p)
		if _, err := call(t.Context(), busy); err != nil {
			t.Errorf("the call that had the old connection: %v", err)
		}
		synctest.Wait()
		if stats := p.Stats(); stats.Open != 1 || stats.Dials != 2 || stats.Ended != (pool.Endings{Renewed: 1}) {
			t.Errorf("got %+v, want the old connection closed and the new one open", stats)
		}
		p.Renew()
		synctest.Wait()
		if stats := p.Stats(); stats.Open != 0 || stats.Ended != (pool.Endings{Renewed: 2}) {
			t.Errorf("got %+v, want none", stats)
		}
	})
}

// TestRenewOfDials: a dial that is under way is given up, whatever it would have found, and is no failure: who waits for it gets another.
func TestRenewOfDials(t *testing.T) {
	befores := []func(ctx context.Context, p *pool.Pool) error{
		func(ctx context.Context, _ *pool.Pool) error { // silence
			<-ctx.Done()
			return ctx.Err()
		},
		func(_ context.Context, p *pool.Pool) error { // a failure
			p.Renew()
			return errors.New("of before")
		},
		func(_ context.Context, p *pool.Pool) error { // a connection
			p.Renew()
			return nil
		},
	}
	inBubble(t, func(t *testing.T, kind pool.Kind) {
		for _, before := range befores {
			peer := newMemoryPeer(answering(kind))
			var p *pool.Pool
			dialed := config("192.0.2.1:1", kind)
			dialed.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if p.Stats().Dials == 1 {
					if err := before(ctx, p); err != nil {
						return nil, err
					}
				}
				return peer.connect(context.WithoutCancel(ctx), network, addr)
			}
			p = pool.New(dialed)
			atTheLatest := time.AfterFunc(time.Second, p.Renew)
			began := time.Now()
			mustCall(t, p)
			if took := time.Since(began); took > time.Second {
				t.Errorf("took %v", took)
			}
			atTheLatest.Stop()
			synctest.Wait()
			if stats := p.Stats(); stats.Open != 1 || stats.Dials != 2 || stats.DialFailures != 0 || stats.Ended != (pool.Endings{}) {
				t.Errorf("got %+v, want one connection by the second dial", stats)
			}
			p.Close()
		}
	})
}

// TestRenewOfSilence: a peer that did not greet in time before speaks HTTP/2 after, for all that is known.
func TestRenewOfSilence(t *testing.T) {
	inBubble(t, func(t *testing.T, kind pool.Kind) {
		if kind == pool.HTTP1 {
			return // which has no greeting
		}
		peer := newMemoryPeer(func(number int64, conn net.Conn) error {
			if number == 1 {
				return awaitEOF(conn)
			}
			return answering(kind)(number, conn)
		})
		p := peer.newPool(t, config("192.0.2.1:1", kind))
		time.AfterFunc(1900*time.Millisecond, p.Redial)
		mustCall(t, p)
		if stats := p.Stats(); stats.Open != 1 || stats.Dials != 2 || stats.DialFailures != 0 {
			t.Errorf("got %+v, want one connection by the second dial", stats)
		}
	})
}

// TestRenewOfAWarmPool: the connections that are kept without anyone asking are dialed anew.
func TestRenewOfAWarmPool(t *testing.T) {
	inBubble(t, func(t *testing.T, kind pool.Kind) {
		peer := newMemoryPeer(answering(kind))
		warm := config("192.0.2.1:1", kind)
		warm.MaxConnections, warm.MinConnections = 3, 3
		warm.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if len(peer.dials) < 2 {
				return peer.connect(ctx, network, addr)
			}
			slow := time.NewTimer(time.Second)
			defer slow.Stop()
			select {
			case <-ctx.Done():
			case <-slow.C:
			}
			return peer.connect(ctx, network, addr)
		}
		p := pool.New(warm)
		defer p.Close()
		p.Warm()
		pass(500 * time.Millisecond)
		if stats := p.Stats(); stats.Open != 2 {
			t.Errorf("got %+v, want two connections and a dial", stats)
		}
		p.Renew()
		pass(2 * time.Second)
		if stats := p.Stats(); stats.Open != 3 || stats.Dials != 6 || stats.DialFailures != 0 || stats.Ended != (pool.Endings{Renewed: 2}) {
			t.Errorf("got %+v, want three new connections", stats)
		}
	})
}
