package servicestest

import (
	"errors"
	"fmt"
	"syscall"
)

// dropPackets has the kernel drop all packets for a socket, which is a [syscall.Conn], by a filter at the socket, for which Linux asks no
// privileges. A listener's filter drops those that would open a connection.
func dropPackets(socket any) error {
	const returnConstant = 0x06 // BPF_RET | BPF_K
	return control(socket, func(fd int) error {
		//nolint:staticcheck // what replaces it would be one more dependency
		return syscall.AttachLsf(fd, []syscall.SockFilter{{Code: returnConstant, K: 0}}) // Keeps no byte of any packet.
	})
}

// passPackets undoes dropPackets.
func passPackets(socket any) error {
	return control(socket, func(fd int) error {
		err := syscall.DetachLsf(fd) //nolint:staticcheck // as above
		if errors.Is(err, syscall.ENOENT) {
			return nil // There was none.
		}
		return err
	})
}

func control(socket any, do func(fd int) error) error {
	conn, ok := socket.(syscall.Conn)
	if !ok {
		return fmt.Errorf("a %T has no descriptor", socket)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = do(int(fd)) })
	return errors.Join(err, failed)
}
