package rpc

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// Protocol says how a client speaks to the instances of a service.
type Protocol string

const (
	// ProtocolAuto is gRPC, and Connect/JSON over HTTP/1.1 for each instance to which gRPC provably does not get through, for as long as it does not.
	// An instance's metadata may say which it is: "protocol" = "http" has gRPC never tried, "grpc" has only proof count that it does not get
	// through, and nothing be inferred from answers that lost their trailers. The default.
	ProtocolAuto Protocol = "auto"
	// ProtocolGRPC is gRPC and nothing else.
	ProtocolGRPC Protocol = "grpc"
	// ProtocolHTTP is Connect with JSON over HTTP/1.1 and nothing else.
	ProtocolHTTP Protocol = "http"
	// ProtocolInProcess dispatches to a [connect.Server] in this process; see [WithInProcess].
	ProtocolInProcess Protocol = "inprocess"
)

// ClientConfig configures a [Transport]. Start from [DefaultClientConfig]: the zero value is not valid. The tags are the keys of the
// configuration file.
type ClientConfig struct {
	// Protocol to speak. Default auto.
	Protocol Protocol `koanf:"protocol"`
	// Timeout bounds a whole call, all its attempts, when the caller's context has no earlier deadline. Of a stream, whose length only its caller
	// knows, it bounds the opening. 0 means no bound. Default 10s.
	Timeout time.Duration `koanf:"timeout"`
	// AttemptTimeout bounds one attempt of a unary call that may be tried again, inside the deadline; an attempt that must not be repeated has
	// all the time that is left once there is a connection. For that it waits as long, and a stream too, while there are other instances. 0 means no
	// bound. Default 3s.
	AttemptTimeout time.Duration `koanf:"attempt_timeout"`
	// WaitForInstances makes a call to a service without instances wait for one until its deadline, instead of failing at once with
	// [ErrNoInstances]. Default false.
	WaitForInstances bool `koanf:"wait_for_instances"`
	// MaxReceiveBytes bounds a response message, decompressed. Default 4 MiB.
	MaxReceiveBytes int `koanf:"max_receive_bytes"`
	// MaxSendBytes bounds a request message. Default 4 MiB.
	MaxSendBytes int `koanf:"max_send_bytes"`
	// CompressRequests compresses request messages of at least CompressMinBytes with gzip. Default false.
	CompressRequests bool `koanf:"compress_requests"`
	// CompressMinBytes is the size from which on messages are compressed. Default 1 KiB.
	CompressMinBytes int `koanf:"compress_min_bytes"`

	// Retry says when a failed attempt is followed by another.
	Retry RetryConfig `koanf:"retry"`
	// Admission bounds the calls that are under way at a time.
	Admission AdmissionConfig `koanf:"admission"`
	// Balancer chooses the instance of each attempt.
	Balancer BalancerConfig `koanf:"balancer"`
	// Breaker keeps calls away from an instance that fails.
	Breaker BreakerConfig `koanf:"breaker"`
	// Outlier keeps calls away from instances that fail where their peers do not.
	Outlier OutlierConfig `koanf:"outlier"`
	// Pool keeps the connections to each instance.
	Pool PoolConfig `koanf:"pool"`
	// TLS protects the connections.
	TLS TLSConfig `koanf:"tls"`
	// Methods holds what differs for single methods, by their full protobuf name, such as "goplt.auth.v1.AuthService.ValidateToken", or for all methods
	// of a service, by its name. The name of the method wins over that of its service, as a whole. Default none.
	Methods map[string]MethodConfig `koanf:"methods"`
}

// RetryConfig says when a failed attempt is followed by another: never after the caller's deadline or cancellation, never for an
// application's own error, and for a method that is not idempotent only when the failed attempt provably was not executed.
type RetryConfig struct {
	// MaxAttempts bounds the attempts of a call, the first included; 1 disables retries, at most 5 (gRFC A6). Not counted is one that is made at once,
	// once in a call, in place of one that provably was not executed (transparent retry). Default 3.
	MaxAttempts int `koanf:"max_attempts"`
	// InitialBackoff is the cap of the random delay before the first retry. Default 20ms.
	InitialBackoff time.Duration `koanf:"initial_backoff"`
	// MaxBackoff is the cap of the random delay before any retry. Default 1s.
	MaxBackoff time.Duration `koanf:"max_backoff"`
	// BackoffMultiplier raises the cap from retry to retry. Default 2.
	BackoffMultiplier float64 `koanf:"backoff_multiplier"`
	// BudgetTokens is the size of the token bucket of the service: each failed attempt that could be retried takes a token, each success gives back
	// BudgetRatio, and retries happen only while more than half are left (gRFC A6, retry throttling). Default 100.
	BudgetTokens float64 `koanf:"budget_tokens"`
	// BudgetRatio is what a success gives back, and so the share of load that retries may add at steady state. Default 0.1.
	BudgetRatio float64 `koanf:"budget_ratio"`
}

