package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/0x1d/goplt"
	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/pkg/registry"
)

func (c *command) curlCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "curl SERVICE.Method [JSON]",
		Short:   "Print the curl command that makes a call",
		Long:    "Print the curl command that makes a call to one of the service's instances by Connect with JSON over HTTP.",
		Example: `  goplt curl auth.ValidateToken '{"token":"..."}' --registry static://127.0.0.1:8080`,
		Args:    between(1, 2),

		ValidArgsFunction: completeProcedure,
		RunE:              func(cmd *cobra.Command, args []string) error { return c.curl(cmd.Context(), args) },
	}
}

func (c *command) curl(ctx context.Context, args []string) error {
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
	found, err := c.resolveOnce(ctx, loaded, loaded.Target(procedure.service))
	if err != nil {
		return err
	}
	var body bytes.Buffer
	text, err := protojson.Marshal(request)
	if err == nil {
		err = json.Compact(&body, text)
	}
	if err != nil {
		return fmt.Errorf("write the request as JSON: %w", err)
	}
	security := loaded.Client(procedure.service).TLS
	line := []string{"curl", "--silent", "--show-error", "--header", quote("Content-Type: application/json"), "--data", quote(body.String())}
	base := "http://" + found[0].Addr()
	if security.Enabled {
		base = "https://" + found[0].Addr()
		for _, option := range []struct{ flag, file string }{
			{"--cacert", security.CAFile}, {"--cert", security.CertFile}, {"--key", security.KeyFile},
		} {
			if option.file != "" {
				line = append(line, option.flag, quote(option.file))
			}
		}
		if security.ServerName != "" {
			named := net.JoinHostPort(security.ServerName, strconv.Itoa(found[0].Port))
			line = append(line, "--connect-to", quote(named+":"+found[0].Addr()))
			base = "https://" + named
		}
	}
	line = append(line, quote(base+procedure.path()))
	_, err = fmt.Fprintln(c.stdout, strings.Join(line, " "))
	return err
}

// resolveOnce returns the current instances of a target, of which there is at least one.
func (c *command) resolveOnce(ctx context.Context, loaded *config.Config, text string) ([]registry.Instance, error) {
	target, err := registry.ParseTarget(text)
	if err != nil {
		return nil, usageError{err}
	}
	reg, closeRegistry, err := goplt.NewRegistry(loaded, goplt.WithLogger(c.logger(loaded)))
	if err != nil {
		return nil, usageError{err}
	}
	defer closeRegistry()
	watcher, err := reg.Watch(target)
	if err != nil {
		return nil, usageError{c.explainTarget(loaded, reg, text, err)}
	}
	defer func() { _ = watcher.Close() }()
	if timeout := loaded.Defaults.Timeout; timeout > 0 {
		bounded, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		ctx = bounded
	}
	found, err := watcher.Next(ctx)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", target, err)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("resolve %s: no instances", target)
	}
	return found, nil
}

// quote makes text one word of a POSIX shell.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
