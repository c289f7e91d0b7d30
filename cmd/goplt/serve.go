package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"

	"connectrpc.com/connect/v2"
	"github.com/spf13/cobra"

	"github.com/0x1d/goplt"
	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/services"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// developmentSecret makes the tokens of one instance valid at another. It is public, as is everything that goplt serve holds.
const developmentSecret = "goplt serve: for development only" //nolint:gosec // public on purpose, as said above

func (c *command) serveCommand() *cobra.Command {
	var names []string
	var listen string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Host the in-memory core services, for development",
		Long: "Host the in-memory core services with demonstration data, and print the address. For development: what they hold is lost at the end.\n" +
			"Several instances accept each other's access tokens but share no other data. They register in Consul if --registry or the\n" +
			"configuration names it. Mail that a service would send is printed to standard error.",
		Example: "  goplt serve\n  goplt serve --services auth,identity --listen 127.0.0.1:0 --registry consul://127.0.0.1:8500",
		Args:    between(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			loaded, err := c.load()
			if err != nil {
				return err
			}
			if listen != "" {
				loaded.Server.Listen = listen
				// The rest of the section was valid when it was loaded.
				if key, ok := errors.AsType[*rpc.KeyError](loaded.Server.Validate()); ok {
					return usagef("--listen %v is not %s, such as 127.0.0.1:8080", key.Value, key.Want)
				}
			}
			return c.serve(cmd.Context(), loaded, names)
		},
	}
	cmd.Flags().StringSliceVar(&names, "services", services.Names(), "services to host")
	cmd.Flags().StringVar(&listen, "listen", "", "`address` to listen on, host:port; port 0 picks a free one (default server.listen)")
	return cmd
}

func (c *command) serve(ctx context.Context, loaded *config.Config, names []string) error {
	logger := c.logger(loaded)
	var listening atomic.Bool // before that, mail is kept in the outbox, so that an error stands alone
	deliver := func(message servicestest.Message) {
		if listening.Load() {
			_, _ = fmt.Fprintf(c.stderr, "mail to %s: %s token %s\n", message.To, message.Kind, message.Token)
		}
	}
	platform := servicestest.NewPlatform(servicestest.WithSecret(developmentSecret), servicestest.WithDemoData(), servicestest.WithDelivery(deliver))
	handlers, err := host(platform, names, logger)
	if err != nil {
		return err
	}
	options := []rpc.ServerOption{rpc.WithServerConfig(loaded.Server), rpc.WithServerLogger(logger)}
	reg, closeRegistry, err := c.registerWith(loaded, logger)
	if err != nil {
		return usageError{err}
	}
	defer closeRegistry()
	if reg != nil {
		options = append(options, rpc.WithRegistration(reg, names...))
	}
	server, err := rpc.NewServer(handlers, options...)
	if err != nil {
		return usageError{err}
	}
	if err := server.Start(ctx); err != nil {
		return err
	}
	if c.output == "json" {
		err = printJSON(c.stdout, map[string]string{"addr": server.Addr()})
	} else {
		_, err = fmt.Fprintf(c.stdout, "listening on %s\n", server.Addr())
	}
	if err != nil {
		return errors.Join(err, server.Stop(context.WithoutCancel(ctx)))
	}
	listening.Store(true)
	for _, message := range platform.Outbox() {
		deliver(message)
	}
	logger.Info("serving", "services", strings.Join(names, ","), "addr", server.Addr(), "registered", reg != nil)
	<-ctx.Done()
	logger.Info("stopping")
	if err := server.Stop(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	logger.Info("stopped")
	return nil
}

// registerWith opens the registry to register with, or returns nil if none was asked for: a configuration file, a variable or a flag has to
// name it, because the default, a Consul agent on this machine, is often not there in development.
func (c *command) registerWith(loaded *config.Config, logger *slog.Logger) (registry.ServiceRegistry, func(), error) {
	chosen := c.registry != "" || loaded.Source("discovery.provider") != "default" || loaded.Source("discovery.consul.address") != "default"
	switch {
	case !chosen:
		return nil, func() {}, nil
	case loaded.Discovery.Provider == config.ProviderMemory:
		return nil, nil, usagef("%s is memory, in which only this process would find its servers; %s", c.registrySource(loaded), wantConsul)
	case loaded.Discovery.Provider != config.ProviderConsul && c.registry != "":
		return nil, nil, usagef("a %s registry registers no server: want --registry consul://HOST:PORT, or none", loaded.Discovery.Provider)
	case loaded.Discovery.Provider != config.ProviderConsul:
		return nil, nil, usagef("%s is %s, which registers no server; %s", c.registrySource(loaded), loaded.Discovery.Provider, wantConsul)
	}
	return goplt.NewRegistry(loaded, goplt.WithLogger(logger))
}

// wantConsul says where goplt serve registers.
const wantConsul = "want consul, or --registry consul://HOST:PORT, or to serve without registering, no discovery.provider"

// host registers the handlers of the platform's services by name.
func host(platform *servicestest.Platform, names []string, logger *slog.Logger) (*connect.Server, error) {
	handlers := connect.NewServer()
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return nil, usagef("--services names %q twice", name)
		}
		switch name {
		case services.AuthService:
			goplt.RegisterAuthService(handlers, platform.Auth(), logger)
		case services.IdentityService:
			goplt.RegisterIdentityService(handlers, platform.Identity(), logger)
		case services.AuthzService:
			goplt.RegisterAuthzService(handlers, platform.Authz(), logger)
		case services.AuditService:
			goplt.RegisterAuditService(handlers, platform.Audit(), logger)
		default:
			return nil, usagef("--services: unknown service %q; known services: %s", name, strings.Join(services.Names(), ", "))
		}
	}
	if len(names) == 0 {
		return nil, usagef("--services is empty; known services: %s", strings.Join(services.Names(), ", "))
	}
	return handlers, nil
}