// AdmissionConfig bounds the calls of one client that are under way at a time, so that a service that is slow does not hold all that the caller has:
// its goroutines, memory and connections. Calls beyond the bound fail with [ErrTooManyCalls]. Streams count as long as they are open. It does not
// apply to the protocol inprocess.
type AdmissionConfig struct {
	// MaxConcurrentCalls is how many may be under way at a time (a bulkhead). 0 means no bound. Default 0.
	MaxConcurrentCalls int `koanf:"max_concurrent_calls"`
	// MaxWait is how long a call may wait until there is room, in the order of arrival and within its deadline. 0 means that it fails at once. Default
	// 0.
	MaxWait time.Duration `koanf:"max_wait"`
	// Adaptive has the bound move below MaxConcurrentCalls by the latencies of the service: from 20 on it rises while they stay, and falls when they
	// rise with the number of calls under way, which then only wait for each other. Default false.
	Adaptive bool `koanf:"adaptive"`
}

// BreakerConfig configures the circuit breaker of each instance.
type BreakerConfig struct {
	// Enabled switches the breakers on. Default true.
	Enabled bool `koanf:"enabled"`
	// FailureRate opens the breaker when this share of the attempts within Window failed; 0 < rate ≤ 1. Only failures to serve count:
	// connections that fail, time-outs, and gateways that answer in the instance's place; never an error of the service's own, UNAVAILABLE
	// included. Default 0.5.
	FailureRate float64 `koanf:"failure_rate"`
	// MinCalls is how many attempts within Window the rate needs to mean anything. Default 10.
	MinCalls uint `koanf:"min_calls"`
	// Window is the length of time over which the rate is taken. Default 10s.
	Window time.Duration `koanf:"window"`
	// OpenFor is how long the breaker keeps calls away before it lets one probe. Default 5s.
	OpenFor time.Duration `koanf:"open_for"`
	// HalfOpenSuccesses is how many probes must succeed to close the breaker. Default 2.
	HalfOpenSuccesses uint `koanf:"half_open_successes"`
}

// OutlierConfig configures the ejection of outliers: instances that fail where their peers do not. An ejected one gets no calls until its
// time has passed and a probe of it, by grpc.health.v1, has succeeded. Only failures to serve count, as for [BreakerConfig]. What gRFC A50
// has means what it means there (https://github.com/grpc/proposal/blob/master/A50-xds-outlier-detection.md).
type OutlierConfig struct {
	// Enabled switches ejection on. Default true.
	Enabled bool `koanf:"enabled"`
	// Interval is the time between two looks at the rates of all instances. There are none while there are no calls. Default 10s (A50).
	Interval time.Duration `koanf:"interval"`
	// BaseEjection is how long an instance's first ejection lasts. The next lasts twice as long, and so on, and each interval that it serves
	// takes one step back. Default 30s (A50).
	BaseEjection time.Duration `koanf:"base_ejection"`
	// MaxEjection bounds an ejection; at least BaseEjection. Default 5m (A50).
	MaxEjection time.Duration `koanf:"max_ejection"`
	// MaxEjectedPercent bounds the share of instances that are out at a time, 0 to 100. One may always be, but never the last that serves.
	// Default 10 (A50).
	MaxEjectedPercent int `koanf:"max_ejected_percent"`
	// PanicPercent is the share of instances, 0 to 100, below which calls go to all again if fewer are left: serving from all beats
	// burying the rest. 0 means never. Default 50 (Envoy's healthy panic threshold).
	PanicPercent int `koanf:"panic_percent"`
	// ConsecutiveFailures ejects an instance at once after so many failures in a row, of calls or of active probes. 0 means never. Default 5
	// (Envoy).
	ConsecutiveFailures int `koanf:"consecutive_failures"`
	// SuccessRate ejects instances whose success rate is far below that of the others.
	SuccessRate SuccessRateConfig `koanf:"success_rate"`
	// FailurePercentage ejects instances of whose calls too many fail.
	FailurePercentage FailurePercentageConfig `koanf:"failure_percentage"`
	// Probe asks instances for their health.
	Probe ProbeConfig `koanf:"probe"`
}

