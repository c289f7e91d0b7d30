package consul_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/consul"
)

func TestDefaultConfigIsValid(t *testing.T) {
	t.Parallel()
	if err := consul.DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	for _, address := range []string{
		"agent:8500", "[::1]:8500", "http://agent", "https://agent:8501/prefix/", "https://[::1]", "unix:///run/consul.sock",
	} {
		config := consul.DefaultConfig()
		config.Address = address
		if err := config.Validate(); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*consul.Config){
		`address: "agent" is not host:port or a URL such as https://host:8501 or unix:///path`: func(c *consul.Config) { c.Address = "agent" },
		`address: "ftp://agent:1" is not host:port or a URL such as https://host:8501 or unix:///path`: func(c *consul.Config) {
			c.Address = "ftp://agent:1"
		},
		`address: "http://u:p@agent:1" is not host:port or a URL such as https://host:8501 or unix:///path`: func(c *consul.Config) {
			c.Address = "http://u:p@agent:1"
		},
		`address: "unix://run" is not host:port or a URL such as https://host:8501 or unix:///path`: func(c *consul.Config) { c.Address = "unix://run" },
		`tls: set is not for an address without https, as "agent:1" is`: func(c *consul.Config) {
			c.Address, c.TLS.CAFile = "agent:1", "ca.pem"
		},
		`token: set is not allowed together with token_file`: func(c *consul.Config) { c.Token, c.TokenFile = "s3cret", "f" },
		`token: set is not printable ASCII without space`:    func(c *consul.Config) { c.Token = "s3cret\n" },
		`tls.key_file: "" is not set together with tls.cert_file`: func(c *consul.Config) {
			c.Address, c.TLS.CertFile = "https://agent:1", "cert.pem"
		},
		`wait: 1m1s is not above 0 and at most 1m`:         func(c *consul.Config) { c.Wait = 61 * time.Second },
		`wait: 0s is not above 0 and at most 1m`:           func(c *consul.Config) { c.Wait = 0 },
		`max_stale: -1s is not 0 or more`:                  func(c *consul.Config) { c.MaxStale = -time.Second },
		`empty_grace: -1s is not 0 or more`:                func(c *consul.Config) { c.EmptyGrace = -time.Second },
		`verify_interval: 0s is not above 0`:               func(c *consul.Config) { c.VerifyInterval = 0 },
		`check.kind: "http" is not one of grpc, ttl, none`: func(c *consul.Config) { c.Check.Kind = "http" },
		`check.interval: 0s is not above 0`:                func(c *consul.Config) { c.Check.Interval = 0 },
		`check.timeout: -1s is not above 0`:                func(c *consul.Config) { c.Check.Timeout = -time.Second },
		`check.ttl: 10ms is not at least 1s`:               func(c *consul.Config) { c.Check.Kind, c.Check.TTL = consul.CheckTTL, 10*time.Millisecond },
		`check.deregister_critical_after: 30s is not 0 or at least 1m, Consul's minimum`: func(c *consul.Config) {
			c.Check.DeregisterCriticalAfter = 30 * time.Second
		},
	} {
		config := consul.DefaultConfig()
		change(&config)
		err := config.Validate()
		if err == nil || err.Error() != want {
			t.Errorf("Validate\n got %v\nwant %s", err, want)
			continue
		}
		if _, ok := errors.AsType[*consul.KeyError](err); !ok {
			t.Errorf("%v is no KeyError", err)
		}
		if _, err := consul.New(config); err == nil || err.Error() != "consul registry: "+want || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("New\n got %v\nwant %s", err, want)
		}
	}
}

// Not parallel: it sets the environment.
func TestEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	for _, row := range []struct {
		name          string
		environment   map[string]string
		config        func(*consul.Config)
		host, token   string
		ns, partition string
	}{
		{name: "nothing", host: "127.0.0.1:8500"},
		{name: "address", environment: map[string]string{"CONSUL_HTTP_ADDR": "http://env:1"}, host: "env:1"},
		{
			name: "address in both", environment: map[string]string{"CONSUL_HTTP_ADDR": "env:1"},
			config: func(c *consul.Config) { c.Address = "config:2" }, host: "config:2",
		},
		{name: "token", environment: map[string]string{"CONSUL_HTTP_TOKEN": "env"}, host: "127.0.0.1:8500", token: "env"},
		{
			name: "token file goes first", environment: map[string]string{"CONSUL_HTTP_TOKEN": "env", "CONSUL_HTTP_TOKEN_FILE": file},
			host: "127.0.0.1:8500", token: "file",
		},
		{
			name: "configured token goes before all", environment: map[string]string{"CONSUL_HTTP_TOKEN": "env", "CONSUL_HTTP_TOKEN_FILE": file},
			config: func(c *consul.Config) { c.Token = "config" }, host: "127.0.0.1:8500", token: "config",
		},
		{
			name: "configured file goes before all", environment: map[string]string{"CONSUL_HTTP_TOKEN": "env", "CONSUL_HTTP_TOKEN_FILE": "/none"},
			config: func(c *consul.Config) { c.TokenFile = file }, host: "127.0.0.1:8500", token: "file",
		},
		{
			name: "namespace and partition", environment: map[string]string{"CONSUL_NAMESPACE": "n", "CONSUL_PARTITION": "p"},
			host: "127.0.0.1:8500", ns: "n", partition: "p",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, name := range []string{"ADDR", "TOKEN", "TOKEN_FILE"} {
				t.Setenv("CONSUL_HTTP_"+name, "")
			}
			t.Setenv("CONSUL_NAMESPACE", "")
			t.Setenv("CONSUL_PARTITION", "")
			for name, value := range row.environment {
				t.Setenv(name, value)
			}
			f := newFakeAgent(entry("1", 80))
			config := consul.DefaultConfig()
			config.Transport, config.Logger = f, slog.New(slog.DiscardHandler)
			if row.config != nil {
				row.config(&config)
			}
			r, err := consul.New(config) // reads no file: there is none yet
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if err := os.WriteFile(file, []byte("file\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			defer os.Remove(file)
			w, err := r.Watch(registry.Target{Service: "auth"})
			if err != nil {
				t.Fatal(err)
			}
			expect(t, w, "1")
			asked := healthQueries(f)[0]
			if asked.URL.Host != row.host || asked.Header.Get("X-Consul-Token") != row.token {
				t.Errorf("asked %s with token %q, want %s with %q", asked.URL.Host, asked.Header.Get("X-Consul-Token"), row.host, row.token)
			}
			if q := asked.URL.Query(); q.Get("ns") != row.ns || q.Get("partition") != row.partition {
				t.Errorf("the query is %v", q)
			}
		})
	}
}

// Not parallel: it sets the environment.
func TestWrongAddressInTheEnvironment(t *testing.T) {
	t.Setenv("CONSUL_HTTP_ADDR", "agent")
	want := `consul registry: address: "agent" is not host:port or a URL such as https://host:8501 or unix:///path`
	if _, err := consul.New(consul.DefaultConfig()); err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}
