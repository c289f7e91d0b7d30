// Package config is the configuration of goplt: typed, strict, and layered.
//
//	default.yaml   every key with its default and what it means, embedded
//	  ← a file     YAML of the same shape, any part of it
//	  ← GOPLT_…    environment variables, one per key: GOPLT_RETRY_MAX_ATTEMPTS sets retry.max_attempts
//
// At the top level stand the settings of all clients, and beneath methods what differs for single methods; services.<name> overrides any of them,
// key by key, for one service. [Load] refuses what it does not know or understand: each unknown key, wrong type and impossible value is an error
// that names the key, the value, and the line or the variable that it comes from, and all of them are reported at once.
//
// The name of a key's variable is GOPLT_, the key in capitals, and '_' for each '.'. A service is named in a variable by its name in capitals with
// '_' for '-', '_' and '.': GOPLT_SERVICES_AUTH_TIMEOUT, or GOPLT_SERVICES_USER_IMPORT_TIMEOUT for user-import. A name with one of these
// signs has to stand in the file, under services or discovery.static, so that the variable can be told from others, and so has the full name of a
// method, under any methods. Lists are separated by commas.
package config

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/0x1d/goplt/pkg/registry/consul"
	"github.com/0x1d/goplt/pkg/rpc"
)

//go:embed default.yaml
var defaultYAML []byte

// Config is the whole configuration. Start from [Default] or [Load]: the zero value is not valid. It may be changed until it is first used; after
// that it is safe for concurrent use. Its text forms leave out secrets.
type Config struct {
	// Defaults configure the client of each service that Services does not name. Its keys stand at the top level.
	Defaults rpc.ClientConfig `koanf:",squash"` //nolint:tagliatelle // has no key of its own
	// Discovery says where the instances of services are found.
	Discovery DiscoveryConfig `koanf:"discovery"`
	// Server configures the server that hosts services.
	Server rpc.ServerConfig `koanf:"server"`
	// Log configures the command's log. The library logs to the logger that it is given.
	Log LogConfig `koanf:"log"`
	// Services holds the complete settings of each service that differs from Defaults, by the name of the service: what [Load] found for
	// the service, and Defaults for the rest. To add one by hand, change a copy from [Config.Service] and put it here.
	Services map[string]ServiceConfig `koanf:"services"`

	origins map[string]origin
}

// ServiceConfig configures the client of one service.
type ServiceConfig struct {
	// Target says where the instances are, in the form that [registry.ParseTarget] reads. Empty means the service's own name in the
	// registry of Config.Discovery.
	Target string `koanf:"target"`
	// Client configures the client. Its keys stand beside target.
	Client rpc.ClientConfig `koanf:",squash"` //nolint:tagliatelle // has no key of its own
}

// Provider is a kind of registry.
type Provider string

const (
	// ProviderConsul finds instances through a Consul agent. The default.
	ProviderConsul Provider = "consul"
	// ProviderStatic knows fixed addresses.
	ProviderStatic Provider = "static"
	// ProviderMemory knows what registers in the same process.
	ProviderMemory Provider = "memory"
)

// DiscoveryConfig says where the instances of services are found.
type DiscoveryConfig struct {
	// Provider is the kind of registry that is asked. Default consul.
	Provider Provider `koanf:"provider"`
	// Consul configures the registry of [ProviderConsul], and of targets that begin with consul://.
	Consul consul.Config `koanf:"consul"`
	// Static holds the addresses, host:port, of the instances of each service, for [ProviderStatic].
	Static map[string][]string `koanf:"static"`
}

// LogConfig configures a log.
type LogConfig struct {
	// Level is the least important level to log: debug, info, warn or error. Default info.
	Level string `koanf:"level"`
	// Format is text, for people, or json. Default text.
	Format string `koanf:"format"`
}

// Handler returns the handler that logs to w as configured.
func (l LogConfig) Handler(w io.Writer) slog.Handler {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
}

// Default returns the configuration of default.yaml alone.
func Default() *Config {
	config, err := parseLayers("", nil, nil)
	if err != nil {
		panic("config: default.yaml is broken: " + err.Error()) // a test reads it
	}
	return config
}

// Load returns the configuration of default.yaml, the file at path, and the variables in environ, each over the one before. No file is read if path
// is empty; environ has the form of [os.Environ], nil for none, and [PathVariable] in it is passed over. All that is wrong is in one error, made of
// an [*Error] for each.
func Load(path string, environ []string) (*Config, error) {
	if path == "" {
		return parseLayers("", nil, environ)
	}
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return parseLayers(path, data, environ)
}

func readFile(path string) (data []byte, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	data, err = io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	if err == nil && len(data) > maxFileBytes {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFileBytes)
	}
	return data, err
}

// Service returns a copy of the settings of a service: those in Services, else the Defaults.
func (c Config) Service(name string) ServiceConfig {
	service, ok := c.Services[name]
	if !ok {
		service.Client = c.Defaults
	}
	service.Client = cloneClient(service.Client)
	return service
}

// Client returns the settings of a service's client.
func (c Config) Client(service string) rpc.ClientConfig { return c.Service(service).Client }

// Target returns where the instances of a service are, in the form that [registry.ParseTarget] reads: the target in Services, else
// the name of the service, which means the registry of Discovery.
func (c Config) Target(service string) string {
	if target := c.Services[service].Target; target != "" {
		return target
	}
	return service
}
