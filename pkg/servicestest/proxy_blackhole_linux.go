package servicestest

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
	"unsafe"
)

// dropPackets has the kernel drop all packets for a socket, which is a [syscall.Conn], by a filter at the socket, for which Linux asks no
// privileges. A listener's filter drops those that would open a connection.
//
// What a connection has sent is let be acknowledged first. The kernel would repeat it for as long as it is not, and tell the client of a life that a
// peer which is gone has not.
func dropPackets(socket any) error {
	if conn, ok := socket.(net.Conn); ok {
		if err := awaitAcknowledged(conn); err != nil {
			return err
		}
	}
	const returnConstant = 0x06 // BPF_RET | BPF_K
	return control(socket, func(fd int) error {
		//nolint:staticcheck // what replaces it would be one more dependency
		return syscall.AttachLsf(fd, []syscall.SockFilter{{Code: returnConstant, K: 0}}) // Keeps no byte of any packet.
	})
}

// acknowledgement is how long a client may take to acknowledge what it was sent; Linux' own takes 40 to 200 ms to do so unasked.
const acknowledgement = time.Second

func awaitAcknowledged(conn net.Conn) error {
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for began := time.Now(); time.Since(began) < acknowledgement; <-look.C {
		var waiting int32
		err := control(conn, func(fd int) error {
			_, _, failed := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TIOCOUTQ,
				uintptr(unsafe.Pointer(&waiting))) //nolint:gosec // The kernel writes an int there: ioctl_tty(2).
			if failed != 0 {
				return failed
			}
			return nil
		})
		if err != nil || waiting == 0 {
			return err
		}
	}
	return nil // The client's own way is lost, or it sends as fast as it is sent to.
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