// SuccessRateConfig ejects each instance whose share of calls that succeeded within an interval lies too far below the mean of all.
type SuccessRateConfig struct {
	// Enabled switches the comparison on. Default true.
	Enabled bool `koanf:"enabled"`
	// StdevFactor is how far below the mean too far is, in thousandths of the standard deviation. Default 1900 (A50).
	StdevFactor int `koanf:"stdev_factor"`
	// EnforcementPercent is the chance that an outlier found is ejected, 0 to 100. Default 100 (A50).
	EnforcementPercent int `koanf:"enforcement_percent"`
	// MinHosts is how many instances must have RequestVolume calls for their mean to mean anything. Default 5 (A50).
	MinHosts int `koanf:"min_hosts"`
	// RequestVolume is how many calls within an interval an instance must have to be compared. Default 100 (A50).
	RequestVolume int `koanf:"request_volume"`
}

// FailurePercentageConfig ejects each instance of whose calls within an interval too many failed, whatever those of the others did.
type FailurePercentageConfig struct {
	// Enabled switches it on. Default true.
	Enabled bool `koanf:"enabled"`
	// Threshold is the percentage that must be exceeded, 0 to 100. Default 85 (A50).
	Threshold int `koanf:"threshold"`
	// EnforcementPercent is the chance that an instance above the threshold is ejected, 0 to 100. Default 100 (A50).
	EnforcementPercent int `koanf:"enforcement_percent"`
	// MinHosts is how many instances there must be. Default 5 (A50).
	MinHosts int `koanf:"min_hosts"`
	// RequestVolume is how many calls within an interval an instance must have to be judged. Default 50 (A50).
	RequestVolume int `koanf:"request_volume"`
}

// ProbeConfig configures the calls of grpc.health.v1.Health/Check to single instances. An instance that does not offer it, or not to this
// client, passes by answering at all.
type ProbeConfig struct {
	// Timeout bounds one probe, the opening of a connection included. Default 1s.
	Timeout time.Duration `koanf:"timeout"`
	// Interval is the time between two probes of an instance that serves, give or take a fifth: active probing, which finds it ill before a call
	// does, at the cost of calls also when there is nothing to do. ConsecutiveFailures of them in a row eject. 0 means that only instances
	// that were ejected are probed. Default 0.
	Interval time.Duration `koanf:"interval"`
}

// PoolConfig configures the connections that a [Transport] keeps to each instance.
type PoolConfig struct {
	// MaxConnections bounds the gRPC connections to one instance; a further one is opened only when those there have no stream free.
	// Default 4.
	MaxConnections int `koanf:"max_connections"`
	// MaxHTTPConnections bounds the HTTP/1.1 connections to one instance, each of which carries one call at a time; further calls
	// wait for one. Default 256.
	MaxHTTPConnections int `koanf:"max_http_connections"`
	// MinConnections are opened before a call asks for one, of the kind that the instance is spoken to by, and kept: what is lost, idle or
	// old is replaced in the background. Across a fleet, that is this many connections from each client to each instance. 0 means that
	// the first call to an instance waits for its connection. Default 0.
	MinConnections int `koanf:"min_connections"`
	// DialTimeout bounds the opening of a connection, TLS handshake included. Default 2s.
	DialTimeout time.Duration `koanf:"dial_timeout"`
	// IdleTimeout closes a connection without calls after this time, down to MinConnections. 0 means never. Default 90s.
	IdleTimeout time.Duration `koanf:"idle_timeout"`
	// MaxAge is for how long a connection takes calls, give or take 20 % for each, so that clients come to know what changed behind an
	// address: a name's other addresses, other machines behind a proxy, other certificates. Calls on it finish, and where it is needed,
	// its successor is opened first. 0 means for ever. Default 30m.
	MaxAge time.Duration `koanf:"max_age"`
	// PingInterval is how long a gRPC connection with calls in flight may be silent before an HTTP/2 ping asks whether the peer is there;
	// doubled whenever a server complains (ENHANCE_YOUR_CALM). 0 means no pings: the kernel's keep-alives, which are always on, find a
	// peer that vanished within 15s, and gRPC servers close connections that ping more often than every 5 minutes while the server sends
	// nothing. Set it, and the servers' enforcement to match, where streams without a deadline have to notice a process that hangs, or
	// where a proxy on the way answers keep-alives in the peer's place. Default 0.
	PingInterval time.Duration `koanf:"ping_interval"`
	// PingTimeout is how long a sign of life may take after a ping before the connection is closed. Default 5s.
	PingTimeout time.Duration `koanf:"ping_timeout"`
	// DrainTimeout is how long Close, and the removal of an instance, let calls in flight finish. Default 10s.
	DrainTimeout time.Duration `koanf:"drain_timeout"`
}

