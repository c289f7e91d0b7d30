package rpc_test

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/0x1d/goplt/pkg/rpc"
)

func TestDefaultConfigsAreValid(t *testing.T) {
	t.Parallel()
	if err := rpc.DefaultClientConfig().Validate(); err != nil {
		t.Errorf("client: %v", err)
	}
	if err := rpc.DefaultServerConfig().Validate(); err != nil {
		t.Errorf("server: %v", err)
	}
}

func TestClientConfigValidate(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		change func(*rpc.ClientConfig)
		want   string
	}{
		{func(c *rpc.ClientConfig) { c.Protocol = "soap" }, `protocol: "soap" is not one of auto, grpc, http, inprocess`},
		{func(c *rpc.ClientConfig) { c.Protocol = "" }, `protocol: "" is not one of auto, grpc, http, inprocess`},
		{func(c *rpc.ClientConfig) { c.Timeout = -time.Second }, "timeout: -1s is not 0 or more"},
		{func(c *rpc.ClientConfig) { c.AttemptTimeout = -1 }, "attempt_timeout: -1ns is not 0 or more"},
		{func(c *rpc.ClientConfig) { c.MaxReceiveBytes = 0 }, "max_receive_bytes: 0 is not 1 or more"},
		{func(c *rpc.ClientConfig) { c.MaxSendBytes = -1 }, "max_send_bytes: -1 is not 1 or more"},
		{func(c *rpc.ClientConfig) { c.CompressMinBytes = -1 }, "compress_min_bytes: -1 is not 0 or more"},
		{func(c *rpc.ClientConfig) { c.Retry.MaxAttempts = 0 }, "retry.max_attempts: 0 is not within 1 to 5"},
		{func(c *rpc.ClientConfig) { c.Retry.MaxAttempts = 6 }, "retry.max_attempts: 6 is not within 1 to 5"},
		{func(c *rpc.ClientConfig) { c.Retry.InitialBackoff = 0 }, "retry.initial_backoff: 0s is not above 0"},
		{func(c *rpc.ClientConfig) { c.Retry.MaxBackoff = time.Millisecond }, "retry.max_backoff: 1ms is not at least retry.initial_backoff"},
		{func(c *rpc.ClientConfig) { c.Retry.BackoffMultiplier = 0.5 }, "retry.backoff_multiplier: 0.5 is not 1 or more"},
		{func(c *rpc.ClientConfig) { c.Retry.BudgetTokens = 0 }, "retry.budget_tokens: 0 is not within 1 to 1000"},
		{func(c *rpc.ClientConfig) { c.Retry.BudgetTokens = 1001 }, "retry.budget_tokens: 1001 is not within 1 to 1000"},
		{func(c *rpc.ClientConfig) { c.Retry.BudgetRatio = 0 }, "retry.budget_ratio: 0 is not above 0 and at most 1"},
		{func(c *rpc.ClientConfig) { c.Retry.BudgetRatio = 1.5 }, "retry.budget_ratio: 1.5 is not above 0 and at most 1"},
		{func(c *rpc.ClientConfig) { c.Retry.BudgetRatio = math.NaN() }, "retry.budget_ratio: NaN is not above 0 and at most 1"},
		{
			func(c *rpc.ClientConfig) { c.Balancer.Policy = "p3c" },
			`balancer.policy: "p3c" is not one of p2c, round_robin, random, least_request, consistent_hash`,
		},
		{func(c *rpc.ClientConfig) { c.Balancer.SlowStart = -1 }, "balancer.slow_start: -1ns is not 0 or more"},
		{func(c *rpc.ClientConfig) { c.Balancer.Decay = 0 }, "balancer.decay: 0s is not above 0"},
		{func(c *rpc.ClientConfig) { c.Balancer.SubsetSize = -1 }, "balancer.subset_size: -1 is not 0 or more"},
		{func(c *rpc.ClientConfig) { c.Balancer.HashHeader = "a b" }, `balancer.hash_header: "a b" is not the name of a header`},
		{func(c *rpc.ClientConfig) { c.Balancer.HashBalance = 1 }, "balancer.hash_balance: 1 is not above 1 and at most 100"},
		{func(c *rpc.ClientConfig) { c.Balancer.HashBalance = math.NaN() }, "balancer.hash_balance: NaN is not above 1 and at most 100"},
		{func(c *rpc.ClientConfig) { c.Breaker.FailureRate = 0 }, "breaker.failure_rate: 0 is not above 0 and at most 1"},
		{func(c *rpc.ClientConfig) { c.Breaker.FailureRate = 1.1 }, "breaker.failure_rate: 1.1 is not above 0 and at most 1"},
		{func(c *rpc.ClientConfig) { c.Breaker.MinCalls = 0 }, "breaker.min_calls: 0 is not 1 or more"},
		{func(c *rpc.ClientConfig) { c.Breaker.Window = 0 }, "breaker.window: 0s is not above 0"},
		{func(c *rpc.ClientConfig) { c.Breaker.OpenFor = -time.Minute }, "breaker.open_for: -1m0s is not above 0"},
		{func(c *rpc.ClientConfig) { c.Breaker.HalfOpenSuccesses = 0 }, "breaker.half_open_successes: 0 is not 1 or more"},
		{func(c *rpc.ClientConfig) { c.Outlier.Interval = 0 }, "outlier.interval: 0s is not above 0"},
		{func(c *rpc.ClientConfig) { c.Outlier.BaseEjection = 0 }, "outlier.base_ejection: 0s is not above 0"},
		{func(c *rpc.ClientConfig) { c.Outlier.MaxEjection = time.Second }, "outlier.max_ejection: 1s is not at least outlier.base_ejection"},
		{func(c *rpc.ClientConfig) { c.Outlier.MaxEjectedPercent = 101 }, "outlier.max_ejected_percent: 101 is not within 0 to 100"},
		{func(c *rpc.ClientConfig) { c.Outlier.PanicPercent = -1 }, "outlier.panic_percent: -1 is not within 0 to 100"},
		{func(c *rpc.ClientConfig) { c.Outlier.ConsecutiveFailures = -1 }, "outlier.consecutive_failures: -1 is not 0 or more"},
		{func(c *rpc.ClientConfig) { c.Outlier.SuccessRate.StdevFactor = -1 }, "outlier.success_rate.stdev_factor: -1 is not 0 or more"},
		{
			func(c *rpc.ClientConfig) { c.Outlier.SuccessRate.EnforcementPercent = 101 },
			"outlier.success_rate.enforcement_percent: 101 is not within 0 to 100",
		},
		{func(c *rpc.ClientConfig) { c.Outlier.SuccessRate.MinHosts = 0 }, "outlier.success_rate.min_hosts: 0 is not 1 or more"},
		{func(c *rpc.ClientConfig) { c.Outlier.SuccessRate.RequestVolume = 0 }, "outlier.success_rate.request_volume: 0 is not 1 or more"},
		{func(c *rpc.ClientConfig) { c.Outlier.FailurePercentage.Threshold = 101 }, "outlier.failure_percentage.threshold: 101 is not within 0 to 100"},
		{
			func(c *rpc.ClientConfig) { c.Outlier.FailurePercentage.EnforcementPercent = -1 },
			"outlier.failure_percentage.enforcement_percent: -1 is not within 0 to 100",
		},
		{func(c *rpc.ClientConfig) { c.Outlier.FailurePercentage.MinHosts = 0 }, "outlier.failure_percentage.min_hosts: 0 is not 1 or more"},
		{func(c *rpc.ClientConfig) { c.Outlier.FailurePercentage.RequestVolume = 0 }, "outlier.failure_percentage.request_volume: 0 is not 1 or more"},
		{func(c *rpc.ClientConfig) { c.Outlier.Probe.Timeout = 0 }, "outlier.probe.timeout: 0s is not above 0"},
		{func(c *rpc.ClientConfig) { c.Outlier.Probe.Interval = -1 }, "outlier.probe.interval: -1ns is not 0 or more"},
		{
			func(c *rpc.ClientConfig) { c.Outlier.Probe.Interval, c.Outlier.ConsecutiveFailures = time.Second, 0 },
			"outlier.probe.interval: 1s is not 0 while outlier.consecutive_failures is, by which failed probes are counted",
		},
		{func(c *rpc.ClientConfig) { c.Pool.MaxConnections = 0 }, "pool.max_connections: 0 is not 1 or more"},
		{func(c *rpc.ClientConfig) { c.Pool.MaxHTTPConnections = 0 }, "pool.max_http_connections: 0 is not 1 or more"},
		{
			func(c *rpc.ClientConfig) { c.Pool.MinConnections = -1 },
			"pool.min_connections: -1 is not within 0 to pool.max_connections and pool.max_http_connections",
		},
		{
			func(c *rpc.ClientConfig) { c.Pool.MinConnections = 5 },
			"pool.min_connections: 5 is not within 0 to pool.max_connections and pool.max_http_connections",
		},
		{
			func(c *rpc.ClientConfig) { c.Pool.MinConnections, c.Pool.MaxHTTPConnections = 3, 2 },
			"pool.min_connections: 3 is not within 0 to pool.max_connections and pool.max_http_connections",
		},
		{func(c *rpc.ClientConfig) { c.Pool.MaxAge = -time.Hour }, "pool.max_age: -1h0m0s is not 0 or more"},
		{func(c *rpc.ClientConfig) { c.Pool.DialTimeout = 0 }, "pool.dial_timeout: 0s is not above 0"},
		{func(c *rpc.ClientConfig) { c.Pool.IdleTimeout = -1 }, "pool.idle_timeout: -1ns is not 0 or more"},
		{func(c *rpc.ClientConfig) { c.Pool.PingInterval = -1 }, "pool.ping_interval: -1ns is not 0 or more"},
		{func(c *rpc.ClientConfig) { c.Pool.PingTimeout = 0 }, "pool.ping_timeout: 0s is not above 0"},
		{func(c *rpc.ClientConfig) { c.Pool.DrainTimeout = -1 }, "pool.drain_timeout: -1ns is not 0 or more"},
		{
			func(c *rpc.ClientConfig) { c.TLS.Enabled, c.TLS.CertFile = true, "cert.pem" },
			`tls.key_file: "" is not set together with tls.cert_file`,
		},
		{
			func(c *rpc.ClientConfig) { c.TLS.KeyFile = "key.pem" },
			`tls.key_file: "key.pem" is not set together with tls.cert_file`,
		},
	} {
		config := rpc.DefaultClientConfig()
		row.change(&config)
		expectKeyError(t, config.Validate(), row.want)
	}
}

