package rpc

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/0x1d/goplt/pkg/registry"
)

// TestFallbackLooksAgain: after 60 s ± 20 %, then twice as long each time up to 10 min, until gRPC works.
func TestFallbackLooksAgain(t *testing.T) {
	inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
		probes.find(foundNothing, foundNothing)
		learned := time.Now()
		f.learn(errNoTrailers, time.Now())
		f.learn(errNoTrailers, time.Now()) // by another call: known already
		pass(time.Hour)
		last := learned
		for number, want := range []float64{1, 2, 4, 8, 10, 10} {
			if got := probes.began[number].Sub(last).Minutes(); got < want*0.8 || got > want*1.2 {
				t.Errorf("probe %d after %v min, want %v ± 20 %%", number+1, got, want)
			}
			last = probes.began[number]
		}
		probes.find(foundWorks, foundNothing)
		pass(12 * time.Minute)
		expectSpoken(t, f, ProtocolGRPC)
		if got := f.instance.lastChange.Load().What; got != "speaks gRPC again: a probe brought a message and a trailer" {
			t.Errorf("last change %q", got)
		}
		byGRPC, byHTTP := probes.made()
		if byHTTP != 0 {
			t.Errorf("%d probes by HTTP", byHTTP)
		}
		pass(24 * time.Hour)
		expectProbes(t, probes, byGRPC, 0) // nothing to do
		f.learn(errNoTrailers, time.Now())
		pass(72 * time.Second)
		expectProbes(t, probes, byGRPC+1, 0) // the first interval again
	})
}

// TestFallbackReturnsInVain: what is learned again at once, although a probe has disproved it, is looked at again less and less often.
func TestFallbackReturnsInVain(t *testing.T) {
	inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
		probes.find(foundWorks, foundNothing)
		for _, want := range []float64{1, 2, 4, 8, 10, 10} {
			learned := time.Now()
			f.learn(errNoTrailers, time.Now())
			for f.byHTTP() {
				pass(time.Second)
			}
			if got := time.Since(learned).Minutes(); got < want*0.8 || got > want*1.2+0.05 {
				t.Errorf("returned after %v min, want %v ± 20 %%", got, want)
			}
			pass(time.Second)
		}
		pass(10 * time.Minute)
		f.learn(errNoTrailers, time.Now())
		pass(72 * time.Second)
		expectSpoken(t, f, ProtocolGRPC) // it was worth it for some time
	})
}

// TestFallbackRegistration: what was learned, suspected or is being found out of the last registration says nothing of the next.
func TestFallbackRegistration(t *testing.T) {
	inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
		probes.find(foundFails, foundWorks)
		probes.takes = time.Second
		next := *f.instance.described.Load()
		doubts(f, 1)
		next.Revision++
		f.instance.describe(next)
		pass(time.Minute)
		expectSpoken(t, f, ProtocolGRPC)
		expectProbes(t, probes, 1, 0)

		doubts(f, 1)
		pass(5 * time.Second)
		expectSpoken(t, f, ProtocolHTTP)
		next.Weight = 7
		f.instance.describe(next)
		expectSpoken(t, f, ProtocolHTTP) // the same registration
		next.Revision++
		f.instance.describe(next)
		expectSpoken(t, f, ProtocolGRPC)
		if got := f.instance.lastChange.Load().What; !strings.HasPrefix(got, "registered anew") {
			t.Errorf("last change %q", got)
		}
		pass(time.Hour)
		expectProbes(t, probes, 2, 1)

		next.Metadata = map[string]string{"protocol": "http"}
		f.instance.describe(next)
		pass(time.Hour)
		expectSpoken(t, f, ProtocolHTTP)
		expectProbes(t, probes, 2, 1) // what the instance says is not looked into
		f.instance.fallback.rest()
		f.instance.fallback.wake()
		pass(time.Hour)
		expectProbes(t, probes, 2, 1)
	})
}

// TestFallbackLookIsVoid: a look at an instance that registers anew, or leaves, while it is looked at, changes nothing and has nothing looked at
// again.
func TestFallbackLookIsVoid(t *testing.T) {
	for _, row := range []struct {
		name      string
		meanwhile func(f *fallback)
		want      Protocol
	}{
		{"registers anew", func(f *fallback) { f.register("") }, ProtocolGRPC},
		{"leaves", (*fallback).rest, ProtocolHTTP},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, found := range []finding{foundWorks, foundFails} {
				inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
					probes.find(found, foundNothing)
					probes.stubborn = true
					probes.takes = defaultFallbackPace().timeout - 1
					f.learn(errNoTrailers, time.Now())
					for byGRPC := 0; byGRPC == 0; byGRPC, _ = probes.made() {
						pass(time.Second)
					}
					row.meanwhile(f)
					before := f.instance.lastChange.Load()
					pass(time.Hour)
					expectSpoken(t, f, row.want)
					expectProbes(t, probes, 1, 0)
					if after := f.instance.lastChange.Load(); after != before {
						t.Errorf("%+v", after)
					}
				})
			}
		})
	}
}

