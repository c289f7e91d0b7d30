package config

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/consul"
	"github.com/0x1d/goplt/pkg/registry/memory"
	"github.com/0x1d/goplt/pkg/registry/static"
)

// Validate returns an [*Error] for each value that is impossible, joined, or nil. [Load] has called it; call it after changes.
func (c Config) Validate() error {
	check := checker{view: viewOf(c)}
	defaults := flatten(c.Defaults.Validate())
	check.section("", defaults)
	check.idle("")
	check.discovery(c.Discovery)
	check.section("server", flatten(c.Server.Validate()))
	check.idle("server")
	if c.Server.TLS.ServerName != "" {
		check.add("server/tls/server_name", quote(c.Server.TLS.ServerName)+" has no meaning on a server; remove it", nil)
	}
	check.oneOf("log/level", c.Log.Level, "debug", "info", "warn", "error")
	check.oneOf("log/format", c.Log.Format, "text", "json")
	for _, name := range slices.Sorted(maps.Keys(c.Services)) {
		check.service(name, c.Services[name], defaults)
		check.target(name, c.Services[name].Target, c.Discovery.Consul)
	}
	return errors.Join(check.problems...)
}

// checker collects what is impossible in a configuration.
type checker struct {
	view     view
	paths    map[string]string // by the key as users write it; nil until there is a problem
	problems []error
}

func (c *checker) add(path, problem string, cause error) {
	c.problems = append(c.problems, keyError(path, c.view.source(path), problem, cause))
}

func (c *checker) section(path string, problems []error) {
	for _, err := range problems {
		key, problem := keyProblem(err)
		c.add(c.path(path, key), problem, err)
	}
}

// path returns the path of a key within the section at a path. Only what is there tells where in it a name with dots ends.
func (c *checker) path(section, key string) string {
	if key == "" {
		return section
	}
	if c.paths == nil {
		c.paths = make(map[string]string)
		for _, path := range c.view.paths {
			c.paths[display(path)] = path
		}
	}
	path := join(section, key)
	if known, ok := c.paths[display(path)]; ok {
		return known
	}
	return path
}

func (c *checker) oneOf(path, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		c.add(path, fmt.Sprintf("%s is not one of %s", quote(value), strings.Join(allowed, ", ")), nil)
	}
}

// idle refuses, in a section, what has no effect because of a switch that nobody has touched: who names an authority to trust means to be protected.
// Who has turned the switch off, in whatever layer, may leave the rest as it is.
func (c *checker) idle(section string) {
	const cleartext = "connections would be in cleartext"
	for _, key := range []struct{ name, needs, without string }{
		{"tls/ca_file", "tls/enabled", cleartext},
		{"tls/cert_file", "tls/enabled", cleartext},
		{"tls/key_file", "tls/enabled", cleartext},
		{"tls/server_name", "tls/enabled", cleartext},
		{"admission/max_wait", "admission/max_concurrent_calls", "there would be nothing to wait for"},
	} {
		path, needs := join(section, key.name), join(section, key.needs)
		if c.view.own(path) && c.set(path) && !c.set(needs) && c.view.source(needs) == sourceDefault && path != "server/tls/server_name" {
			c.add(path, fmt.Sprintf("has no effect while %s is not set: %s", display(needs), key.without), nil)
		}
	}
}

// set reports whether there is a value at a path other than zero.
func (c *checker) set(path string) bool {
	value, ok := c.view.values[path]
	return ok && !reflect.ValueOf(value).IsZero()
}

func (c *checker) discovery(discovery DiscoveryConfig) {
	c.oneOf("discovery/provider", string(discovery.Provider), string(ProviderConsul), string(ProviderStatic), string(ProviderMemory))
	c.section("discovery/consul", flatten(discovery.Consul.Validate()))
	for _, name := range slices.Sorted(maps.Keys(discovery.Static)) {
		path := join("discovery/static", name)
		if err := registry.ValidateServiceName(name); err != nil {
			c.add(path, err.Error(), err)
		}
		for _, address := range discovery.Static[name] {
			if host, port, err := net.SplitHostPort(address); err != nil || host == "" || !isPort(port) {
				c.add(path, quote(address)+" is not host:port", nil)
			}
		}
	}
}

func isPort(text string) bool {
	port, err := strconv.ParseUint(text, 10, 16)
	return err == nil && port > 0
}

// service checks the settings that hold for one service. What it has from the defaults, and is wrong there, has been reported there.
func (c *checker) service(name string, service ServiceConfig, reported []error) {
	path := join("services", name)
	if err := registry.ValidateServiceName(name); err != nil {
		c.add(path, err.Error(), err)
	}
	c.idle(path)
	for _, err := range flatten(service.Client.Validate()) {
		same := func(other error) bool { return other.Error() == err.Error() }
		if key, _ := keyProblem(err); !slices.ContainsFunc(reported, same) || c.view.own(c.path(path, key)) {
			c.section(path, []error{err})
		}
	}
}

// target checks where a service is to be found: the scheme first, as another than those there are makes nonsense of the rest.
func (c *checker) target(service, text string, agent consul.Config) {
	if text == "" {
		return
	}
	path := join(join("services", service), "target")
	schemes := []string{consul.Scheme, static.Scheme, memory.Scheme}
	if scheme, _, ok := strings.Cut(text, "://"); ok && !slices.Contains(schemes, strings.ToLower(scheme)) {
		c.add(path, fmt.Sprintf("%s has the scheme %s, which is not one of %s", quote(text), quote(scheme), strings.Join(schemes, ", ")), nil)
		return
	}
	target, err := registry.ParseTarget(text)
	if err == nil {
		err = watchable(target, agent)
	}
	if err != nil {
		c.add(path, err.Error(), err)
	}
}

// watchable reports why the registry of a target's scheme can never watch it. That a static registry lacks the service, or that there is no
// registry in memory, is for the program to mend: it may bring one of its own.
func watchable(target registry.Target, agent consul.Config) error {
	switch target.Scheme {
	case consul.Scheme:
		return agent.ValidateTarget(target)
	case static.Scheme:
		return target.Check(static.Scheme)
	case memory.Scheme:
		return target.Check(memory.Scheme, "tag")
	}
	return nil
}
