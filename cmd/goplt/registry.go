package main

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/services"
)

// useRegistry has the configuration find services in the registry at a URL.
func useRegistry(loaded *config.Config, text string) error {
	const want = "want consul://HOST:PORT or static://HOST:PORT,HOST:PORT"
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return usagef("--registry %q is not a URL; %s", text, want)
	}
	switch scheme {
	case "consul":
		parsed, err := url.Parse(text)
		if err != nil {
			return usagef("--registry %q: %w; %s", text, errors.Unwrap(err), want)
		}
		if parsed.Path != "" && parsed.Path != "/" || parsed.RawQuery != "" || parsed.User != nil {
			return usagef("--registry %q has more than an address; %s", text, want)
		}
		loaded.Discovery.Provider = config.ProviderConsul
		if parsed.Host != "" {
			loaded.Discovery.Consul.Address = parsed.Host
		}
	case "static":
		target, err := registry.ParseTarget("static:///" + strings.Trim(rest, "/"))
		if err != nil {
			return usagef("--registry %q: %w; %s", text, err, want)
		}
		loaded.Discovery.Provider = config.ProviderStatic
		loaded.Discovery.Static = make(map[string][]string)
		for _, name := range services.Names() {
			loaded.Discovery.Static[name] = strings.Split(target.Service, ",")
		}
	default:
		return usagef("--registry %q: unknown scheme %q; %s", text, scheme, want)
	}
	if err := loaded.Validate(); err != nil {
		return usagef("--registry %q: %w", text, err)
	}
	return nil
}

// registrySource says what decides where services are found.
func (c *command) registrySource(loaded *config.Config) string {
	if c.registry != "" {
		return "--registry"
	}
	source := loaded.Source("discovery.provider")
	if source == "default" {
		return "discovery.provider (default)"
	}
	return "discovery.provider in " + source
}

// explainTarget adds to the error of a target whose scheme no registry here has what decides which ones there are.
func (c *command) explainTarget(loaded *config.Config, reg registry.ServiceRegistry, text string, err error) error {
	target, parseErr := registry.ParseTarget(text)
	if parseErr != nil || target.Scheme == "" {
		return err
	}
	if _, ok := registry.ByScheme(reg, target.Scheme); ok {
		return err
	}
	return fmt.Errorf("%w; %s is %s", err, c.registrySource(loaded), loaded.Discovery.Provider)
}
