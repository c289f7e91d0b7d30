package pool

import (
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// TestLostPeerIsNoticed: the kernel gives a peer that is gone 15 s, whether the connection is idle or waits for an acknowledgement.
func TestLostPeerIsNoticed(t *testing.T) {
	t.Parallel()
	t.Run("by address", func(t *testing.T) {
		t.Parallel()
		expectKeepAlive(t, newTestPool(t, silentPeer(t).Addr().String()))
	})
	t.Run("by name", func(t *testing.T) {
		t.Parallel()
		expectKeepAlive(t, named(t, silentPeer(t).Addr().String(), netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("100::1")))
	})
}

func expectKeepAlive(t *testing.T, p *Pool) {
	t.Helper()
	conn, err := p.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	raw, err := conn.observed.Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	option := func(level, name int) (value int) {
		if controlErr := raw.Control(func(descriptor uintptr) {
			value, err = syscall.GetsockoptInt(int(descriptor), level, name)
		}); controlErr != nil || err != nil {
			t.Fatal(controlErr, err)
		}
		return value
	}
	if got := time.Duration(option(syscall.IPPROTO_TCP, tcpUserTimeout)) * time.Millisecond; got != 14*time.Second {
		t.Errorf("unacknowledged data may wait for %v, want 14s", got)
	}
	keepAlive := option(syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE) +
		option(syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL)*option(syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT)
	if keepAlive != 14 || option(syscall.SOL_SOCKET, syscall.SO_KEEPALIVE) != 1 {
		t.Errorf("an idle connection may be dead for %d s, want 14", keepAlive)
	}
}