// TestFallbackLookOfBefore: what a look found of the registration before says nothing of one of which the same was learned meanwhile.
func TestFallbackLookOfBefore(t *testing.T) {
	inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
		probes.find(foundWorks, foundNothing)
		probes.takes = defaultFallbackPace().timeout - 1
		f.learn(errNoTrailers, time.Now())
		for byGRPC := 0; byGRPC == 0; byGRPC, _ = probes.made() {
			pass(time.Second)
		}
		f.register("")
		f.learn(errNoTrailers, time.Now())
		pass(10 * time.Second)
		expectSpoken(t, f, ProtocolHTTP)
		expectProbes(t, probes, 1, 0)
	})
}

// unwatched is a registry that never answers.
type unwatched struct{ registry.ServiceRegistry }

func (unwatched) Watch(registry.Target) (registry.Watcher, error) { return unwatched{}, nil }
func (unwatched) Close() error                                    { return nil }
func (unwatched) Next(ctx context.Context) ([]registry.Instance, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestFallbackFollowsTheRegistry: an instance that the registry does not name is left in peace, and looked at again when it is back.
func TestFallbackFollowsTheRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := DefaultClientConfig()
		config.Pool.DrainTimeout = time.Hour
		transport, err := NewTransport("a", unwatched{}, WithClientConfig(config))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = transport.Close() }()
		set := []registry.Instance{{ID: "a", Host: "192.0.2.1", Port: 1}}
		transport.adopt(set)
		f, probes := transport.view.Load().instances[0].fallback, &script{}
		f.ask = probes.ask
		f.learn(errNoTrailers, time.Now())
		transport.adopt(nil)
		pass(30 * time.Minute)
		expectProbes(t, probes, 0, 0)
		transport.adopt(set)
		pass(72 * time.Second)
		expectProbes(t, probes, 1, 0)
		if err := transport.Close(); err != nil {
			t.Error(err)
		}
		pass(time.Hour)
		expectProbes(t, probes, 1, 0)
	})
}

// TestFallbackRests: an instance that left is not probed, and one that came back is again.
func TestFallbackRests(t *testing.T) {
	inFallback(t, nil, func(t *testing.T, f *fallback, probes *script) {
		f.wake() // nothing was learned
		pass(time.Hour)
		expectProbes(t, probes, 0, 0)
		f.learn(errNoTrailers, time.Now())
		f.rest()
		pass(time.Hour)
		expectProbes(t, probes, 0, 0)
		f.wake()
		pass(72 * time.Second)
		expectProbes(t, probes, 1, 0)
		probes.mu.Lock()
		probes.grpc, probes.takes = foundWorks, time.Minute
		probes.mu.Unlock()
		f.instance.close()
		pass(time.Hour)
		expectProbes(t, probes, 1, 0)
		expectSpoken(t, f, ProtocolHTTP)
	})
}

// TestFallbackRenewsUnlocked: connections are renewed with no lock held, as to close them may take a while, and before a call may go over them.
func TestFallbackRenewsUnlocked(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	defer server.Close()
	var f *fallback
	closed := 0
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
		return &closingConn{Conn: conn, closing: func() {
			closed++
			if !f.mu.TryLock() {
				t.Error("a connection is closed while the fallback is locked")
				return
			}
			defer f.mu.Unlock()
			if !f.byHTTP() {
				t.Error("gRPC is spoken again, over the connections of before")
			}
		}}, err
	}
	config, owner := DefaultClientConfig(), newFallbackProbes(defaultFallbackPace())
	defer owner.close()
	described := registry.Instance{ID: "a", Host: "192.0.2.1", Port: 1}
	i := newInstance(described, &config, opening{dial: dial}, &changes{logger: slog.New(slog.DiscardHandler)}, nil, owner)
	defer i.close()
	f = i.fallback
	f.ask = func(context.Context, Protocol) (finding, error) { return foundWorks, nil }
	conn, err := i.grpc.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn.Release()
	f.learn(errNoTrailers, time.Now())
	f.look(t.Context(), foundWorks)
	expectSpoken(t, f, ProtocolGRPC)
	if closed != 1 {
		t.Errorf("%d connections closed, want 1", closed)
	}
}

// closingConn is a connection that tells when it is closed for the first time.
type closingConn struct {
	net.Conn

	once    sync.Once
	closing func()
}

func (c *closingConn) Close() error {
	c.once.Do(c.closing)
	return c.Conn.Close()
}