func TestServerConfigValidate(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		change func(*rpc.ServerConfig)
		want   string
	}{
		{func(c *rpc.ServerConfig) { c.Listen = "" }, `listen: "" is not host:port with a port within 0 to 65535`},
		{func(c *rpc.ServerConfig) { c.Listen = "8080" }, `listen: "8080" is not host:port with a port within 0 to 65535`},
		{func(c *rpc.ServerConfig) { c.Listen = "127.0.0.1:http" }, `listen: "127.0.0.1:http" is not host:port with a port within 0 to 65535`},
		{func(c *rpc.ServerConfig) { c.Listen = "127.0.0.1:65536" }, `listen: "127.0.0.1:65536" is not host:port with a port within 0 to 65535`},
		{func(c *rpc.ServerConfig) { c.Listen = "::1:80" }, `listen: "::1:80" is not host:port with a port within 0 to 65535`},
		{func(c *rpc.ServerConfig) { c.Advertise = "example.org" }, `advertise: "example.org" is not host:port with a port within 0 to 65535`},
		{func(c *rpc.ServerConfig) { c.Advertise = ":80" }, `advertise: ":80" is not an address that others can reach`},
		{func(c *rpc.ServerConfig) { c.Advertise = "0.0.0.0:80" }, `advertise: "0.0.0.0:80" is not an address that others can reach`},
		{func(c *rpc.ServerConfig) { c.Advertise = "[::]:80" }, `advertise: "[::]:80" is not an address that others can reach`},
		{func(c *rpc.ServerConfig) { c.Weight = -1 }, "weight: -1 is not within 0 to 65535"},
		{func(c *rpc.ServerConfig) { c.Weight = 65536 }, "weight: 65536 is not within 0 to 65535"},
		{func(c *rpc.ServerConfig) { c.MaxReceiveBytes = 0 }, "max_receive_bytes: 0 is not 1 or more"},
		{func(c *rpc.ServerConfig) { c.MaxSendBytes = 0 }, "max_send_bytes: 0 is not 1 or more"},
		{func(c *rpc.ServerConfig) { c.CompressMinBytes = -1 }, "compress_min_bytes: -1 is not 0 or more"},
		{func(c *rpc.ServerConfig) { c.ReadHeaderTimeout = 0 }, "read_header_timeout: 0s is not above 0"},
		{func(c *rpc.ServerConfig) { c.IdleTimeout = 0 }, "idle_timeout: 0s is not above 0"},
		{func(c *rpc.ServerConfig) { c.RequestTimeout = -1 }, "request_timeout: -1ns is not 0 or more"},
		{func(c *rpc.ServerConfig) { c.MaxConcurrentStreams = 0 }, "max_concurrent_streams: 0 is not within 1 to 2147483647"},
		{func(c *rpc.ServerConfig) { c.MaxConcurrentStreams = 1 << 31 }, "max_concurrent_streams: 2147483648 is not within 1 to 2147483647"},
		{func(c *rpc.ServerConfig) { c.MaxConcurrentCalls = -1 }, "max_concurrent_calls: -1 is not 0 or more"},
		{func(c *rpc.ServerConfig) { c.Shedding.FailureRate = 0 }, "shedding.failure_rate: 0 is not above 0 and below 1"},
		{func(c *rpc.ServerConfig) { c.Shedding.FailureRate = 1 }, "shedding.failure_rate: 1 is not above 0 and below 1"},
		{func(c *rpc.ServerConfig) { c.Shedding.MinCalls = 0 }, "shedding.min_calls: 0 is not 1 or more"},
		{func(c *rpc.ServerConfig) { c.Shedding.Window = 0 }, "shedding.window: 0s is not above 0"},
		{func(c *rpc.ServerConfig) { c.Shedding.Pushback = -1 }, "shedding.pushback: -1ns is not 0 or more"},
		{func(c *rpc.ServerConfig) { c.DeregisterDelay = -1 }, "deregister_delay: -1ns is not 0 or more"},
		{func(c *rpc.ServerConfig) { c.DrainTimeout = -1 }, "drain_timeout: -1ns is not 0 or more"},
		{
			func(c *rpc.ServerConfig) { c.TLS = rpc.TLSConfig{Enabled: true, KeyFile: "key.pem"} },
			`tls.cert_file: "" is not a file, which a server with TLS needs`,
		},
		{
			func(c *rpc.ServerConfig) { c.TLS = rpc.TLSConfig{Enabled: true, CertFile: "cert.pem"} },
			`tls.key_file: "" is not a file, which a server with TLS needs`,
		},
	} {
		config := rpc.DefaultServerConfig()
		row.change(&config)
		expectKeyError(t, config.Validate(), row.want)
	}
}

