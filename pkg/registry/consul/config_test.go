package consul_test

import (
	"cmp"
	"errors"
	"fmt"
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
		`address: "unix://run" is not host:port or a URL such as https://host:8501 or unix:///path`: func(c *consul.Config) { c.Address = "unix://run" },
		`tls: set is not for an address without https, as "agent:1" is`: func(c *consul.Config) {
			c.Address, c.TLS.CAFile = "agent:1", "ca.pem"
		},
		`token: set is not allowed together with token_file`: func(c *consul.Config) { c.Token, c.TokenFile = "s3cret", "f" },
		`token: set is not printable ASCII without space`:    func(c *consul.Config) { c.Token = "s3cret\n" },
		`tls.key_file: "" is not set together with tls.cert_file`: func(c *consul.Config) {
			c.Address, c.TLS.CertFile = "https://agent:1", "cert.pem"
		},
		`wait: 1m1s is not above 0 and at most 1m`:                    func(c *consul.Config) { c.Wait = 61 * time.Second },
		`wait: 0s is not above 0 and at most 1m`:                      func(c *consul.Config) { c.Wait = 0 },
		`max_queries: 0 is not within 1 to 150`:                       func(c *consul.Config) { c.MaxQueries = 0 },
		`max_queries: 151 is not within 1 to 150`:                     func(c *consul.Config) { c.MaxQueries = 151 },
		`max_stale: -1s is not 0 or more`:                             func(c *consul.Config) { c.MaxStale = -time.Second },
		`empty_grace: -1s is not 0 or more`:                           func(c *consul.Config) { c.EmptyGrace = -time.Second },
		`consistency: "any" is not one of stale, default, consistent`: func(c *consul.Config) { c.Consistency = "any" },
		`tagged_address: "public" is not empty or one of lan, lan_ipv4, lan_ipv6, wan, wan_ipv4, wan_ipv6`: func(c *consul.Config) {
			c.TaggedAddress = "public"
		},
		`datacenter: "../eu" is not 1 to 64 letters, digits, '-' and '_'`: func(c *consul.Config) { c.Datacenter = "../eu" },
		`namespace: "a&b" is not 1 to 64 letters, digits, '-' and '_'`:    func(c *consul.Config) { c.Namespace = "a&b" },
		`partition: "a b" is not 1 to 64 letters, digits, '-' and '_'`:    func(c *consul.Config) { c.Partition = "a b" },
		`failover: ["us" "eu"] is not a list of other datacenters: datacenter "eu" is there twice`: func(c *consul.Config) {
			c.Datacenter, c.Failover = "eu", []string{"us", "eu"}
		},
		`query_interval: 100ms is not at least 1s`:         func(c *consul.Config) { c.QueryInterval = 100 * time.Millisecond },
		`snapshot.max_age: -1s is not 0 or more`:           func(c *consul.Config) { c.Snapshot.MaxAge = -time.Second },
		`removal_grace: -1s is not 0 or more`:              func(c *consul.Config) { c.RemovalGrace = -time.Second },
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
		scheme        string // default http
		ns, partition string
	}{
		{name: "nothing", host: "127.0.0.1:8500"},
		{name: "address", environment: map[string]string{"CONSUL_HTTP_ADDR": "http://env:1"}, host: "env:1"},
		{
			name: "address in both", environment: map[string]string{"CONSUL_HTTP_ADDR": "env:1"},
			config: func(c *consul.Config) { c.Address = "config:2" }, host: "config:2",
		},
		{name: "TLS", environment: map[string]string{"CONSUL_HTTP_SSL": "true"}, host: "127.0.0.1:8500", scheme: "https"},
		{
			name: "TLS goes before the address", environment: map[string]string{"CONSUL_HTTP_SSL": "1", "CONSUL_HTTP_ADDR": "http://env:1"},
			host: "env:1", scheme: "https",
		},
		{
			name: "TLS goes before the configured address", environment: map[string]string{"CONSUL_HTTP_SSL": "true"},
			config: func(c *consul.Config) { c.Address = "config:2" }, host: "config:2", scheme: "https",
		},
		{
			name: "no TLS", environment: map[string]string{"CONSUL_HTTP_SSL": "false", "CONSUL_HTTP_ADDR": "https://env:1"},
			host: "env:1", scheme: "https",
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
			for _, name := range []string{"ADDR", "TOKEN", "TOKEN_FILE", "SSL"} {
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
			if want := cmp.Or(row.scheme, "http"); asked.URL.Scheme != want {
				t.Errorf("asked by %s, want %s", asked.URL.Scheme, want)
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
	want := `consul registry: address ($CONSUL_HTTP_ADDR): "agent" is not host:port or a URL such as https://host:8501 or unix:///path`
	if _, err := consul.New(consul.DefaultConfig()); err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

// Not parallel: it sets the environment.
func TestWrongTLSInTheEnvironment(t *testing.T) {
	t.Setenv("CONSUL_HTTP_SSL", "yes") // would be cleartext to who ignores it
	want := `consul registry: $CONSUL_HTTP_SSL: "yes" is not true or false`
	if _, err := consul.New(consul.DefaultConfig()); err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

// An agent that a target names gets the same token, so it is asked by TLS too.
func TestTLSInTheEnvironmentHoldsForTargets(t *testing.T) {
	for home, want := range map[string]string{"agent:8500": "https", "unix:///run/consul.sock": "https"} {
		t.Setenv("CONSUL_HTTP_SSL", "true")
		f := newFakeAgent(entry("1", 80))
		r, _ := open(t, f, func(c *consul.Config) { c.Address, c.Token = home, "s3cret" })
		expect(t, watch(t, r, "consul://other:8500/auth"), "1")
		if got := healthQueries(f)[0].URL; got.Scheme != want || got.Host != "other:8500" {
			t.Errorf("%s: asked %s", home, got)
		}
	}
}

// Not parallel: it sets the environment.
func TestAddressesWithSecretsAreNotEchoed(t *testing.T) {
	const want = " is not host:port or a URL such as https://host:8501 or unix:///path"
	const without = want + " without user information; an ACL token goes in token or token_file"
	for address, text := range map[string]string{
		"https://user:s3cret@consul:8501":    `"https://user:xxxxx@consul:8501"` + without,
		"https://s3cret@consul:8501":         `"https://xxxxx@consul:8501"` + without,
		"user:s3cret@consul:8501":            `"xxxxx@consul:8501"` + without,
		"https://us er:s3cret@consul:8501":   `"https://xxxxx@consul:8501"` + want,
		"https://consul:8501?token=s3cret":   `"https://consul:8501?xxxxx"` + want,
		"unix://user:s3cret@consul/run/sock": `"unix://user:xxxxx@consul/run/sock"` + without,
	} {
		t.Setenv("CONSUL_HTTP_ADDR", "")
		config := consul.DefaultConfig()
		config.Address = address
		_, err := consul.New(config)
		if got := fmt.Sprint(err); got != "consul registry: address: "+text {
			t.Errorf("configured:\n got %s\nwant %s", got, text)
		}
		t.Setenv("CONSUL_HTTP_ADDR", address)
		_, err = consul.New(consul.DefaultConfig())
		if got := fmt.Sprint(err); got != "consul registry: address ($CONSUL_HTTP_ADDR): "+text {
			t.Errorf("in the environment:\n got %s\nwant %s", got, text)
		}
	}
}