// TLSConfig protects connections. Files are read when the transport is constructed and when the server starts.
type TLSConfig struct {
	// Enabled switches TLS on. While it is false, the other fields have no effect; package config refuses them in a file, or in variables, that do not
	// say whether it is. Default false.
	Enabled bool `koanf:"enabled"`
	// CAFile holds the PEM certificates of the authorities to trust in the peer; the system's if empty. On a server, setting it makes
	// client certificates mandatory.
	CAFile string `koanf:"ca_file"`
	// CertFile holds the PEM certificate chain to present. Required on a server.
	CertFile string `koanf:"cert_file"`
	// KeyFile holds the PEM private key of CertFile.
	KeyFile string `koanf:"key_file"`
	// ServerName is the name that the peer's certificate must be valid for; the instance's host if empty. Clients only.
	ServerName string `koanf:"server_name"`
}

// ServerConfig configures a [Server]. Start from [DefaultServerConfig]: the zero value is not valid.
type ServerConfig struct {
	// Listen is the TCP address to listen on, host:port; port 0 picks a free one. Default 127.0.0.1:8080.
	Listen string `koanf:"listen"`
	// Advertise is the host:port under which the server registers; port 0 means the port it listens on. If empty, the address it listens
	// on, and if that is all addresses, such as 0.0.0.0, the machine's only one; a machine with several needs Advertise.
	// It must reach this process alone: what else is registered for the same service at the same host and port is taken for a predecessor's.
	Advertise string `koanf:"advertise"`
	// Weight is the instance's share of calls relative to others, in the registry. Default 1.
	Weight int `koanf:"weight"`
	// Zone is where the instance runs, in the registry. Default none.
	Zone string `koanf:"zone"`
	// Tags label the instance in the registry. Default none.
	Tags []string `koanf:"tags"`
	// MaxReceiveBytes bounds a request message, decompressed. Default 4 MiB.
	MaxReceiveBytes int `koanf:"max_receive_bytes"`
	// MaxSendBytes bounds a response message as it is sent, compressed or not. Default 4 MiB.
	MaxSendBytes int `koanf:"max_send_bytes"`
	// CompressMinBytes is the size from which on responses are compressed for clients that accept it. Default 1 KiB.
	CompressMinBytes int `koanf:"compress_min_bytes"`
	// ReadHeaderTimeout bounds the reading of a request's header over HTTP/1.1, and of a TLS handshake. Default 5s.
	ReadHeaderTimeout time.Duration `koanf:"read_header_timeout"`
	// IdleTimeout closes a connection without calls after this time. Default 2m.
	IdleTimeout time.Duration `koanf:"idle_timeout"`
	// RequestTimeout bounds the reading and serving of a unary call, against clients that send or read slowly; a caller's earlier deadline
	// holds too. Its answer may be read for a second longer. 0 means no bound. It does not apply to streams, but for the arrival of the one
	// request message of a server stream. Default 30s.
	RequestTimeout time.Duration `koanf:"request_timeout"`
	// MaxConcurrentStreams bounds the calls on one HTTP/2 connection. Default 1000.
	MaxConcurrentStreams int `koanf:"max_concurrent_streams"`
	// MaxConcurrentCalls bounds the calls that the server works on at a time, on all connections, each from the arrival of its header to its end, and
	// streams as long as they are open. Those beyond it are rejected at once, as by Shedding, but for calls of grpc.health.v1 and grpc.reflection.
	// 0 means no bound. Default 0.
	MaxConcurrentCalls int `koanf:"max_concurrent_calls"`
	// Shedding rejects calls while the server is overloaded.
	Shedding SheddingConfig `koanf:"shedding"`
	// Reflection serves grpc.reflection, which shows the API to anyone who can connect. Default true.
	Reflection bool `koanf:"reflection"`
	// DeregisterDelay is how long a stopping server goes on serving after it deregistered, so that the news spreads; a server that was not
	// registered does not wait. Default 1s.
	DeregisterDelay time.Duration `koanf:"deregister_delay"`
	// DrainTimeout is how long a stopping server lets calls in flight finish before it cuts them off. Default 10s.
	DrainTimeout time.Duration `koanf:"drain_timeout"`
	// TLS protects the connections; gRPC then needs TLS too.
	TLS TLSConfig `koanf:"tls"`
}

