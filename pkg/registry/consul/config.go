package consul

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"
)

// CheckKind says how Consul learns whether a registered instance is well.
type CheckKind string

const (
	// CheckGRPC lets the agent call grpc.health.v1.Health/Check on the instance, whose address it must reach. It asks for the name in the
	// instance's [registry.MetadataHealth], which rpc.Server sets, and else for the server as a whole. The default.
	CheckGRPC CheckKind = "grpc"
	// CheckTTL lets the registering process tell the agent that it lives, and how it is ([registry.Registration.SetHealth]): when that changes, and
	// at least every third of [CheckConfig.TTL].
	CheckTTL CheckKind = "ttl"
	// CheckNone is no check: the instance is found until it is deregistered, also after a crash.
	CheckNone CheckKind = "none"
)

// Consistency says which Consul server may answer a query.
type Consistency string

const (
	// ConsistencyStale lets any server answer: faster, and possible without a leader. What it lags is bounded by [Config.MaxStale]. The default.
	ConsistencyStale Consistency = "stale"
	// ConsistencyDefault lets the leader answer, which may have lost its majority a moment ago.
	ConsistencyDefault Consistency = "default"
	// ConsistencyConsistent lets the leader answer after it asked the majority.
	ConsistencyConsistent Consistency = "consistent"
)

func consistencies() []Consistency {
	return []Consistency{ConsistencyStale, ConsistencyDefault, ConsistencyConsistent}
}

// TaggedAddress is a kind of address that a service or a node has in Consul beside its plain one.
type TaggedAddress string

// The kinds of tagged addresses.
const (
	AddressPlain   TaggedAddress = ""
	AddressLAN     TaggedAddress = "lan"
	AddressLANIPv4 TaggedAddress = "lan_ipv4"
	AddressLANIPv6 TaggedAddress = "lan_ipv6"
	AddressWAN     TaggedAddress = "wan"
	AddressWANIPv4 TaggedAddress = "wan_ipv4"
	AddressWANIPv6 TaggedAddress = "wan_ipv6"
)

func taggedAddresses() []TaggedAddress {
	return []TaggedAddress{AddressLAN, AddressLANIPv4, AddressLANIPv6, AddressWAN, AddressWANIPv4, AddressWANIPv6}
}

