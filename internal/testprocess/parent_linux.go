package testprocess

import (
	"os/exec"
	"syscall"
)

// EndWithParent has a command that is started end also when the test process is killed, so that none is left behind.
func EndWithParent(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
