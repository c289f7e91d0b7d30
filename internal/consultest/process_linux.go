package consultest

import (
	"os/exec"
	"syscall"
)

// endWithParent ends the agent also when the test process is killed, so that none is left behind.
func endWithParent(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
