package servicestest

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"net"
	"net/http"
	"sync"

	"golang.org/x/net/http2"
)

// wireListener accepts connections for a gateway's server. It terminates TLS, if it has a configuration, so that the server, which takes
// HTTP/2 without being told by ALPN, and the wire both see plain bytes.
type wireListener struct {
	net.Listener

	secured *tls.Config
}

// Accept implements [net.Listener].
func (l wireListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if l.secured != nil {
		conn = tls.Server(conn, l.secured)
	}
	return &wire{Conn: conn, moved: make(chan struct{})}, nil
}

// wire is a connection whose HTTP/2 frames to the client are counted as they leave. When net/http says that it has flushed a response, it
// may still have some of it.
type wire struct {
	net.Conn

	mu      sync.Mutex
	header  []byte // of the frame that is leaving, as far as it has
	left    int    // bytes of its payload that have not
	data    bool   // whether it is DATA
	headers int    // HEADERS frames that have left
	bytes   int    // bytes of DATA that have
	moved   chan struct{}
}

type wireKey struct{}

// withWire is the server's ConnContext.
func withWire(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, wireKey{}, conn)
}

func wireOf(r *http.Request) *wire {
	conn, _ := r.Context().Value(wireKey{}).(*wire)
	return conn
}

// Write implements [net.Conn].
func (w *wire) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	w.note(p[:n])
	return n, err
}

// note follows the frames. Of what is not HTTP/2 it makes nonsense, which nobody asks for.
func (w *wire) note(p []byte) {
	const headerSize = 9 // length, type, flags, stream (RFC 9113, section 4.1)
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(p) > 0 {
		if w.left == 0 {
			missing := min(headerSize-len(w.header), len(p))
			w.header, p = append(w.header, p[:missing]...), p[missing:]
			if len(w.header) < headerSize {
				break
			}
			w.left = int(binary.BigEndian.Uint32(w.header) >> 8)
			kind := http2.FrameType(w.header[3])
			w.data = kind == http2.FrameData
			if kind == http2.FrameHeaders {
				w.headers++
			}
			w.header = w.header[:0]
		}
		n := min(w.left, len(p))
		w.left -= n
		if w.data {
			w.bytes += n
		}
		p = p[n:]
	}
	close(w.moved)
	w.moved = make(chan struct{})
}

func (w *wire) counts() (headers, data int, moved <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.headers, w.bytes, w.moved
}

// await waits until so many frames of HEADERS and bytes of DATA have left, or ctx ends.
func (w *wire) await(ctx context.Context, headers, data int) {
	for {
		gone, bytes, moved := w.counts()
		if gone >= headers && bytes >= data {
			return
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return
		}
	}
}

// closeWrite sends what is left and a FIN, and by TLS no more than that, as a process does that dies.
func (w *wire) closeWrite() {
	conn := w.Conn
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn()
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // What fails has ended already.
	}
}
