package pool

import (
	"errors"
	"syscall"
)

// tcpUserTimeout is TCP_USER_TIMEOUT (tcp(7)), which package syscall does not name on all of its ports.
const tcpUserTimeout = 0x12

// boundUnacknowledged has the kernel close a connection whose peer does not acknowledge data.
func boundUnacknowledged(_, _ string, conn syscall.RawConn) error {
	var err error
	controlErr := conn.Control(func(descriptor uintptr) {
		err = syscall.SetsockoptInt(int(descriptor), syscall.IPPROTO_TCP, tcpUserTimeout, int(unacknowledgedTimeout.Milliseconds()))
	})
	if errors.Is(err, syscall.ENOPROTOOPT) || errors.Is(err, syscall.EOPNOTSUPP) {
		err = nil // as good as on a system without it
	}
	return errors.Join(controlErr, err)
}
