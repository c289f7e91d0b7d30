// Command goplt runs, calls and inspects the platform's core services.
//
//	goplt demo                          everything at once, on this machine, in seconds
//	goplt serve                         the in-memory services, for development
//	goplt call auth.Login '{...}'       one call, as a client of the library makes it
//	goplt curl auth.Login '{...}'       the same call as a curl command
//	goplt resolve consul:///auth        what a registry knows
//	goplt config                        the effective configuration
//
// Results go to standard output, all else to standard error. It exits with 0, with 1 if the call failed, and with 2 if the usage or the
// configuration is wrong.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks to stop in good order; after that, signals act as they do by default, so a second one ends the process.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}
