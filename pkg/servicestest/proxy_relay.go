package servicestest

import (
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
)

// relay is one connection of a client, and the one to the server that goes with it.
type relay struct {
	proxy  *Proxy
	client net.Conn

	mu     sync.Mutex
	server net.Conn
	ended  bool
	done   chan struct{} // closed when the relay has ended

	serverEnded chan struct{} // closed when all that the server sent has been read
}

func newRelay(proxy *Proxy, client net.Conn) *relay {
	return &relay{proxy: proxy, client: client, done: make(chan struct{}), serverEnded: make(chan struct{})}
}

// run passes bytes on until both sides have ended, or one has failed.
func (r *relay) run() {
	var reading sync.WaitGroup
	defer reading.Wait()
	defer r.end()
	server, err := r.proxy.dial(r.proxy.ctx)
	if err != nil {
		r.reset()
		return
	}
	r.mu.Lock()
	r.server = server
	ended := r.ended
	r.mu.Unlock()
	if ended {
		_ = server.Close()
		return
	}
	fromServer := r.read(&reading, server, func() { close(r.serverEnded) })
	fromClient := r.read(&reading, r.client, func() {
		select {
		case <-r.serverEnded:
		default:
			r.proxy.ClosedByClient.Add(1)
		}
	})
	var passing sync.WaitGroup
	passing.Go(func() {
		// That the server takes no more is no reason to lose what it has sent: how it ended shows when reading from it.
		r.pass(server, fromClient, &r.proxy.FromClients, func() {})
	})
	passing.Go(func() { r.pass(r.client, fromServer, &r.proxy.FromServer, r.reset) })
	passing.Wait()
}

// pieces are what a side sends.
type pieces struct {
	ready chan []byte
	err   error // how it ended, once ready is closed
}

// read reads what a side sends, also while nothing passes, so that its end shows; then it calls noted. So much is held, 2 MiB at most, and
// the rest in the kernel.
func (r *relay) read(reading *sync.WaitGroup, from net.Conn, noted func()) *pieces {
	read := &pieces{ready: make(chan []byte, 64)}
	reading.Go(func() {
		defer close(read.ready)
		buffer := make([]byte, 32<<10)
		for {
			n, err := from.Read(buffer)
			if n > 0 {
				select {
				case read.ready <- slices.Clone(buffer[:n]):
				case <-r.done:
					return
				}
			}
			if err != nil {
				if read.err = err; r.isOpen() {
					noted()
				}
				return
			}
		}
	})
	return read
}

// pass passes on what a side sends, and at last the end of it: FIN as FIN, and a failure as a reset. When the other side takes no more, it
// calls refused, and reads on: a connection that is closed with something to read in it loses what it has to send.
func (r *relay) pass(to net.Conn, read *pieces, count *atomic.Int64, refused func()) {
	for piece := range read.ready {
		if !r.write(to, piece, count) {
			refused()
			for range read.ready { // reads on
			}
			return
		}
	}
	if r.proxy.pace(1, r.done) == 0 {
		return
	}
	half, ok := to.(interface{ CloseWrite() error })
	if !errors.Is(read.err, io.EOF) || !ok || half.CloseWrite() != nil {
		r.reset()
	}
}

// write writes a piece as fast as the proxy lets it, and reports whether it did.
func (r *relay) write(to io.Writer, piece []byte, count *atomic.Int64) bool {
	for len(piece) > 0 {
		n := r.proxy.pace(len(piece), r.done)
		if n == 0 {
			return false
		}
		n, err := to.Write(piece[:n])
		count.Add(int64(n))
		if err != nil {
			return false
		}
		piece = piece[n:]
	}
	return true
}

// isOpen reports whether the relay has not ended.
func (r *relay) isOpen() bool {
	select {
	case <-r.done:
		return false
	default:
		return true
	}
}

// end closes both connections.
func (r *relay) end() { r.close(func(net.Conn) {}) }

// reset closes both connections the hard way, so that the peers see neither the rest of what is under way nor a goodbye.
func (r *relay) reset() { r.close(abortive) }

func (r *relay) close(first func(net.Conn)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return
	}
	r.ended = true
	close(r.done)
	for _, conn := range []net.Conn{r.client, r.server} {
		if conn != nil {
			first(conn)
			_ = conn.Close() // The aim is that it ends.
		}
	}
}

// abortive has closing a connection reset it.
func abortive(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // On failure, the connection is lost with a goodbye instead.
	}
}

// from returns the address from which the relay has connected to the server, empty until it has.
func (r *relay) from() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.server == nil {
		return ""
	}
	return r.server.LocalAddr().String()
}
