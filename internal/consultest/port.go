package consultest

import (
	"io"
	"net"
	"net/netip"
)

// freePorts returns ports of an address of this machine that are free for TCP and UDP, at this moment.
func freePorts(t T, host string, count int) []int {
	t.Helper()
	var config net.ListenConfig
	var held []io.Closer // until the end, so that no port is found twice
	defer func() {
		for _, listener := range held {
			_ = listener.Close()
		}
	}()
	ports := make([]int, 0, count)
	for len(ports) < count {
		listener, err := config.Listen(t.Context(), "tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatalf("find a free port: %v", err)
		}
		held = append(held, listener)
		packets, err := config.ListenPacket(t.Context(), "udp", listener.Addr().String()) // gossip needs both
		if err != nil {
			continue
		}
		held = append(held, packets)
		ports = append(ports, int(netip.MustParseAddrPort(listener.Addr().String()).Port()))
	}
	return ports
}
