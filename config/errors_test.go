package config_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/pkg/rpc"
)

const durations = "a duration such as 500ms, 30s or 1m30s"

// An errorTest is a configuration that cannot be loaded, and what is said of it.
type errorTest struct {
	file    string
	environ []string
	want    string
}

func (test errorTest) run(t *testing.T) {
	t.Helper()
	loaded, err := config.Load(inFile(t, test.file), test.environ)
	if err == nil {
		t.Fatalf("no error, want:\n%s", test.want)
	}
	if diff := cmp.Diff(test.want, err.Error()); diff != "" {
		t.Errorf("error differs (-want +got):\n%s", diff)
	}
	if loaded != nil {
		t.Error("a configuration came with the error")
	}
}

// TestSwitchedOff: who switches something off in one layer need not take back what another says of it.
func TestSwitchedOff(t *testing.T) {
	const file = `
tls: {enabled: true, ca_file: ca.pem}
server: {tls: {enabled: true, cert_file: c.pem, key_file: k.pem}}
admission: {max_concurrent_calls: 5, max_wait: 1s}
methods: {goplt.auth.v1.AuthService.ValidateToken: {hedge: {delay: 1s}}}
services:
  auth: {tls: {enabled: false}, admission: {max_concurrent_calls: 0}, retry: {max_attempts: 1}}
`
	for _, variable := range []string{"GOPLT_LOG_LEVEL=debug", "GOPLT_TLS_ENABLED=false", "GOPLT_SERVER_TLS_ENABLED=false", "GOPLT_RETRY_MAX_ATTEMPTS=1"} {
		if _, err := config.Load(inFile(t, file), []string{variable}); err != nil {
			t.Errorf("%s: %v", variable, err)
		}
	}
}

