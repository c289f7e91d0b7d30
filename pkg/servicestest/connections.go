package servicestest

import (
	"net"
	"sync"
)

// Listener returns a listener that accepts inner's connections and lets the faults drop them.
func (f *Faults) Listener(inner net.Listener) net.Listener {
	return &droppingListener{Listener: inner, conns: &f.conns}
}

// connections are the open connections of a server, by the address of the peer.
type connections struct {
	mu     sync.Mutex
	byPeer map[string]*droppableConn
}

func newConnections() connections { return connections{byPeer: make(map[string]*droppableConn)} }

type droppingListener struct {
	net.Listener

	conns *connections
}

// Accept implements [net.Listener].
func (l *droppingListener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	conn := &droppableConn{Conn: accepted, conns: l.conns, peer: accepted.RemoteAddr().String()}
	l.conns.mu.Lock()
	defer l.conns.mu.Unlock()
	l.conns.byPeer[conn.peer] = conn
	return conn, nil
}

type droppableConn struct {
	net.Conn

	conns *connections
	peer  string
}

// Close implements [net.Conn].
func (c *droppableConn) Close() error {
	c.conns.mu.Lock()
	if c.conns.byPeer[c.peer] == c {
		delete(c.conns.byPeer, c.peer)
	}
	c.conns.mu.Unlock()
	return c.Conn.Close()
}

// reset closes the connection the hard way where that is possible, so that the peer sees neither the rest of an answer nor a goodbye.
func (c *droppableConn) reset() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // On failure, the connection is lost with a goodbye instead.
	}
	_ = c.Close() // The aim is that it breaks.
}

// reset resets the connection of a peer, if there is one.
func (c *connections) reset(peer string) {
	c.mu.Lock()
	conn := c.byPeer[peer]
	c.mu.Unlock()
	if conn != nil {
		conn.reset()
	}
}

// resetAll resets all connections and returns how many there were.
func (c *connections) resetAll() int {
	c.mu.Lock()
	open := make([]*droppableConn, 0, len(c.byPeer))
	for _, conn := range c.byPeer {
		open = append(open, conn)
	}
	c.mu.Unlock()
	for _, conn := range open {
		conn.reset()
	}
	return len(open)
}