// DefaultClientConfig returns the defaults that the fields of [ClientConfig] name.
func DefaultClientConfig() ClientConfig {
	return ClientConfig{
		Protocol:         ProtocolAuto,
		Timeout:          10 * time.Second,
		AttemptTimeout:   3 * time.Second,
		MaxReceiveBytes:  4 << 20,
		MaxSendBytes:     4 << 20,
		CompressMinBytes: 1 << 10,
		Retry: RetryConfig{
			MaxAttempts: 3, InitialBackoff: 20 * time.Millisecond, MaxBackoff: time.Second, BackoffMultiplier: 2,
			BudgetTokens: 100, BudgetRatio: 0.1,
		},
		Balancer: defaultBalancerConfig(),
		Breaker: BreakerConfig{
			Enabled: true, FailureRate: 0.5, MinCalls: 10, Window: 10 * time.Second, OpenFor: 5 * time.Second, HalfOpenSuccesses: 2,
		},
		Outlier: OutlierConfig{
			Enabled: true, Interval: 10 * time.Second, BaseEjection: 30 * time.Second, MaxEjection: 5 * time.Minute,
			MaxEjectedPercent: 10, PanicPercent: 50, ConsecutiveFailures: 5,
			SuccessRate:       SuccessRateConfig{Enabled: true, StdevFactor: 1900, EnforcementPercent: 100, MinHosts: 5, RequestVolume: 100},
			FailurePercentage: FailurePercentageConfig{Enabled: true, Threshold: 85, EnforcementPercent: 100, MinHosts: 5, RequestVolume: 50},
			Probe:             ProbeConfig{Timeout: time.Second},
		},
		Pool: PoolConfig{
			MaxConnections: 4, MaxHTTPConnections: 256, DialTimeout: 2 * time.Second, IdleTimeout: 90 * time.Second, MaxAge: 30 * time.Minute,
			PingTimeout: 5 * time.Second, DrainTimeout: 10 * time.Second,
		},
	}
}

// DefaultServerConfig returns the defaults that the fields of [ServerConfig] name.
func DefaultServerConfig() ServerConfig {
	return ServerConfig{
		Listen: "127.0.0.1:8080", Weight: 1,
		MaxReceiveBytes: 4 << 20, MaxSendBytes: 4 << 20, CompressMinBytes: 1 << 10,
		ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, RequestTimeout: 30 * time.Second,
		MaxConcurrentStreams: 1000, Shedding: defaultSheddingConfig(), Reflection: true,
		DeregisterDelay: time.Second, DrainTimeout: 10 * time.Second,
	}
}

// KeyError says which configuration key holds an impossible value. [ClientConfig.Validate] and [ServerConfig.Validate] return theirs
// joined by [errors.Join], so that a reader mends all at once.
type KeyError struct {
	// Key is the key within the validated struct, such as "retry.max_attempts".
	Key string
	// Value is the value found.
	Value any
	// Want says what would be right.
	Want string
}

// Error names the key, the value and what would be right.
func (e *KeyError) Error() string { return fmt.Sprintf("%s: %v is not %s", e.Key, e.Value, e.Want) }

