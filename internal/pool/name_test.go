package pool

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// startDNS serves one name by DNS over UDP, and returns a resolver that asks nobody else.
func startDNS(t *testing.T, name string, addrs ...netip.Addr) *net.Resolver {
	t.Helper()
	socket, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		buffer := make([]byte, 1500)
		for {
			n, from, err := socket.ReadFrom(buffer)
			if err != nil {
				return
			}
			answer, err := answerDNS(buffer[:n], name, addrs)
			if err != nil {
				t.Errorf("DNS query: %v", err)
				continue
			}
			_, _ = socket.WriteTo(answer, from)
		}
	})
	t.Cleanup(func() {
		_ = socket.Close()
		serving.Wait()
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", socket.LocalAddr().String())
	}}
}

func answerDNS(query []byte, name string, addrs []netip.Addr) ([]byte, error) {
	var message dnsmessage.Message
	if err := message.Unpack(query); err != nil {
		return nil, err
	}
	asked := message.Questions[0]
	message.Response, message.Authoritative, message.Additionals = true, true, nil
	if asked.Name.String() != name {
		message.RCode = dnsmessage.RCodeNameError
		return message.Pack()
	}
	for _, addr := range addrs {
		header := dnsmessage.ResourceHeader{Name: asked.Name, Type: asked.Type, Class: asked.Class, TTL: 1}
		switch {
		case addr.Is4() && asked.Type == dnsmessage.TypeA:
			message.Answers = append(message.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: addr.As4()}})
		case addr.Is6() && asked.Type == dnsmessage.TypeAAAA:
			message.Answers = append(message.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}})
		}
	}
	return message.Pack()
}

// named returns a pool of connections to the host instance.test, whose addresses are those given. All but the one of the peer are black
// holes: an attempt on one hangs until it is called off.
func named(t *testing.T, peer string, addrs ...netip.Addr) *Pool {
	t.Helper()
	alive := netip.MustParseAddrPort(peer)
	p := newTestPool(t, fmt.Sprintf("instance.test.:%d", alive.Port()))
	p.dialer.lookup = startDNS(t, "instance.test.", addrs...).LookupNetIP
	p.dialer.net.ControlContext = func(ctx context.Context, network, addr string, conn syscall.RawConn) error {
		if addr != peer {
			<-ctx.Done()
			return ctx.Err()
		}
		return p.dialer.net.Control(network, addr, conn)
	}
	return p
}

// TestName: a name with addresses of which only the last is there costs the head starts of the others, far less than a dial may take, and
// the connection is as any other.
func TestName(t *testing.T) {
	t.Parallel()
	local, other, blackHole := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("100::1") // RFC 6666
	for name, addrs := range map[string][]netip.Addr{
		"one address":             {local},
		"both families":           {blackHole, local},
		"two of a family":         {other, local},
		"two and another family":  {other, local, blackHole},
		"two dead of the other":   {blackHole, netip.MustParseAddr("100::2"), local},
		"preferred by the server": {local, blackHole},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listener := silentPeer(t)
			p := named(t, listener.Addr().String(), addrs...)
			began := time.Now()
			conn, err := p.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Release()
			if took := time.Since(began); took > 5*time.Second { // of the 10 s that a dial may take
				t.Errorf("took %v", took)
			}
			if remote := conn.observed.RemoteAddr().String(); remote != listener.Addr().String() {
				t.Errorf("connected to %s", remote)
			}
		})
	}
}

// TestNameUnknown: the error says what was looked up, and is of the type that net's own is.
func TestNameUnknown(t *testing.T) {
	t.Parallel()
	p := named(t, "127.0.0.1:1")
	p.dialer.addr = "stranger.test.:1"
	_, err := p.Acquire(t.Context())
	if unknown, ok := errors.AsType[*net.DNSError](err); !ok || !unknown.IsNotFound || !strings.HasPrefix(err.Error(), "dial tcp stranger.test.:1: lookup stranger.test.") {
		t.Errorf("got %v", err)
	}
}