func TestErrors(t *testing.T) {
	for name, test := range map[string]errorTest{
		"section misspelt": {
			file: "protocol: grpc\nretrys:\n  max_attempts: 3\n  budget_ratio: 0.2\n",
			want: `unknown key "retrys.max_attempts" in goplt.yaml line 3: did you mean "retry.max_attempts"?
unknown key "retrys.budget_ratio" in goplt.yaml line 4: did you mean "retry.budget_ratio"?`,
		},
		"empty section misspelt": {file: "retrys:\n", want: `unknown key "retrys" in goplt.yaml line 1: did you mean "retry"?`},
		"key misspelt": {
			file: "retry: {max_atempts: 3}", want: `unknown key "retry.max_atempts" in goplt.yaml line 1: did you mean "retry.max_attempts"?`,
		},
		"key in camel case": {
			file: "retry: {maxAttempts: 3}", want: `unknown key "retry.maxAttempts" in goplt.yaml line 1: did you mean "retry.max_attempts"?`,
		},
		"key outside its section": {
			file: "max_attempts: 3", want: `unknown key "max_attempts" in goplt.yaml line 1: did you mean "retry.max_attempts"?`,
		},
		"section too many": {
			file: "pool: {dial: {timeout: 3s}}", want: `unknown key "pool.dial.timeout" in goplt.yaml line 1: did you mean "pool.dial_timeout"?`,
		},
		"key of a service misspelt": {
			file: "services: {auth: {timeouts: 3s}}", want: `unknown key "services.auth.timeouts" in goplt.yaml line 1: did you mean "services.auth.timeout"?`,
		},
		"TLS that nobody switched on": {
			file: "tls: {ca_file: ca.pem}\nserver: {tls: {cert_file: c.pem, key_file: k.pem}}\nservices: {auth: {tls: {server_name: a}}}",
			want: `tls.ca_file in goplt.yaml line 1: has no effect while tls.enabled is not set: connections would be in cleartext
server.tls.cert_file in goplt.yaml line 2: has no effect while server.tls.enabled is not set: connections would be in cleartext
server.tls.key_file in goplt.yaml line 2: has no effect while server.tls.enabled is not set: connections would be in cleartext
services.auth.tls.server_name in goplt.yaml line 3: has no effect while services.auth.tls.enabled is not set: connections would be in cleartext`,
		},
		"a wait for nothing": {
			file: "admission: {max_wait: 1s}",
			want: "admission.max_wait in goplt.yaml line 1: has no effect while admission.max_concurrent_calls is not set: there would be nothing to wait for",
		},
		"key near nothing": {
			file: "log: {colour: red}", want: `unknown key "log.colour" in goplt.yaml line 1; want one of format, level`,
		},
		"control characters in a key": {
			file: `log: {"\x1b[2J": red}`, want: `unknown key "log.\x1b[2J" in goplt.yaml line 1; want one of format, level`,
		},
		"flat key": {
			file: "retry.max_attempts: 2\n",
			want: `unknown key "retry.max_attempts" in goplt.yaml line 1: keys are nested: write max_attempts beneath "retry"`,
		},
		"flat key in a section": {
			file: "discovery:\n  consul.check.kind: ttl\n",
			want: `unknown key "discovery.consul.check.kind" in goplt.yaml line 2: keys are nested: write kind beneath "discovery.consul.check"`,
		},
		"flat section": {
			file: "discovery.consul:\n  address: 127.0.0.1:8500\n",
			want: `unknown key "discovery.consul.address" in goplt.yaml line 2: keys are nested: write address beneath "discovery.consul"`,
		},
		"flat key of a service": {
			file: "services.auth.retry.max_attempts: 2\nservices:\n  audit:\n    retry.max_attempts: 2\n",
			want: `unknown key "services.auth.retry.max_attempts" in goplt.yaml line 1: keys are nested: write max_attempts beneath "services.auth.retry"
unknown key "services.audit.retry.max_attempts" in goplt.yaml line 4: keys are nested: write max_attempts beneath "services.audit.retry"`,
		},
		"flat key of a method": {
			file: "methods.a.B.C.timeout: 1s\n",
			want: `unknown key "methods.a.B.C.timeout" in goplt.yaml line 1: keys are nested: write timeout beneath "methods.a.B.C"`,
		},
		"flat key misspelt": {
			file: "retry.max_atempts: 2\n", want: `unknown key "retry.max_atempts" in goplt.yaml line 1: did you mean "retry.max_attempts"?`,
		},
		"key twice": {
			file: "retry:\n  max_attempts: 3\n  max_attempts: 4\n", want: `retry in goplt.yaml line 3: key "max_attempts" is set twice, first in line 2`,
		},
		"section twice": {file: "retry: {}\nretry: {}\n", want: `goplt.yaml line 2: key "retry" is set twice, first in line 1`},
		"merge key": {
			file: "log: &l {}\nretry:\n  <<: *l\n", want: `retry in goplt.yaml line 3: merge keys ("<<") are not supported; repeat the keys`,
		},
		"key not a name": {file: "retry: {[a]: b}", want: "retry in goplt.yaml line 1: a key is a name, not a list"},
		"slash in a key": {file: "retry/max_attempts: 3", want: `goplt.yaml line 1: "retry/max_attempts" is not the name of a key`},
		"two documents":  {file: "timeout: 1s\n---\ntimeout: 2s\n", want: "goplt.yaml: holds more than one YAML document; want one"},
		"not YAML":       {file: "timeout: 1s\n  retry: [\n", want: "goplt.yaml: not YAML: line 2: mapping values are not allowed in this context"},
		"not a mapping": {
			file: "- timeout",
			want: "goplt.yaml line 1: a list is not a section of keys; want some of protocol, timeout, attempt_timeout, wait_for_instances, " +
				"max_receive_bytes, max_send_bytes, compress_requests, compress_min_bytes, retry, admission, balancer, breaker, outlier, pool, tls, methods, discovery, " +
				"server, log, services beneath",
		},
		"value, section":  {file: "log: debug", want: `log in goplt.yaml line 1: "debug" is not a section of keys; want some of level, format beneath`},
		"section, value":  {file: "timeout: {a: b}", want: "timeout in goplt.yaml line 1: a section of keys is not " + durations},
		"list, value":     {file: "timeout: [1s]", want: "timeout in goplt.yaml line 1: a list is not " + durations},
		"no value":        {file: "timeout:\n", want: "timeout in goplt.yaml line 1: has no value; want " + durations},
		"no unit":         {file: "timeout: 30", want: "timeout in goplt.yaml line 1: 30 has no unit; want " + durations},
		"no unit, quoted": {file: "timeout: '30'", want: `timeout in goplt.yaml line 1: "30" has no unit; want ` + durations},
		"no duration":     {file: "timeout: fast", want: `timeout in goplt.yaml line 1: "fast" is not ` + durations},
		"duration true":   {file: "timeout: true", want: "timeout in goplt.yaml line 1: true is not " + durations},
		"no truth value":  {file: "wait_for_instances: yes", want: `wait_for_instances in goplt.yaml line 1: "yes" is not true or false`},
		"truth in quotes": {
			file: "wait_for_instances: 'true'", want: `wait_for_instances in goplt.yaml line 1: "true" is not true or false; remove the quotes`,
		},
		"truth number": {file: "wait_for_instances: 1", want: "wait_for_instances in goplt.yaml line 1: 1 is not true or false"},
		"fraction":     {file: "retry: {max_attempts: 2.5}", want: "retry.max_attempts in goplt.yaml line 1: 2.5 is not a whole number"},
		"number, quotes": {
			file: "retry: {max_attempts: '2'}", want: `retry.max_attempts in goplt.yaml line 1: "2" is not a whole number; remove the quotes`,
		},
		"octal": {file: "max_send_bytes: 010", want: "max_send_bytes in goplt.yaml line 1: 010 is not a whole number"},
		"beyond 64 bits": {
			file: "max_send_bytes: 9223372036854775808", want: "max_send_bytes in goplt.yaml line 1: 9223372036854775808 is beyond the numbers of 64 bits",
		},
		"negative count":  {file: "breaker: {min_calls: -1}", want: "breaker.min_calls in goplt.yaml line 1: -1 is not a whole number of 0 or more"},
		"no number":       {file: "retry: {budget_ratio: high}", want: `retry.budget_ratio in goplt.yaml line 1: "high" is not a number`},
		"infinite number": {file: "retry: {backoff_multiplier: .inf}", want: "retry.backoff_multiplier in goplt.yaml line 1: .inf is not a number"},
		"number as text":  {file: "server: {zone: 5}", want: "server.zone in goplt.yaml line 1: 5 is not text; put it in quotes"},
		"text as list":    {file: "server: {tags: blue}", want: `server.tags in goplt.yaml line 1: "blue" is not a list such as [a, b]`},
		"number in list":  {file: "server: {tags: [blue, 5]}", want: "server.tags in goplt.yaml line 1: entry 2, 5, is not text; put it in quotes"},
		"list in list":    {file: "server: {tags: [[blue]]}", want: "server.tags in goplt.yaml line 1: entry 1, a list, is not text; put it in quotes"},

		"impossible value": {file: "\nretry:\n  max_attempts: 9", want: "retry.max_attempts in goplt.yaml line 3: 9 is not within 1 to 5"},
		"protocol":         {file: "protocol: soap", want: `protocol in goplt.yaml line 1: "soap" is not one of auto, grpc, http, inprocess`},
		"provider": {
			file: "discovery: {provider: etcd}", want: `discovery.provider in goplt.yaml line 1: "etcd" is not one of consul, static, memory`,
		},
		"static address": {
			file: "discovery: {static: {auth: ['10.0.0.1']}}", want: `discovery.static.auth in goplt.yaml line 1: "10.0.0.1" is not host:port`,
		},
		"static port 0": {
			file: "discovery: {static: {auth: ['10.0.0.1:0']}}", want: `discovery.static.auth in goplt.yaml line 1: "10.0.0.1:0" is not host:port`,
		},
		"static service": {
			file: "discovery: {static: {a..b: []}}", want: `discovery.static in goplt.yaml line 1: service name "a..b" holds ".."`,
		},
		"service": {
			file: "services: {-a: {}}",
			want: `services in goplt.yaml line 1: service name "-a" holds '-' at byte 0; want letters, digits, '-', '_' and '.', a letter or digit first`,
		},
		"service without section": {
			file: "services: {auth: grpc}",
			want: `services.auth in goplt.yaml line 1: "grpc" is not a section of keys; want some of target, protocol, timeout, attempt_timeout, ` +
				`wait_for_instances, max_receive_bytes, max_send_bytes, compress_requests, compress_min_bytes, retry, admission, balancer, breaker, outlier, ` +
				`pool, tls, methods beneath`,
		},
		"target": {
			file: "services:\n  auth:\n    target: a b",
			want: `services.auth.target in goplt.yaml line 3: registry: invalid target "a b": service name "a b" holds ' ' at byte 1; ` +
				`want letters, digits, '-', '_' and '.', a letter or digit first; want a service name, or a URL such as consul:///auth`,
		},
		"scheme of target": {
			file: "services: {auth: {target: 'etcd:///auth'}}",
			want: `services.auth.target in goplt.yaml line 1: "etcd:///auth" has the scheme "etcd", which is not one of consul, static, memory`,
		},
		"scheme of target without a service": {
			file: "services: {auth: {target: 'http://foo'}, audit: {target: 'http://foo/auth'}, authz: {target: '://x'}}",
			want: `services.audit.target in goplt.yaml line 1: "http://foo/auth" has the scheme "http", which is not one of consul, static, memory
services.auth.target in goplt.yaml line 1: "http://foo" has the scheme "http", which is not one of consul, static, memory
services.authz.target in goplt.yaml line 1: "://x" has the scheme "", which is not one of consul, static, memory`,
		},
		"parameter of target": {
			file: "services:\n  auth:\n    target: consul:///auth?tga=x\n  audit: {target: 'memory:///audit?dc=eu'}\n  authz: {target: 'static:///authz?tag=x'}",
			want: `services.audit.target in goplt.yaml line 4: registry: invalid target "memory:///audit?dc=eu": parameter "dc" is unknown; known are tag
services.auth.target in goplt.yaml line 3: registry: invalid target "consul:///auth?tga=x": parameter "tga" is unknown; ` +
				`known are address, consistency, dc, failover, filter, ns, partition, passing, query, tag
services.authz.target in goplt.yaml line 5: registry: invalid target "static:///authz?tag=x": parameter "tag" is unknown; there are none`,
		},
		"value of a parameter of target": {
			environ: []string{"GOPLT_SERVICES_AUTH_TARGET=consul:///auth?dc=eu&failover=us,eu"},
			want: `services.auth.target in GOPLT_SERVICES_AUTH_TARGET: registry: invalid target "consul:///auth?dc=eu&failover=us%2Ceu": ` +
				`parameter failover: datacenter "eu" is there twice`,
		},
		"log": {
			file: "log: {level: loud, format: xml}",
			want: `log.level in goplt.yaml line 1: "loud" is not one of debug, info, warn, error
log.format in goplt.yaml line 1: "xml" is not one of text, json`,
		},
		"consul": {
			file: "discovery:\n  consul:\n    token_files: x\n    wait: 2m\n    check: {kind: http}",
			want: `unknown key "discovery.consul.token_files" in goplt.yaml line 3: did you mean "discovery.consul.token_file"?
discovery.consul.wait in goplt.yaml line 4: 2m0s is not above 0 and at most 1m
discovery.consul.check.kind in goplt.yaml line 5: "http" is not one of grpc, ttl, none`,
		},
		"server address": {file: "server: {listen: here}", want: `server.listen in goplt.yaml line 1: "here" is not host:port with a port within 0 to 65535`},
		"server name": {
			file: "server: {tls: {server_name: a}}", want: `server.tls.server_name in goplt.yaml line 1: "a" has no meaning on a server; remove it`,
		},
		"default that another value makes wrong": {
			file: "server: {tls: {enabled: true}}",
			want: `server.tls.cert_file (default): "" is not a file, which a server with TLS needs
server.tls.key_file (default): "" is not a file, which a server with TLS needs`,
		},
		"override": {
			file: "services:\n  auth:\n    retry: {max_attempts: 0}",
			want: "services.auth.retry.max_attempts in goplt.yaml line 3: 0 is not within 1 to 5",
		},
		"override that makes a default wrong": {
			file: "retry: {max_backoff: 2s}\nservices:\n  auth:\n    retry: {initial_backoff: 5s}",
			want: "services.auth.retry.max_backoff in goplt.yaml line 1: 2s is not at least retry.initial_backoff",
		},
		"impossible default is reported once, not for each service": {
			file: "timeout: -1s\nservices: {auth: {protocol: grpc}, audit: {timeout: -1s}}",
			want: `timeout in goplt.yaml line 1: -1s is not 0 or more
services.audit.timeout in goplt.yaml line 2: -1s is not 0 or more`,
		},

		"variable misspelt": {
			environ: []string{"GOPLT_TIMEOUTS=1s"}, want: "unknown environment variable GOPLT_TIMEOUTS: did you mean GOPLT_TIMEOUT?",
		},
		"variable in small letters": {
			environ: []string{"GOPLT_timeout=1s"}, want: "unknown environment variable GOPLT_timeout: did you mean GOPLT_TIMEOUT?",
		},
		"variable near nothing": {
			environ: []string{"GOPLT_FOO=1s"},
			want:    "unknown environment variable GOPLT_FOO; want GOPLT_ and a key in capitals, such as GOPLT_RETRY_MAX_ATTEMPTS for retry.max_attempts",
		},
		"variable of a service misspelt": {
			environ: []string{"GOPLT_SERVICES_AUTH_ATEMPT_TIMEOUT=1s"},
			want:    "unknown environment variable GOPLT_SERVICES_AUTH_ATEMPT_TIMEOUT: did you mean GOPLT_SERVICES_AUTH_ATTEMPT_TIMEOUT?",
		},
		"variable of a new service misspelt": {
			environ: []string{"GOPLT_SERVICES_BILLING_TIMEOUTS=1s"},
			want: "unknown environment variable GOPLT_SERVICES_BILLING_TIMEOUTS: did you mean GOPLT_SERVICES_BILLING_TIMEOUT?; " +
				"a service with '-', '_' or '.' in its name has to stand under services in the file first",
		},
		"variable of an unknown service of two words": {
			environ: []string{"GOPLT_SERVICES_LEDGER_BOOK_TARGET=a"},
			want: "unknown environment variable GOPLT_SERVICES_LEDGER_BOOK_TARGET; " +
				"a service with '-', '_' or '.' in its name has to stand under services in the file first",
		},
		"variable of two services": {
			file:    "services: {a: {}, a-attempt: {}}",
			environ: []string{"GOPLT_SERVICES_A_ATTEMPT_TIMEOUT=1s"},
			want: "ambiguous environment variable GOPLT_SERVICES_A_ATTEMPT_TIMEOUT: services.a.attempt_timeout or services.a-attempt.timeout; " +
				"set the key in the file instead",
		},
		"variable without unit":  {environ: []string{"GOPLT_TIMEOUT=30"}, want: `timeout in GOPLT_TIMEOUT: "30" has no unit; want ` + durations},
		"variable without value": {environ: []string{"GOPLT_TIMEOUT="}, want: `timeout in GOPLT_TIMEOUT: "" is not ` + durations},
		"variable of wrong type": {
			environ: []string{"GOPLT_RETRY_MAX_ATTEMPTS=two"}, want: `retry.max_attempts in GOPLT_RETRY_MAX_ATTEMPTS: "two" is not a whole number`,
		},
		"variable impossible": {
			environ: []string{"GOPLT_RETRY_MAX_ATTEMPTS=6"}, want: "retry.max_attempts in GOPLT_RETRY_MAX_ATTEMPTS: 6 is not within 1 to 5",
		},
		"variable for a service": {
			environ: []string{"GOPLT_SERVICES_AUTH_TIMEOUT=-1s"}, want: "services.auth.timeout in GOPLT_SERVICES_AUTH_TIMEOUT: -1s is not 0 or more",
		},
		"variable that is a list": {
			environ: []string{"GOPLT_DISCOVERY_STATIC_AUTH=a:1,b"}, want: `discovery.static.auth in GOPLT_DISCOVERY_STATIC_AUTH: "b" is not host:port`,
		},

		"all at once, whatever their layer": {
			file:    "timeouts: 3s\nprotocol: soap\nlog: {level: 3}",
			environ: []string{"GOPLT_TIMEOUTS=3s", "GOPLT_SERVER_WEIGHT=70000"},
			want: `unknown key "timeouts" in goplt.yaml line 1: did you mean "timeout"?
log.level in goplt.yaml line 3: 3 is not text; put it in quotes
unknown environment variable GOPLT_TIMEOUTS: did you mean GOPLT_TIMEOUT?
protocol in goplt.yaml line 2: "soap" is not one of auto, grpc, http, inprocess
server.weight in GOPLT_SERVER_WEIGHT: 70000 is not within 0 to 65535`,
		},
	} {
		t.Run(name, test.run)
	}
}