// Config configures a [Registry]. Start from [DefaultConfig]: the zero value is not valid. The tags are the keys of the configuration file.
type Config struct {
	// Address of the agent: host:port, or a URL with http, https or unix (unix:///path). A URL may have a path, for an agent behind a proxy.
	// Default $CONSUL_HTTP_ADDR, else 127.0.0.1:8500. As with Consul's own tools, $CONSUL_HTTP_SSL=true makes it https whatever it says, but for unix.
	Address string `koanf:"address"`
	// Token is the ACL token to send. Default $CONSUL_HTTP_TOKEN, if no token file is given.
	Token string `koanf:"token"`
	// TokenFile holds the ACL token. It is read for every request, so that a rotated token is used at once. Instances are registered again with it,
	// within VerifyInterval or a third of the check's TTL: the agent goes on using the token that registered an instance, so that one should live
	// as long beside the new one. Default $CONSUL_HTTP_TOKEN_FILE.
	TokenFile string `koanf:"token_file"`
	// Datacenter to query if the target has no dc. Default the agent's.
	Datacenter string `koanf:"datacenter"`
	// Failover is the datacenters to fail over to, in order, where the target names neither a failover nor a dc: the instances are those of the first
	// datacenter that has any. Each is watched all the time, through the agent. Default none.
	Failover []string `koanf:"failover"`
	// Namespace to query and register in; Consul Enterprise only. Default $CONSUL_NAMESPACE, else the token's.
	Namespace string `koanf:"namespace"`
	// Partition to query and register in; Consul Enterprise only. Default $CONSUL_PARTITION, else the agent's.
	Partition string `koanf:"partition"`
	// TaggedAddress is the kind of address that instances are called at, where a target does not say: lan, wan, lan_ipv4, lan_ipv6, wan_ipv4 or
	// wan_ipv6. An instance that has no such address is called at its plain one. Default the plain address.
	TaggedAddress TaggedAddress `koanf:"tagged_address"`
	// TLS protects the connection to an agent whose address begins with https, and then defaults to what $CONSUL_CACERT, $CONSUL_CAPATH,
	// $CONSUL_CLIENT_CERT with $CONSUL_CLIENT_KEY, and $CONSUL_TLS_SERVER_NAME say.
	TLS TLSConfig `koanf:"tls"`

	// Wait is how long the agent may hold a query until something changes; at most 60s. Default 60s.
	Wait time.Duration `koanf:"wait"`
	// MaxQueries is how many queries that wait for a change may be under way at an agent; 1 to 150. With more targets they take turns, and a change may
	// be seen up to 15 s late; a process with fewer sees it at once. An agent accepts 200 connections of one address (its
	// limits.http_max_conns_per_client), which all processes of a machine share. Default 100.
	MaxQueries int `koanf:"max_queries"`
	// QueryInterval is how often a prepared query is executed, as Consul cannot hold one until something changes; give or take a tenth. At least 1s.
	// Default 10s.
	QueryInterval time.Duration `koanf:"query_interval"`
	// Consistency says which Consul server may answer, where a target does not: stale, default or consistent. Default stale.
	Consistency Consistency `koanf:"consistency"`
	// MaxStale is how long a server that gave a stale answer may have been without contact to the leader; an older answer is dropped and the leader
	// asked. 0 means no bound. Default 30s.
	MaxStale time.Duration `koanf:"max_stale"`
	// EmptyGrace is how long the last instances are kept after the confirmed news that there are none. It is a minute at least where that news
	// follows an outage or a loss of Consul's state, as instances then are about to register again. Default 2s.
	EmptyGrace time.Duration `koanf:"empty_grace"`
	// RemovalGrace is how long an instance whose check begins to fail stays in the set, as [registry.HealthCritical]. One that was deregistered or is in
	// maintenance leaves at once. After an outage it is 15s at least, as checks then begin anew. 0 means that a failing check removes at once. Default
	// 3s.
	RemovalGrace time.Duration `koanf:"removal_grace"`

	// Snapshot keeps the last good instances on disk, for a start while Consul is down.
	Snapshot SnapshotConfig `koanf:"snapshot"`

	// Check is the health check of registered instances.
	Check CheckConfig `koanf:"check"`
	// VerifyInterval is after what time, less up to a quarter of it at random, the agent is asked again whether it still knows a registered instance,
	// which is registered again if not. Default 10s.
	VerifyInterval time.Duration `koanf:"verify_interval"`

	// Logger is told of changes of state: Consul out of reach and back, access refused, instances left out. Default [slog.Default].
	Logger *slog.Logger `json:"-" koanf:"-"`
	// MeterProvider takes the metrics goplt.discovery.queries, goplt.discovery.watch.state and goplt.discovery.instances. Default that of the program,
	// otel.GetMeterProvider.
	MeterProvider metric.MeterProvider `json:"-" koanf:"-"`
	// Transport replaces the network, for tests and instrumentation. The registry still adds the token and bounds answers, but TLS is the transport's.
	Transport http.RoundTripper `json:"-" koanf:"-"`
}

// TLSConfig protects the connection to the agent. The files are read for each new connection, and connections made with files that have changed since
// serve no further request: a rotation holds after the queries under way, at most a minute and a sixteenth. The certificate is always verified.
type TLSConfig struct {
	// CAFile holds the PEM certificates of the authorities to trust; the system's if empty.
	CAFile string `koanf:"ca_file"`
	// CAPath is a directory of such files, all of which are trusted; not used if CAFile is set.
	CAPath string `koanf:"ca_path"`
	// CertFile holds the PEM certificate chain to present to the agent.
	CertFile string `koanf:"cert_file"`
	// KeyFile holds the PEM private key of CertFile.
	KeyFile string `koanf:"key_file"`
	// ServerName is the name that the agent's certificate must be valid for; the address's host if empty.
	ServerName string `koanf:"server_name"`
}