func TestMethodConfigValidate(t *testing.T) {
	t.Parallel()
	const name = "goplt.auth.v1.AuthService.Login"
	const withHedge = `"not_idempotent" is not possible with a hedge, which may execute a call twice; ` +
		"remove hedge.delay and hedge.quantile, or set them to 0"
	for _, row := range []struct {
		name   string
		method rpc.MethodConfig
		want   string // of the one error; none if empty
	}{
		{"Greeter", rpc.MethodConfig{}, ""}, // a service without a package
		{"goplt.auth.v1.AuthService", rpc.MethodConfig{}, ""},
		{name, rpc.MethodConfig{
			Timeout: 1, AttemptTimeout: 1, Idempotency: "idempotent", Hedge: rpc.HedgeConfig{Delay: 1, Quantile: 0.999, MaxHedges: 4},
		}, ""},
		{name, rpc.MethodConfig{Idempotency: "not_idempotent", Hedge: rpc.HedgeConfig{MaxHedges: 2}}, ""}, // without a delay there is no hedge
		{"", rpc.MethodConfig{}, `methods.: "" is not the full name of a method or service, such as goplt.auth.v1.AuthService.Login`},
		{"a.", rpc.MethodConfig{}, `methods.a.: "a." is not the full name of a method or service, such as goplt.auth.v1.AuthService.Login`},
		{".a", rpc.MethodConfig{}, `methods..a: ".a" is not the full name of a method or service, such as goplt.auth.v1.AuthService.Login`},
		{"a.1b", rpc.MethodConfig{}, `methods.a.1b: "a.1b" is not the full name of a method or service, such as goplt.auth.v1.AuthService.Login`},
		{"a/B", rpc.MethodConfig{}, `methods.a/B: "a/B" is not the full name of a method or service, such as goplt.auth.v1.AuthService.Login`},
		{name, rpc.MethodConfig{Timeout: -time.Second}, "methods.goplt.auth.v1.AuthService.Login.timeout: -1s is not 0 or more"},
		{name, rpc.MethodConfig{AttemptTimeout: -1}, "methods.goplt.auth.v1.AuthService.Login.attempt_timeout: -1ns is not 0 or more"},
		{
			name,
			rpc.MethodConfig{Idempotency: "yes"},
			`methods.goplt.auth.v1.AuthService.Login.idempotency: "yes" is not one of "idempotent", "not_idempotent" and "", ` +
				"which means what the method declares",
		},
		{
			name,
			rpc.MethodConfig{Idempotency: "not_idempotent", Hedge: rpc.HedgeConfig{Delay: 1}},
			"methods.goplt.auth.v1.AuthService.Login.idempotency: " + withHedge,
		},
		{
			name,
			rpc.MethodConfig{Idempotency: "not_idempotent", Hedge: rpc.HedgeConfig{Quantile: 0.5}},
			"methods.goplt.auth.v1.AuthService.Login.idempotency: " + withHedge,
		},
		{name, rpc.MethodConfig{Hedge: rpc.HedgeConfig{Delay: -1}}, "methods.goplt.auth.v1.AuthService.Login.hedge.delay: -1ns is not 0 or more"},
		{
			name,
			rpc.MethodConfig{Hedge: rpc.HedgeConfig{Quantile: 1}},
			"methods.goplt.auth.v1.AuthService.Login.hedge.quantile: 1 is not at least 0 and below 1",
		},
		{
			name,
			rpc.MethodConfig{Hedge: rpc.HedgeConfig{Quantile: -0.5}},
			"methods.goplt.auth.v1.AuthService.Login.hedge.quantile: -0.5 is not at least 0 and below 1",
		},
		{
			name,
			rpc.MethodConfig{Hedge: rpc.HedgeConfig{Quantile: math.NaN()}},
			"methods.goplt.auth.v1.AuthService.Login.hedge.quantile: NaN is not at least 0 and below 1",
		},
		{
			name,
			rpc.MethodConfig{Hedge: rpc.HedgeConfig{MaxHedges: 5}},
			"methods.goplt.auth.v1.AuthService.Login.hedge.max_hedges: 5 is not within 0 to 4",
		},
		{
			name,
			rpc.MethodConfig{Hedge: rpc.HedgeConfig{MaxHedges: -1}},
			"methods.goplt.auth.v1.AuthService.Login.hedge.max_hedges: -1 is not within 0 to 4",
		},
	} {
		config := rpc.DefaultClientConfig()
		config.Methods = map[string]rpc.MethodConfig{row.name: row.method}
		err := config.Validate()
		if row.want != "" {
			expectKeyError(t, err, row.want)
		} else if err != nil {
			t.Errorf("%s %+v: %v", row.name, row.method, err)
		}
	}
}

// expectKeyError checks that err is one KeyError with the text.
func expectKeyError(t *testing.T, err error, want string) {
	t.Helper()
	if _, ok := errors.AsType[*rpc.KeyError](err); !ok || fmt.Sprint(err) != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

// TestValidateReportsAll: whoever mends a configuration learns of all that is wrong at once.
func TestValidateReportsAll(t *testing.T) {
	t.Parallel()
	config := rpc.DefaultServerConfig()
	config.Listen, config.Weight, config.DrainTimeout = "x", -1, -1
	want := "listen: \"x\" is not host:port with a port within 0 to 65535\nweight: -1 is not within 0 to 65535\ndrain_timeout: -1ns is not 0 or more"
	if diff := cmp.Diff(want, fmt.Sprint(config.Validate())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := (rpc.ServerConfig{}).Validate(); err == nil {
		t.Error("the zero value is valid, but its comment says that it is not")
	}
	if err := (rpc.ClientConfig{}).Validate(); err == nil {
		t.Error("the client's zero value is valid, but its comment says that it is not")
	}
}
