//go:build unix

package consultest

import "syscall"

// Pause stops the agent in whatever it does, as a machine that hangs: its connections stay open. See [Agent.Continue].
func (a *Agent) Pause() { a.signal(syscall.SIGSTOP) }

// Continue lets a paused agent go on.
func (a *Agent) Continue() { a.signal(syscall.SIGCONT) }

func (a *Agent) signal(signal syscall.Signal) {
	a.t.Helper()
	if err := a.process.Process.Signal(signal); err != nil {
		a.t.Fatalf("signal consul: %v", err)
	}
}