// SnapshotConfig keeps the last good instances of each target on disk. A watch whose first query fails has those until Consul answers.
type SnapshotConfig struct {
	// Dir is the directory for the snapshots, which is made if need be and may be shared by processes that may read what the others write. Empty, the
	// default, keeps none.
	Dir string `koanf:"dir"`
	// MaxAge is the age from which on a snapshot is not used; 0 means never. A set that does not change is saved again every hour, and when the age
	// is less than 2h, every half of it. Default 24h.
	MaxAge time.Duration `koanf:"max_age"`
}

// CheckConfig is the health check of registered instances. They are registered as passing: register when ready to serve.
type CheckConfig struct {
	// Kind is grpc, ttl or none. Default grpc.
	Kind CheckKind `koanf:"kind"`
	// Interval is how often the agent calls a gRPC check. Default 5s.
	Interval time.Duration `koanf:"interval"`
	// Timeout bounds one call of a gRPC check. Default 2s.
	Timeout time.Duration `koanf:"timeout"`
	// TTL is how long the agent believes a TTL check without a sign of life. Default 15s.
	TTL time.Duration `koanf:"ttl"`
	// DeregisterCriticalAfter is how long an instance may be critical before the agent forgets it; 0 means never, and Consul has a minimum of
	// 1m. Default 1m.
	DeregisterCriticalAfter time.Duration `koanf:"deregister_critical_after"`
	// TLS makes a gRPC check use TLS also for an instance that does not say that it speaks TLS, as rpc.Server does ([registry.MetadataTLS]). The
	// agent always verifies the certificate: by the authorities of its machine, or by its own if its enable_agent_tls_for_checks is set.
	// Default false.
	TLS bool `koanf:"tls"`
	// TLSServerName is the name that the certificate must be valid for in a gRPC check with TLS. Default the instance's host.
	TLSServerName string `koanf:"tls_server_name"`
}

const (
	defaultAddress = "127.0.0.1:8500"
	maxWait        = time.Minute // above, agents and proxies between begin to differ
	maxQueries     = 150         // leaves a quarter of an agent's connections to others
	minCritical    = time.Minute // Consul silently raises what is lower
)

// DefaultConfig returns the defaults that the fields of [Config] name. Those from the environment are read by [New].
func DefaultConfig() Config {
	return Config{
		Wait: maxWait, MaxQueries: 100, QueryInterval: 10 * time.Second, Consistency: ConsistencyStale, MaxStale: 30 * time.Second,
		EmptyGrace: 2 * time.Second, RemovalGrace: 3 * time.Second,
		VerifyInterval: 10 * time.Second,
		Snapshot:       SnapshotConfig{MaxAge: 24 * time.Hour},
		Check: CheckConfig{
			Kind: CheckGRPC, Interval: 5 * time.Second, Timeout: 2 * time.Second, TTL: 15 * time.Second, DeregisterCriticalAfter: minCritical,
		},
	}
}

// KeyError says which configuration key holds an impossible value. [Config.Validate] returns its errors joined by [errors.Join], so that a reader
// mends all at once.
type KeyError struct {
	// Key is the key within Config, such as "check.kind".
	Key string
	// Value is the value found, which is never a token.
	Value any
	// Want says what would be right.
	Want string
}

// Error names the key, the value and what would be right.
func (e *KeyError) Error() string { return fmt.Sprintf("%s: %v is not %s", e.Key, e.Value, e.Want) }

