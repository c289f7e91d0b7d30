package pool_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/0x1d/goplt/internal/pool"
)

// memoryPeer is a peer whose connections are in memory, so that a test in a synctest bubble decides over time.
type memoryPeer struct {
	accepted atomic.Int64
	open     atomic.Int64
	script   func(number int64, conn net.Conn) error
	ended    chan error // what each script returned
	// refuse, if set, fails a dial.
	refuse func() error
	dials  chan time.Time // when each dial began
}

// newMemoryPeer returns a peer that serves each connection by a script, as startPeer does.
func newMemoryPeer(script func(number int64, conn net.Conn) error) *memoryPeer {
	return &memoryPeer{script: script, ended: make(chan error, 10000), dials: make(chan time.Time, 10000)}
}

// newPool returns a pool of the peer's, which the bubble closes.
func (m *memoryPeer) newPool(t *testing.T, config pool.Config) *pool.Pool {
	t.Helper()
	config.Dial = m.connect
	p := pool.New(config)
	t.Cleanup(p.Close)
	return p
}

func (m *memoryPeer) connect(ctx context.Context, _, _ string) (net.Conn, error) {
	m.dials <- time.Now()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if m.refuse != nil {
		if err := m.refuse(); err != nil {
			return nil, err
		}
	}
	toPeer, toClient := newMemoryPipe(), newMemoryPipe()
	conn := &memoryConn{in: toPeer, out: toClient}
	number := m.accepted.Add(1)
	m.open.Add(1)
	go func() { // ends with the connection, which the pool closes
		defer m.open.Add(-1)
		defer func() { _ = conn.Close() }()
		m.ended <- m.script(number, conn)
	}()
	return &memoryConn{in: toClient, out: toPeer}, nil
}

// memoryConn is one end of a connection with a buffer for each direction.
type memoryConn struct{ in, out *memoryPipe }

func (c *memoryConn) Read(b []byte) (int, error)  { return c.in.read(b) }
func (c *memoryConn) Write(b []byte) (int, error) { return c.out.write(b) }

func (c *memoryConn) Close() error {
	c.in.close(net.ErrClosed, io.ErrClosedPipe)
	c.out.close(io.EOF, net.ErrClosed)
	return nil
}

func (c *memoryConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *memoryConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *memoryConn) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (c *memoryConn) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (c *memoryConn) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

// memoryPipeSize is what a pipe takes before its writer has to wait for its reader.
const memoryPipeSize = 64 << 10

type memoryPipe struct {
	mu                sync.Mutex
	changed           *sync.Cond
	data              []byte
	readErr, writeErr error // nil until closed
}

func newMemoryPipe() *memoryPipe {
	p := new(memoryPipe)
	p.changed = sync.NewCond(&p.mu)
	return p
}

func (p *memoryPipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.data) == 0 && p.readErr == nil {
		p.changed.Wait()
	}
	if p.readErr != nil && (len(p.data) == 0 || !errors.Is(p.readErr, io.EOF)) {
		return 0, p.readErr
	}
	n := copy(b, p.data)
	p.data = p.data[n:]
	p.changed.Broadcast()
	return n, nil
}

func (p *memoryPipe) write(b []byte) (written int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(b) > 0 {
		for len(p.data) == memoryPipeSize && p.writeErr == nil {
			p.changed.Wait()
		}
		if p.writeErr != nil {
			return written, p.writeErr
		}
		n := min(len(b), memoryPipeSize-len(p.data))
		p.data = append(p.data, b[:n]...)
		b, written = b[n:], written+n
		p.changed.Broadcast()
	}
	return written, nil
}

// close ends the pipe for both sides; the first to close says how.
func (p *memoryPipe) close(read, write error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.readErr == nil {
		p.readErr, p.writeErr = read, write
		p.changed.Broadcast()
	}
}

// answering greets and answers each request at once, over either kind.
func answering(kind pool.Kind) func(int64, net.Conn) error {
	if kind == pool.HTTP1 {
		return func(_ int64, conn net.Conn) error {
			for {
				if err := serveOnce(conn); err != nil {
					return ended(err)
				}
			}
		}
	}
	return func(_ int64, conn net.Conn) error {
		s, err := greet(conn)
		if err != nil {
			return ended(err)
		}
		return ended(s.answerAll())
	}
}

// ended takes the end of a connection for no error.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) ||
		errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return err
}