// Validate returns a [*KeyError] for each field that is impossible, joined, or nil. It opens no file.
func (c ClientConfig) Validate() error {
	var v validation
	switch c.Protocol {
	case ProtocolAuto, ProtocolGRPC, ProtocolHTTP, ProtocolInProcess:
	default:
		v.add("protocol", fmt.Sprintf("%q", c.Protocol), "one of auto, grpc, http, inprocess")
	}
	v.notNegative("timeout", c.Timeout)
	v.notNegative("attempt_timeout", c.AttemptTimeout)
	v.positive("max_receive_bytes", c.MaxReceiveBytes)
	v.positive("max_send_bytes", c.MaxSendBytes)
	v.check("compress_min_bytes", c.CompressMinBytes >= 0, c.CompressMinBytes, "0 or more")
	v.check("retry.max_attempts", 1 <= c.Retry.MaxAttempts && c.Retry.MaxAttempts <= 5, c.Retry.MaxAttempts, "within 1 to 5")
	v.positiveDuration("retry.initial_backoff", c.Retry.InitialBackoff)
	v.check("retry.max_backoff", c.Retry.MaxBackoff >= c.Retry.InitialBackoff, c.Retry.MaxBackoff, "at least retry.initial_backoff")
	v.check("retry.backoff_multiplier", c.Retry.BackoffMultiplier >= 1, c.Retry.BackoffMultiplier, "1 or more")
	v.check("retry.budget_tokens", c.Retry.BudgetTokens >= 1 && c.Retry.BudgetTokens <= 1000, c.Retry.BudgetTokens, "within 1 to 1000")
	v.check("retry.budget_ratio", c.Retry.BudgetRatio > 0 && c.Retry.BudgetRatio <= 1, c.Retry.BudgetRatio, "above 0 and at most 1")
	v.check("admission.max_concurrent_calls", c.Admission.MaxConcurrentCalls >= 0, c.Admission.MaxConcurrentCalls, "0 or more")
	v.notNegative("admission.max_wait", c.Admission.MaxWait)
	v.check("admission.adaptive", !c.Admission.Adaptive || c.Admission.MaxConcurrentCalls > 0, c.Admission.Adaptive,
		"possible without admission.max_concurrent_calls, below which the bound moves")
	c.Balancer.validate(&v)
	v.check("breaker.failure_rate", c.Breaker.FailureRate > 0 && c.Breaker.FailureRate <= 1, c.Breaker.FailureRate, "above 0 and at most 1")
	v.check("breaker.min_calls", c.Breaker.MinCalls >= 1, c.Breaker.MinCalls, "1 or more")
	v.positiveDuration("breaker.window", c.Breaker.Window)
	v.positiveDuration("breaker.open_for", c.Breaker.OpenFor)
	v.check("breaker.half_open_successes", c.Breaker.HalfOpenSuccesses >= 1, c.Breaker.HalfOpenSuccesses, "1 or more")
	c.Outlier.validate(&v)
	v.positive("pool.max_connections", c.Pool.MaxConnections)
	v.positive("pool.max_http_connections", c.Pool.MaxHTTPConnections)
	v.check("pool.min_connections", 0 <= c.Pool.MinConnections && c.Pool.MinConnections <= min(c.Pool.MaxConnections, c.Pool.MaxHTTPConnections),
		c.Pool.MinConnections, "within 0 to pool.max_connections and pool.max_http_connections")
	v.positiveDuration("pool.dial_timeout", c.Pool.DialTimeout)
	v.notNegative("pool.idle_timeout", c.Pool.IdleTimeout)
	v.notNegative("pool.max_age", c.Pool.MaxAge)
	v.notNegative("pool.ping_interval", c.Pool.PingInterval)
	v.positiveDuration("pool.ping_timeout", c.Pool.PingTimeout)
	v.notNegative("pool.drain_timeout", c.Pool.DrainTimeout)
	validateMethods(c.Methods, &v)
	v.check("tls.key_file", (c.TLS.CertFile == "") == (c.TLS.KeyFile == ""), fmt.Sprintf("%q", c.TLS.KeyFile), "set together with tls.cert_file")
	return v.err()
}