func TestErrorSaysWhere(t *testing.T) {
	_, err := config.Load(inFile(t, "retry:\n  max_attempts: 9"), nil)
	problem, ok := errors.AsType[*config.Error](err)
	if !ok || problem.Key != "retry.max_attempts" || problem.Source != "goplt.yaml line 2" {
		t.Errorf("got %#v, want the key and the line", problem)
	}
	if key, ok := errors.AsType[*rpc.KeyError](err); !ok || key.Value != 9 {
		t.Errorf("got %#v, want rpc's own error within", key)
	}
}

func TestUnreadableFile(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("directory", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("large.yaml", []byte(strings.Repeat("#", 1<<20+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"missing.yaml": "read configuration: open missing.yaml: no such file or directory",
		"directory":    "read configuration: read directory: is a directory",
		"large.yaml":   "read configuration: large.yaml is larger than 1048576 bytes",
	} {
		if _, err := config.Load(path, nil); err == nil || err.Error() != want {
			t.Errorf("Load(%q): %v, want %s", path, err, want)
		}
	}
	if _, err := config.Load("missing.yaml", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v does not match fs.ErrNotExist", err)
	}
}

// What a file can make the reader do is bounded, whatever its aliases promise.
func TestHostileFiles(t *testing.T) {
	bomb := "x0: &x0 {a: b, c: d}\n"
	for i, before := 1, "x0"; i < 10; i++ {
		name := "x" + string(rune('0'+i))
		bomb += name + ": &" + name + " {"
		for _, key := range "abcdefghij" {
			bomb += string(key) + ": *" + before + ", "
		}
		bomb += "}\n"
		before = name
	}
	methods := "methods:\n"
	for i := range 230 {
		methods += fmt.Sprintf("  a.B.C%d:\n", i)
	}
	copies := methods + "services:\n"
	for i := range 230 {
		copies += fmt.Sprintf("  a%d: {methods: {a.B.C0: {}}}\n", i)
	}
	for name, test := range map[string]struct{ file, want string }{
		"methods of services": {copies, "methods: 230 services with the settings of 230 methods each are more than 50000 in all"},
		"aliases of aliases":  {bomb, "goplt.yaml: has more problems than the 100 named"},
		"anchor in itself":    {"retry: &r {x: *r}", `unknown key "retry.x.x.x.x.x.x.x.x.x" in goplt.yaml line 1`},
		"very many keys":      {strings.Repeat("? a\n", 30_000), "goplt.yaml: has more"},
		"very deep":           {strings.Repeat("[", 20_000), "goplt.yaml: not YAML: exceeded max depth of 10000"},
		"very long key":       {"retry: {" + strings.Repeat("a", 1_000) + ": 1}", `unknown key "retry.aaaaaaaaaa`},
		"very long value":     {"timeout: " + strings.Repeat("a", 10_000), `timeout in goplt.yaml line 1: "aaaaaaaaaa`},
		"invalid UTF-8":       {"timeout: \xff", "goplt.yaml: not YAML: invalid leading UTF-8 octet"},
		"alias of no anchor":  {"timeout: *x", "goplt.yaml: not YAML: unknown anchor 'x' referenced"},
		"tag of another type": {"timeout: !!binary aGVsbG8=", "timeout in goplt.yaml line 1: aGVsbG8= is not a duration"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := config.Load(inFile(t, test.file), nil)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %.300v, want %s", err, test.want)
			} else if len(err.Error()) > 50_000 {
				t.Errorf("the error is %d bytes long", len(err.Error()))
			}
		})
	}
}
