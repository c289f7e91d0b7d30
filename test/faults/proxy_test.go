//go:build integration

package faults_test

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// proxy forwards TCP connections to an instance until it is told to freeze: then bytes go nowhere, but all sockets stay open, as when a machine or a
// route between is lost without a word. The kernel of a real one would not acknowledge them either; this one's does.
type proxy struct {
	addr string
	// accepted counts the connections; ended those that the client ended.
	accepted, ended atomic.Int64

	frozen  atomic.Bool
	serving sync.WaitGroup
	mu      sync.Mutex
	conns   []net.Conn
}

// startProxy starts a proxy in front of an address. It ends with the test.
func startProxy(t testing.TB, upstream string) *proxy {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: listener.Addr().String()}
	p.serving.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			p.accepted.Add(1)
			server, err := new(net.Dialer).DialContext(t.Context(), "tcp", upstream)
			if err != nil {
				_ = client.Close()
				continue
			}
			p.keep(client, server)
			p.serving.Go(func() {
				defer server.Close()
				p.forward(server, client)
				p.ended.Add(1)
			})
			p.serving.Go(func() {
				defer client.Close()
				p.forward(client, server)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		p.mu.Lock()
		for _, conn := range p.conns {
			_ = conn.Close()
		}
		p.mu.Unlock()
		p.serving.Wait()
	})
	return p
}

func (p *proxy) keep(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = append(p.conns, conns...)
}

// forward copies until from ends. What comes while the proxy is frozen is lost.
func (p *proxy) forward(to io.Writer, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 && !p.frozen.Load() {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