// validate checks the keys below "outlier".
func (c *OutlierConfig) validate(v *validation) {
	v.positiveDuration("outlier.interval", c.Interval)
	v.positiveDuration("outlier.base_ejection", c.BaseEjection)
	v.check("outlier.max_ejection", c.MaxEjection >= c.BaseEjection, c.MaxEjection, "at least outlier.base_ejection")
	v.percent("outlier.max_ejected_percent", c.MaxEjectedPercent)
	v.percent("outlier.panic_percent", c.PanicPercent)
	v.check("outlier.consecutive_failures", c.ConsecutiveFailures >= 0, c.ConsecutiveFailures, "0 or more")
	v.check("outlier.success_rate.stdev_factor", c.SuccessRate.StdevFactor >= 0, c.SuccessRate.StdevFactor, "0 or more")
	v.percent("outlier.success_rate.enforcement_percent", c.SuccessRate.EnforcementPercent)
	v.positive("outlier.success_rate.min_hosts", c.SuccessRate.MinHosts)
	v.positive("outlier.success_rate.request_volume", c.SuccessRate.RequestVolume)
	v.percent("outlier.failure_percentage.threshold", c.FailurePercentage.Threshold)
	v.percent("outlier.failure_percentage.enforcement_percent", c.FailurePercentage.EnforcementPercent)
	v.positive("outlier.failure_percentage.min_hosts", c.FailurePercentage.MinHosts)
	v.positive("outlier.failure_percentage.request_volume", c.FailurePercentage.RequestVolume)
	v.positiveDuration("outlier.probe.timeout", c.Probe.Timeout)
	v.notNegative("outlier.probe.interval", c.Probe.Interval)
	v.check("outlier.probe.interval", c.Probe.Interval <= 0 || c.ConsecutiveFailures > 0, c.Probe.Interval,
		"0 while outlier.consecutive_failures is, by which failed probes are counted")
}

// Validate returns a [*KeyError] for each field that is impossible, joined, or nil. It opens no file.
func (c ServerConfig) Validate() error {
	var v validation
	v.hostPort("listen", c.Listen)
	if c.Advertise != "" {
		v.hostPort("advertise", c.Advertise)
		if host, _, err := net.SplitHostPort(c.Advertise); err == nil {
			ip, _ := netip.ParseAddr(host)
			v.check("advertise", host != "" && !ip.IsUnspecified(), fmt.Sprintf("%q", c.Advertise), "an address that others can reach")
		}
	}
	v.check("weight", 0 <= c.Weight && c.Weight <= 65535, c.Weight, "within 0 to 65535")
	v.positive("max_receive_bytes", c.MaxReceiveBytes)
	v.positive("max_send_bytes", c.MaxSendBytes)
	v.check("compress_min_bytes", c.CompressMinBytes >= 0, c.CompressMinBytes, "0 or more")
	v.positiveDuration("read_header_timeout", c.ReadHeaderTimeout)
	v.positiveDuration("idle_timeout", c.IdleTimeout)
	v.notNegative("request_timeout", c.RequestTimeout)
	v.check("max_concurrent_streams", 1 <= c.MaxConcurrentStreams && c.MaxConcurrentStreams <= math.MaxInt32, c.MaxConcurrentStreams,
		"within 1 to 2147483647")
	v.check("max_concurrent_calls", c.MaxConcurrentCalls >= 0, c.MaxConcurrentCalls, "0 or more")
	c.Shedding.validate(&v)
	v.notNegative("deregister_delay", c.DeregisterDelay)
	v.notNegative("drain_timeout", c.DrainTimeout)
	if c.TLS.Enabled {
		v.check("tls.cert_file", c.TLS.CertFile != "", `""`, "a file, which a server with TLS needs")
		v.check("tls.key_file", c.TLS.KeyFile != "", `""`, "a file, which a server with TLS needs")
	}
	return v.err()
}

// validation collects what is wrong with a configuration.
type validation struct{ problems []error }

func (v *validation) err() error { return errors.Join(v.problems...) }

func (v *validation) add(key string, value any, want string) {
	v.problems = append(v.problems, &KeyError{Key: key, Value: value, Want: want})
}

func (v *validation) check(key string, ok bool, value any, want string) { //nolint:revive // ok is what was found, not a mode
	if !ok {
		v.add(key, value, want)
	}
}

func (v *validation) positive(key string, value int) { v.check(key, value > 0, value, "1 or more") }

func (v *validation) percent(key string, value int) {
	v.check(key, 0 <= value && value <= 100, value, "within 0 to 100")
}

func (v *validation) notNegative(key string, value time.Duration) {
	v.check(key, value >= 0, value, "0 or more")
}

func (v *validation) positiveDuration(key string, value time.Duration) {
	v.check(key, value > 0, value, "above 0")
}

func (v *validation) hostPort(key, value string) {
	_, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	v.check(key, err == nil, fmt.Sprintf("%q", value), "host:port with a port within 0 to 65535")
}
