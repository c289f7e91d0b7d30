package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/0x1d/goplt"
	"github.com/0x1d/goplt/pkg/rpc"
)

func (c *command) callCommand() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "call SERVICE.Method [JSON]",
		Short: "Call a method of a core service, as a client of the library does",
		Long: "Call a method of a core service through the whole library: discovery, balancing, protocol choice, retries.\n" +
			"The request is JSON in the protobuf mapping, from the argument or, given as -, from standard input.",
		Example: `  goplt call auth.Login '{"email":"ada@example.com","password":"correct horse battery staple"}' --registry static://127.0.0.1:8080`,
		Args:    between(1, 2),

		ValidArgsFunction: completeProcedure,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if timeout < 0 {
				return usagef("--timeout %v is negative", timeout)
			}
			if timeout > 0 {
				bounded, cancel := context.WithTimeout(ctx, timeout)
				defer cancel()
				ctx = bounded
			}
			return c.call(ctx, args)
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "how long the whole call may take; the configured timeout if not given")
	return cmd
}

func (c *command) call(ctx context.Context, args []string) error {
	procedure, err := parseProcedure(args[0])
	if err != nil {
		return err
	}
	request, err := procedure.request(args[1:], c.stdin)
	if err != nil {
		return err
	}
	loaded, err := c.load()
	if err != nil {
		return err
	}
	registry, closeRegistry, err := goplt.NewRegistry(loaded, goplt.WithLogger(c.logger(loaded)))
	if err != nil {
		return usageError{err}
	}
	defer closeRegistry()
	transport, err := goplt.NewTransport(loaded, registry, procedure.service) // what it would log is in the error, or of no interest to one call
	if err != nil {
		return usageError{err}
	}
	defer func() { _ = transport.Close() }()
	response := procedure.response()
	if err := connect.NewClient(transport).CallUnary(ctx, procedure.spec(), request, response); err != nil {
		if errors.Is(err, rpc.ErrNoInstances) && loaded.Source("discovery.provider") == "default" && c.registry == "" {
			return fmt.Errorf("%s: %w; name the registry by --registry, such as static://127.0.0.1:8080 for a server at an address", procedure.name(), err)
		}
		return fmt.Errorf("%s: %w", procedure.name(), err)
	}
	text, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(response)
	if err != nil {
		return fmt.Errorf("show the answer: %w", err)
	}
	// protojson varies its white space on purpose; scripts want the same text each time.
	var shown bytes.Buffer
	if c.output == "json" {
		err = json.Compact(&shown, text)
	} else {
		err = json.Indent(&shown, text, "", "  ")
	}
	if err != nil {
		return fmt.Errorf("show the answer: %w", err)
	}
	_, err = fmt.Fprintln(c.stdout, shown.String())
	return err
}

// completeProcedure offers the shell the names of all procedures.
func completeProcedure(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if len(args) == 0 {
		for _, known := range procedures() {
			names = append(names, known.name())
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// between returns an argument check whose errors are errors of usage.
func between(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return usagef("want %s, got %d arguments", cmd.UseLine(), len(args))
		}
		return nil
	}
}
