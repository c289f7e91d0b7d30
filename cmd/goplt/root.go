package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"connectrpc.com/connect/v2"
	"github.com/spf13/cobra"

	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/services"
)

const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// usageError is what the person at the keyboard can mend: flags, arguments, configuration.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// command is what every subcommand shares: the streams, the environment and the common flags.
type command struct {
	environ []string
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer

	configPath string
	registry   string
	protocol   string
	output     string
	logLevel   string
}

// run executes the command and returns the exit code.
func run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &command{environ: environ, stdin: stdin, stdout: stdout, stderr: stderr}
	root := c.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	c.printError(err)
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	return exitFailed
}

func (c *command) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "goplt",
		Short:         "Run, call and inspect the platform's core services",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q; see goplt --help", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(c.stdin)
	root.SetOut(c.stdout)
	root.SetErr(c.stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	flags := root.PersistentFlags()
	flags.StringVar(&c.configPath, "config", "", "configuration `file`; $"+config.PathVariable+" if not given")
	flags.StringVar(&c.registry, "registry", "", "registry `URL`: consul://127.0.0.1:8500, or static://127.0.0.1:8080 for fixed addresses")
	flags.StringVar(&c.protocol, "protocol", "", "how to speak to instances: auto, grpc or http")
	flags.StringVar(&c.output, "output", "text", "form of the result: text or json")
	flags.StringVar(&c.logLevel, "log-level", "", "least important level to log: debug, info, warn or error")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		for _, flag := range []struct {
			name, value string
			allowed     []string
		}{
			{"output", c.output, []string{"text", "json"}},
			{"protocol", c.protocol, []string{"", "auto", "grpc", "http"}},
			{"log-level", c.logLevel, []string{"", "debug", "info", "warn", "error"}},
		} {
			if !slices.Contains(flag.allowed, flag.value) {
				return usagef("--%s %q is not one of %s", flag.name, flag.value, strings.TrimPrefix(strings.Join(flag.allowed, ", "), ", "))
			}
		}
		return nil
	}
	root.Version = buildVersion().Version
	for flag, values := range map[string][]string{
		"output": {"text", "json"}, "protocol": {"auto", "grpc", "http"}, "log-level": {"debug", "info", "warn", "error"},
		"registry": {"consul://127.0.0.1:8500", "static://127.0.0.1:8080"},
	} {
		complete := cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
		if err := root.RegisterFlagCompletionFunc(flag, complete); err != nil {
			panic(err) // the flag is defined above
		}
	}
	root.AddCommand(c.demoCommand(), c.serveCommand(), c.callCommand(), c.resolveCommand(), c.curlCommand(), c.configCommand(), c.versionCommand())
	return root
}

// load returns the configuration that the flags, the environment and the file make together.
func (c *command) load() (*config.Config, error) {
	path := c.configPath
	if path == "" {
		for _, variable := range c.environ {
			if value, ok := strings.CutPrefix(variable, config.PathVariable+"="); ok {
				path = value
			}
		}
	}
	loaded, err := config.Load(path, c.environ)
	if err != nil {
		return nil, usageError{err}
	}
	if c.protocol != "" {
		chosen := rpc.Protocol(c.protocol)
		loaded.Defaults.Protocol = chosen
		for name, service := range loaded.Services {
			service.Client.Protocol = chosen
			loaded.Services[name] = service
		}
	}
	for _, name := range services.Names() {
		if loaded.Client(name).Protocol == rpc.ProtocolInProcess {
			return nil, usagef("protocol inprocess of service %s: the command calls over a network; want auto, grpc or http", name)
		}
	}
	if c.logLevel != "" {
		loaded.Log.Level = c.logLevel
	}
	if c.registry != "" {
		if err := useRegistry(loaded, c.registry); err != nil {
			return nil, err
		}
	}
	return loaded, nil
}

func (c *command) logger(loaded *config.Config) *slog.Logger {
	return slog.New(loaded.Log.Handler(c.stderr))
}

// printError shows an error in the form asked for.
func (c *command) printError(err error) {
	remote, isCall := errors.AsType[*connect.Error](err)
	if c.output != "json" || !isCall {
		_, _ = fmt.Fprintf(c.stderr, "goplt: %v\n", err)
		return
	}
	type attempt struct {
		Instance string `json:"instance"`
		Addr     string `json:"addr"`
		Protocol string `json:"protocol"`
		Verdict  string `json:"verdict"`
		Code     string `json:"code"`
		Duration string `json:"duration"`
		Error    string `json:"error"`
	}
	shown := struct {
		Code     string    `json:"code"`
		Message  string    `json:"message"`
		Attempts []attempt `json:"attempts,omitempty"`
	}{Code: remote.Code().String(), Message: remote.Message()}
	if call, ok := errors.AsType[*rpc.CallError](err); ok {
		for _, a := range call.Attempts {
			shown.Attempts = append(shown.Attempts, attempt{
				a.Instance, a.Addr, string(a.Protocol), a.Verdict, a.Code.String(), a.Duration.String(), a.Err.Error(),
			})
		}
	}
	_ = printJSON(c.stderr, shown) // there is nowhere left to complain to
}

func printJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}
