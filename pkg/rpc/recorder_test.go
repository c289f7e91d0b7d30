package rpc_test

import (
	"bytes"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// recorder is a listener that keeps the first bytes of each connection it accepted.
type recorder struct {
	net.Listener

	mu       sync.Mutex
	accepted []*recordedConn
}

type recordedConn struct {
	net.Conn

	mu    sync.Mutex
	first []byte
}

// listen returns a recorder on a free port of this machine.
func listen(t testing.TB) *recorder {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return &recorder{Listener: listener}
}

// nobody returns an address where connections are refused, and where nobody else will listen during the test: it is that of a client's end.
func nobody(t testing.TB) string {
	t.Helper()
	listener := listen(t)
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		_ = listener.Close()
	})
	return conn.LocalAddr().String()
}

func (r *recorder) Accept() (net.Conn, error) {
	conn, err := r.Listener.Accept()
	if err != nil {
		return nil, err
	}
	recorded := &recordedConn{Conn: conn}
	r.mu.Lock()
	r.accepted = append(r.accepted, recorded)
	r.mu.Unlock()
	return recorded, nil
}

func (c *recordedConn) Read(buffer []byte) (int, error) {
	n, err := c.Conn.Read(buffer)
	c.mu.Lock()
	c.first = append(c.first, buffer[:min(n, max(0, 16-len(c.first)))]...)
	c.mu.Unlock()
	return n, err
}

// begins counts the connections accepted, and those whose first bytes were an HTTP/2 preface or an HTTP/1.1 call.
func (r *recorder) begins() (all, http2, http1 int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, conn := range r.accepted {
		conn.mu.Lock()
		switch {
		case bytes.HasPrefix(conn.first, []byte("PRI * HTTP/2.0")):
			http2++
		case bytes.HasPrefix(conn.first, []byte("POST /")):
			http1++
		}
		conn.mu.Unlock()
	}
	return len(r.accepted), http2, http1
}

// serveOn serves handler on listener until the test ends.
func serveOn(t testing.TB, listener net.Listener, handler http.Handler, speaks protocols) *http.Server {
	t.Helper()
	server := &http.Server{Handler: handler, Protocols: new(http.Protocols), ReadHeaderTimeout: time.Minute}
	server.Protocols.SetHTTP1(speaks != http2Only)
	server.Protocols.SetUnencryptedHTTP2(speaks != http1Only)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		_ = server.Close()
		serving.Wait()
	})
	return server
}
