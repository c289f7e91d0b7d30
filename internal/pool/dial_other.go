//go:build !linux

package pool

import "syscall"

// boundUnacknowledged does nothing: this system has no limit of its own for a peer that does not acknowledge data, or another one.
func boundUnacknowledged(_, _ string, _ syscall.RawConn) error { return nil }