// Validate returns a [*KeyError] for each field that is impossible, joined, or nil. It opens no file and reads no environment.
func (c Config) Validate() error { return c.validate("address") }

// validate is Validate, where the address has the given key.
func (c Config) validate(addressKey string) error {
	var problems []error
	check := func(key string, ok bool, value any, want string) {
		if !ok {
			problems = append(problems, &KeyError{Key: key, Value: value, Want: want})
		}
	}
	if c.Address != "" {
		at, err := parseAddress(c.Address)
		want := "host:port or a URL such as https://host:8501 or unix:///path"
		if errors.Is(err, errUserInformation) {
			want += " without user information; an ACL token goes in token or token_file"
		}
		check(addressKey, err == nil, quoted(shown(c.Address)), want)
		if err == nil && at.scheme != "https" {
			check("tls", c.TLS == TLSConfig{}, "set", fmt.Sprintf("for an address without https, as %q is", c.Address))
		}
	}
	check("token", c.Token == "" || c.TokenFile == "", "set", "allowed together with token_file")
	check("token", !strings.ContainsFunc(c.Token, func(r rune) bool { return r <= ' ' || r > '~' }), "set", "printable ASCII without space")
	for _, name := range []struct{ key, value string }{{"datacenter", c.Datacenter}, {"namespace", c.Namespace}, {"partition", c.Partition}} {
		check(name.key, name.value == "" || validateName(name.key, name.value) == nil, quoted(name.value), "1 to 64 letters, digits, '-' and '_'")
	}
	err := validateFailover(c.Datacenter, c.Failover)
	check("failover", err == nil, fmt.Sprintf("%q", c.Failover), fmt.Sprintf("a list of other datacenters: %v", err))
	check("tagged_address", c.TaggedAddress == AddressPlain || slices.Contains(taggedAddresses(), c.TaggedAddress), quoted(string(c.TaggedAddress)),
		"empty or one of "+list(taggedAddresses()))
	check("tls.key_file", (c.TLS.CertFile == "") == (c.TLS.KeyFile == ""), quoted(c.TLS.KeyFile), "set together with tls.cert_file")
	check("wait", 0 < c.Wait && c.Wait <= maxWait, c.Wait, "above 0 and at most 1m")
	check("max_queries", 1 <= c.MaxQueries && c.MaxQueries <= maxQueries, c.MaxQueries, "within 1 to 150")
	check("query_interval", c.QueryInterval >= time.Second, c.QueryInterval, "at least 1s")
	check("consistency", slices.Contains(consistencies(), c.Consistency), quoted(string(c.Consistency)), "one of "+list(consistencies()))
	check("max_stale", c.MaxStale >= 0, c.MaxStale, "0 or more")
	check("empty_grace", c.EmptyGrace >= 0, c.EmptyGrace, "0 or more")
	check("removal_grace", c.RemovalGrace >= 0, c.RemovalGrace, "0 or more")
	check("snapshot.max_age", c.Snapshot.MaxAge >= 0, c.Snapshot.MaxAge, "0 or more")
	check("verify_interval", c.VerifyInterval > 0, c.VerifyInterval, "above 0")
	switch c.Check.Kind {
	case CheckGRPC:
		check("check.interval", c.Check.Interval > 0, c.Check.Interval, "above 0")
		check("check.timeout", c.Check.Timeout > 0, c.Check.Timeout, "above 0")
	case CheckTTL:
		check("check.ttl", c.Check.TTL >= time.Second, c.Check.TTL, "at least 1s")
	case CheckNone:
	default:
		check("check.kind", false, quoted(string(c.Check.Kind)), "one of grpc, ttl, none")
	}
	critical := c.Check.DeregisterCriticalAfter
	check("check.deregister_critical_after", critical == 0 || critical >= minCritical, critical, "0 or at least 1m, Consul's minimum")
	return errors.Join(problems...)
}

func quoted(text string) string { return fmt.Sprintf("%q", text) }
