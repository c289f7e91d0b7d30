package pool

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// attemptDelay is for how long one address of a name is tried alone (RFC 8305, section 5).
const attemptDelay = 250 * time.Millisecond

// reach opens a connection to the dialer's address, by TCP unless another way was configured.
//
// A name's addresses are raced (RFC 8305, "happy eyeballs"): the families by turns, the next address when the one before has failed or has
// had its head start. [net.Dialer] races the families alone, and gives a dead address at least 2 s before it tries another of its family:
// as much as all of a dial has by default.
func (d *dialer) reach(ctx context.Context) (net.Conn, error) {
	if d.custom != nil {
		conn, err := d.custom(ctx, "tcp", d.addr)
		if err != nil {
			return nil, fmt.Errorf("dial %s: %w", d.addr, err)
		}
		return conn, nil
	}
	host, port, err := net.SplitHostPort(d.addr)
	if err != nil || host == "" {
		return d.connect(ctx, "tcp", d.addr) // which knows what to make of it
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return d.connect(ctx, "tcp", d.addr)
	}
	addrs, err := d.lookup(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("dial tcp %s: %w", d.addr, err)
	}
	return d.race(ctx, alternate(addrs), port)
}

// alternate reorders addresses, which come by preference, so that no two of a family follow each other while there are both.
func alternate(addrs []netip.Addr) []netip.Addr {
	var preferred, others []netip.Addr
	for _, addr := range addrs {
		addr = addr.Unmap()
		if len(preferred) == 0 || addr.Is4() == preferred[0].Is4() {
			preferred = append(preferred, addr)
		} else {
			others = append(others, addr)
		}
	}
	ordered := make([]netip.Addr, 0, len(addrs))
	for _, addr := range preferred {
		ordered = append(ordered, addr)
		if len(others) > 0 {
			ordered, others = append(ordered, others[0]), others[1:]
		}
	}
	return append(ordered, others...)
}

// race returns the first connection to come about, or the error of the preferred address. It ends and awaits the attempts that lost.
func (d *dialer) race(ctx context.Context, addrs []netip.Addr, port string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type finish struct {
		conn net.Conn
		err  error
	}
	var (
		finishes = make(chan finish, len(addrs))
		errs     = make([]error, len(addrs))
		started  int
		running  int
	)
	start := func() {
		at := started
		started++
		running++
		go func() {
			conn, err := d.connect(ctx, "tcp", net.JoinHostPort(addrs[at].String(), port))
			errs[at] = err // read when finishes has been
			finishes <- finish{conn, err}
		}()
	}
	headStart := time.NewTimer(attemptDelay)
	defer headStart.Stop()
	start()
	for running > 0 {
		select {
		case <-headStart.C:
		case got := <-finishes:
			running--
			if got.err == nil {
				cancel()
				for range running {
					if late := <-finishes; late.conn != nil {
						_ = late.conn.Close()
					}
				}
				return got.conn, nil
			}
		}
		if started < len(addrs) {
			start()
			headStart.Reset(attemptDelay)
		}
	}
	return nil, errs[0]
}
