// Command conformance is what the Connect conformance suite (https://github.com/connectrpc/conformance) puts to the test: a client that makes
// the suite's calls through [rpc.Transport], with its target, pool, breakers and retries, and a server that answers them on [rpc.Server].
//
//	connectconformance                                  the suite: what to do, and what has to come of it
//	  --mode client: reference servers  ◀── calls ───   conformance client -protocol grpc|http|auto
//	  --mode server: reference clients  ─── calls ──▶   conformance server
//
// Either speaks with the suite by messages on stdin and stdout. `go test` runs them all, and says what the suite said where it does not
// hold. What each way of speaking claims to support, and why not more, stands in testdata, beside the cases that are known to fail.
//
// It is a module of its own because the suite brings dependencies that the library must not have. To look at single cases:
//
//	go build -o /tmp/peer . && go tool connectconformance --mode client --conf testdata/client-grpc.yaml --trace -v \
//	  --run 'Timeouts/**' -- /tmp/peer client -protocol grpc
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/0x1d/goplt/pkg/rpc"
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run plays the part that arguments name until the suite has had enough of it, and returns the exit code: a client is through when its stdin
// is, a server when it gets SIGTERM.
func run(arguments []string, stdin io.Reader, stdout, stderr io.Writer) int {
	part := ""
	if len(arguments) > 0 {
		part, arguments = arguments[0], arguments[1:]
	}
	flags := flag.NewFlagSet("conformance "+part, flag.ContinueOnError)
	flags.SetOutput(stderr)
	var play func(context.Context, io.Reader, io.Writer) error
	switch part {
	case "server":
		play = runServer
	case "client":
		protocol := flags.String("protocol", string(rpc.ProtocolAuto), "protocol of the client's configuration: auto, grpc or http")
		play = func(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
			return runClient(ctx, rpc.Protocol(*protocol), stdin, stdout)
		}
	default:
		fmt.Fprintln(stderr, "usage: conformance client|server [flags]")
		return exitUsage
	}
	if err := flags.Parse(arguments); err != nil {
		return exitUsage
	}
	if err := play(context.Background(), stdin, stdout); err != nil {
		fmt.Fprintf(stderr, "conformance %s: %v\n", part, err)
		return 1
	}
	return 0
}

const exitUsage = 2
