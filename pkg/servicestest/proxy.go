package servicestest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Proxy stands between clients and a server and passes on bytes, whatever the protocol, until it is told to fail: then connections are
// refused, reset, slow or dead. What it does to them, it does until the function is called that its methods return, for which a second
// call does nothing, or until [Proxy.Clear]. Faults may be combined. Safe for concurrent use.
//
// For faults that need to know requests from responses there is [HTTPProxy].
type Proxy struct {
	// Addr is where the proxy listens, such as "127.0.0.1:43210".
	Addr string
	// URL is the same with the scheme of the upstream, "http" if it was given without.
	URL string

	// Accepted counts the connections that clients made, Open those that have not ended on both sides, and ClosedByClient those that
	// the client ended, which is known also while nothing passes. They are to be read.
	Accepted, Open, ClosedByClient atomic.Int64
	// FromClients and FromServer count the bytes that were passed on. They are to be read.
	FromClients, FromServer atomic.Int64

	dial    func(ctx context.Context) (net.Conn, error)
	ctx     context.Context //nolint:containedctx // of what is dialled, which ends with the proxy
	cancel  context.CancelFunc
	serving sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener
	relays   map[*relay]struct{}
	impeding map[*impediment]func()
	holes    int // how many of them are black holes, and how many refuse
	refusing int
	closed   bool
	err      error // what could not be undone
}

// impediment is what keeps bytes from passing.
type impediment struct {
	ended chan struct{}
	// bytes may pass every so often; 0 if none may.
	bytes int
	every time.Duration
	// harmless impediments let all pass: they do something else.
	harmless bool
}

// StartProxy starts a proxy in front of a server, which is named by address ("127.0.0.1:8080") or URL. It is closed when the test ends.
//
//	proxy := servicestest.StartProxy(t, server.Addr())
//	// … a client of proxy.Addr makes a call …
//	thaw := proxy.Freeze()
//	// … the client's deadlines and pings are to show …
//	thaw()
func StartProxy(tb testing.TB, upstream string) *Proxy {
	tb.Helper()
	proxy, err := NewProxy(upstream)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := proxy.Close(); err != nil {
			tb.Error(err)
		}
	})
	return proxy
}

// NewProxy is [StartProxy] for programs that are no tests. Close the proxy.
func NewProxy(upstream string) (*Proxy, error) {
	target, err := parseUpstream(upstream)
	if err != nil {
		return nil, err
	}
	proxy, err := newProxy(target.Scheme)
	if err != nil {
		return nil, err
	}
	proxy.dial = func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", target.Host)
	}
	proxy.start()
	return proxy, nil
}

func parseUpstream(upstream string) (*url.URL, error) {
	full := upstream
	if !strings.Contains(full, "://") {
		full = "http://" + upstream
	}
	target, err := url.Parse(full)
	if err != nil || target.Hostname() == "" || target.Port() == "" || (target.Scheme != "http" && target.Scheme != "https") {
		return nil, fmt.Errorf("servicestest: upstream %q: want host:port, http://host:port or https://host:port", upstream)
	}
	return target, nil
}

// newProxy returns a proxy that listens, but needs a dial, and to be started.
func newProxy(scheme string) (*Proxy, error) {
	p := &Proxy{relays: make(map[*relay]struct{}), impeding: make(map[*impediment]func())}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	if err := p.listen("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("servicestest: %w", err)
	}
	p.Addr = p.listener.Addr().String()
	p.URL = cmp.Or(scheme, "http") + "://" + p.Addr
	return p, nil
}

// listen opens the listener. Its connections send no keep-alives, which would tell clients of a life that a dead peer has not.
func (p *Proxy) listen(addr string) (err error) {
	config := net.ListenConfig{KeepAlive: -1}
	config.SetMultipathTCP(false) // which takes no filter
	p.listener, err = config.Listen(p.ctx, "tcp", addr)
	return err
}

// start accepts connections. The caller holds the lock if others know the proxy.
func (p *Proxy) start() {
	listener := p.listener
	p.serving.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			p.accept(client)
		}
	})
}

func (p *Proxy) accept(client net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = client.Close()
		return
	}
	if p.holes > 0 {
		p.fail(dropPackets(client))
	}
	r := newRelay(p, client)
	p.relays[r] = struct{}{}
	p.Accepted.Add(1)
	p.Open.Add(1)
	p.serving.Go(func() {
		r.run()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.relays, r)
		p.Open.Add(-1)
	})
}

// fail keeps an error for Close to return.
func (p *Proxy) fail(err error) { p.err = errors.Join(p.err, err) }

// Close ends all connections and faults, waits until nothing of the proxy is left, and returns what went wrong with its faults. It may
// be called more than once.
func (p *Proxy) Close() error {
	p.Clear()
	p.mu.Lock()
	p.closed = true
	p.cancel()
	_ = p.listener.Close() // Fails if the proxy refuses, or is closed.
	for r := range p.relays {
		r.end()
	}
	p.mu.Unlock()
	p.serving.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return fmt.Errorf("servicestest: proxy at %s: %w", p.Addr, p.err)
	}
	return nil
}
