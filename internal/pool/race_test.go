package pool

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAlternate(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ addrs, want string }{
		{"10.0.0.1", "10.0.0.1"},
		{"2001:db8::1 2001:db8::2 10.0.0.1 10.0.0.2 10.0.0.3", "2001:db8::1 10.0.0.1 2001:db8::2 10.0.0.2 10.0.0.3"},
		{"10.0.0.1 10.0.0.2 10.0.0.3 2001:db8::1", "10.0.0.1 2001:db8::1 10.0.0.2 10.0.0.3"},
		{"::ffff:10.0.0.1 2001:db8::1", "10.0.0.1 2001:db8::1"},
	} {
		var addrs []netip.Addr
		for text := range strings.FieldsSeq(row.addrs) {
			addrs = append(addrs, netip.MustParseAddr(text))
		}
		var got []string
		for _, addr := range alternate(addrs) {
			got = append(got, addr.String())
		}
		if strings.Join(got, " ") != row.want {
			t.Errorf("%s: got %v, want %s", row.addrs, got, row.want)
		}
	}
}

// raceConn is a connection that says whether it was closed.
type raceConn struct {
	net.Conn

	addr   string
	closed bool
}

func (c *raceConn) Close() error {
	c.closed = true
	return nil
}

// TestRace: which of a name's addresses is taken, and after what time.
func TestRace(t *testing.T) {
	t.Parallel()
	const (
		never   = time.Hour
		v6, v6b = "[2001:db8::1]:80", "[2001:db8::2]:80"
		v4, v4b = "10.0.0.1:80", "10.0.0.2:80"
	)
	type behaviour struct {
		takes  time.Duration
		refuse bool
	}
	for name, row := range map[string]struct {
		addrs []string // as the resolver prefers them
		does  map[string]behaviour
		want  string // the address taken, or the error
		after time.Duration
	}{
		"the first answers":                      {[]string{v6, v4}, map[string]behaviour{v6: {takes: 100 * time.Millisecond}}, v6, 100 * time.Millisecond},
		"a black hole, the other family":         {[]string{v6, v4}, map[string]behaviour{v6: {takes: never}}, v4, attemptDelay},
		"a black hole, the same family":          {[]string{v4, v4b}, map[string]behaviour{v4: {takes: never}}, v4b, attemptDelay},
		"a black hole, the other family first":   {[]string{v6, v6b, v4}, map[string]behaviour{v6: {takes: never}, v6b: {takes: never}}, v4, attemptDelay},
		"three black holes":                      {[]string{v6, v6b, v4, v4b}, map[string]behaviour{v6: {takes: never}, v6b: {takes: never}, v4: {takes: never}}, v4b, 3 * attemptDelay},
		"refused at once":                        {[]string{v4, v4b}, map[string]behaviour{v4: {refuse: true}}, v4b, 0},
		"refused after a while":                  {[]string{v4, v4b}, map[string]behaviour{v4: {takes: 100 * time.Millisecond, refuse: true}}, v4b, 100 * time.Millisecond},
		"slow, but before the other":             {[]string{v4, v4b}, map[string]behaviour{v4: {takes: 300 * time.Millisecond}, v4b: {takes: 100 * time.Millisecond}}, v4, 300 * time.Millisecond},
		"refused while the other is under way":   {[]string{v4, v4b}, map[string]behaviour{v4: {takes: 300 * time.Millisecond, refuse: true}, v4b: {takes: 100 * time.Millisecond}}, v4b, 350 * time.Millisecond},
		"all refused: the preferred one's error": {[]string{v4, v6}, map[string]behaviour{v4: {takes: 300 * time.Millisecond, refuse: true}, v6: {refuse: true}}, "refused by " + v4, 300 * time.Millisecond},
		"black holes alone: the dial's time":     {[]string{v4, v6}, map[string]behaviour{v4: {takes: never}, v6: {takes: never}}, "context deadline exceeded", 2 * time.Second},
		"no address":                             {nil, nil, "dial tcp db.test:80: lookup db.test: no such host", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := newDialer(Config{Kind: HTTP1, Addr: "db.test:80", DialTimeout: 2 * time.Second}, nil)
				d.lookup = func(_ context.Context, network, host string) ([]netip.Addr, error) {
					if network != "ip" || host != "db.test" {
						t.Errorf("lookup of %s %s", network, host)
					}
					if len(row.addrs) == 0 {
						return nil, &net.DNSError{Err: "no such host", Name: host}
					}
					var addrs []netip.Addr
					for _, addr := range row.addrs {
						addrs = append(addrs, netip.MustParseAddrPort(addr).Addr())
					}
					return addrs, nil
				}
				var opened []*raceConn
				done := make(chan *raceConn, 10)
				d.connect = func(ctx context.Context, _, addr string) (net.Conn, error) {
					does := row.does[addr]
					attempt, cancel := context.WithTimeout(ctx, does.takes)
					defer cancel()
					<-attempt.Done()
					if ctx.Err() != nil {
						return nil, ctx.Err()
					}
					if does.refuse {
						return nil, errors.New("refused by " + addr)
					}
					conn := &raceConn{addr: addr}
					done <- conn
					return conn, nil
				}
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				conn, err := d.reach(ctx)
				took := time.Since(began)
				close(done)
				for conn := range done {
					opened = append(opened, conn)
				}
				got := fmt.Sprint(err)
				if err == nil {
					got = conn.(*raceConn).addr
				}
				if got != row.want || took != row.after {
					t.Errorf("got %s after %v, want %s after %v", got, took, row.want, row.after)
				}
				opened = slices.DeleteFunc(opened, func(conn *raceConn) bool { return conn.closed })
				if err == nil && (len(opened) != 1 || opened[0].addr != row.want) || err != nil && len(opened) > 0 {
					t.Errorf("left open: %v", opened)
				}
			})
		})
	}
}
