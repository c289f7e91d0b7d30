package registry_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/0x1d/goplt/pkg/registry"
)

func TestParseTarget(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]registry.Target{
		"auth":           {Service: "auth"},
		"consul:///auth": {Scheme: "consul", Service: "auth"},
		"consul:///auth?tag=blue&dc=eu": {
			Scheme: "consul", Service: "auth", Params: map[string]string{"tag": "blue", "dc": "eu"},
		},
		"CONSUL://127.0.0.1:8500/auth.v1":     {Scheme: "consul", Authority: "127.0.0.1:8500", Service: "auth.v1"},
		"consul://[::1]:8500/auth":            {Scheme: "consul", Authority: "[::1]:8500", Service: "auth"},
		"consul://[fe80::1%25eth0]:8500/auth": {Scheme: "consul", Authority: "[fe80::1%eth0]:8500", Service: "auth"},
		"static:///10.0.0.1:80,[::1]:81":      {Scheme: "static", Service: "10.0.0.1:80,[::1]:81"},
		"static:///auth":                      {Scheme: "static", Service: "auth"},
		"memory:///auth?x=a%26b":              {Scheme: "memory", Service: "auth", Params: map[string]string{"x": "a&b"}},
	} {
		got, err := registry.ParseTarget(text)
		if err != nil {
			t.Errorf("ParseTarget(%q): %v", text, err)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("ParseTarget(%q) (-want +got):\n%s", text, diff)
		}
		if err := got.Check(want.Scheme, "tag", "dc", "x"); err != nil {
			t.Errorf("Check of %q: %v", text, err)
		}
	}
}

func TestParseTargetErrors(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ text, want string }{
		{"", `service name is empty; want a service name, or a URL such as consul:///auth`},
		{"../kv/x", `service name "../kv/x" holds ".."; want a service name, or a URL such as consul:///auth`},
		{"a b", `service name "a b" holds ' ' at byte 1; want letters, digits, '-', '_' and '.', a letter or digit first; ` +
			`want a service name, or a URL such as consul:///auth`},
		{strings.Repeat("a", 129), `service name is 129 bytes long; at most 128 are allowed; want a service name, or a URL such as consul:///auth`},
		{"://auth", `missing protocol scheme; want a URL such as consul:///auth`},
		{"consul:x://auth", `no "//" after the scheme; want a URL such as consul:///auth`},
		{"consul://auth", `service name is empty; want consul:///auth, with three slashes before the name`},
		{"consul:///", `service name is empty; want consul:///auth, with three slashes before the name`},
		{"consul:///../kv/x", `service name "../kv/x" holds ".."`},
		{"consul:///%2e%2e/kv/x", `service name "../kv/x" holds ".."`},
		{"consul:///auth/", `service name "auth/" holds '/' at byte 4; want letters, digits, '-', '_' and '.', a letter or digit first`},
		{"consul://agent/auth", `registry address "agent" is not host:port (missing port in address)`},
		{"consul://agent:0/auth", `registry address "agent:0": port "0" is not within 1 to 65535`},
		{"http://foo", `scheme "http" is not one of consul, static, memory; want consul:///auth, or static:///host:port for a fixed address ` +
			`(in a registry of your own: service name is empty; want http:///auth, with three slashes before the name)`},
		{"http://foo/auth", `scheme "http" is not one of consul, static, memory; want consul:///auth, or static:///host:port for a fixed address ` +
			`(in a registry of your own: registry address "foo" is not host:port (missing port in address))`},
		{"consul://u:p@h:1/auth", `user information is not allowed; pass a token in the registry's configuration`},
		{"consul:///auth#x", `a fragment (#x) is not allowed`},
		{"consul:///auth?tag=a&tag=b", `parameter "tag" is given 2 times; want it once`},
		{"consul:///auth?a;b", `invalid semicolon separator in query`},
		{"static:///", `no addresses; want static:///host:port,host:port`},
		{"static://10.0.0.1:80", `"10.0.0.1:80" stands before the third slash; want static:///host:port,host:port`},
		{"static:///10.0.0.1", `address "10.0.0.1" is not host:port (missing port in address)`},
		{"static:///a:1,b", `address "b" is not host:port (missing port in address)`},
		{"static:///a:1,", `address "" is not host:port (missing port in address)`},
		{"static:///a:1,b:http", `address "b:http": port "http" is not within 1 to 65535`},
		{"static:///a:65536", `address "a:65536": port "65536" is not within 1 to 65535`},
		{"static:///:80", `address ":80": host "" is not a host name or an IP address`},
		{"static:///a%20b:80", `address "a b:80": host "a b" is not a host name or an IP address`},
		{"static:///2001:db8::1", `address "2001:db8::1": an IPv6 address goes in brackets; want [2001:db8::1]:port`},
		{"static:///[::1]", `address "[::1]" is not host:port (missing port in address)`},
		{"static:///[::x]:80", `address "[::x]:80": host "::x" is not a host name or an IP address`},
		{"static:///[10.0.0.1]:80", `address "[10.0.0.1]:80": brackets are for IPv6 addresses`},
		{"static:///au%2Fth", `service name "au/th" holds '/' at byte 2; want letters, digits, '-', '_' and '.', a letter or digit first`},
	} {
		got, err := registry.ParseTarget(row.text)
		if !errors.Is(err, registry.ErrInvalidTarget) {
			t.Errorf("ParseTarget(%q) = %v, %v; want ErrInvalidTarget", row.text, got, err)
			continue
		}
		if want := `registry: invalid target "` + row.text + `": ` + row.want; err.Error() != want {
			t.Errorf("ParseTarget(%q)\n got %s\nwant %s", row.text, err, want)
		}
	}
}

func TestTargetCheck(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		target registry.Target
		want   string
	}{
		{registry.Target{}, `registry: invalid target "": service name is empty; want consul:///auth, with three slashes before the name`},
		{registry.Target{Service: "../kv/x"}, `registry: invalid target "../kv/x": service name "../kv/x" holds ".."`},
		{
			registry.Target{Scheme: "memory", Service: "auth"},
			`registry: invalid target "memory:///auth": scheme "memory" is not that of this registry, "consul"`,
		},
		{
			registry.Target{Scheme: "consul", Service: "auth", Params: map[string]string{"near": "x"}},
			`registry: invalid target "consul:///auth?near=x": parameter "near" is unknown; known are tag, dc`,
		},
	} {
		err := row.target.Check("consul", "tag", "dc")
		if !errors.Is(err, registry.ErrInvalidTarget) || err.Error() != row.want {
			t.Errorf("Check of %#v\n got %v\nwant %s", row.target, err, row.want)
		}
	}
	err := registry.Target{Service: "auth", Params: map[string]string{"x": "y"}}.Check("memory")
	if want := `registry: invalid target "auth": parameter "x" is unknown; there are none`; err == nil || err.Error() != want {
		t.Errorf("Check without parameters\n got %v\nwant %s", err, want)
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, text := range []string{
		"auth", "consul:///auth?tag=blue&dc=eu", "consul://127.0.0.1:8500/auth", "consul://[fe80::1%25eth0]:8500/auth",
		"static:///10.0.0.1:8080,[2001:db8::1]:8080", "static:///[fe80::1%25eth0]:80", "static:///auth", "memory:///a.b-c_d?%00=%ff", "../kv/x",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		target, err := registry.ParseTarget(text)
		if err != nil {
			if !errors.Is(err, registry.ErrInvalidTarget) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		again, err := registry.ParseTarget(target.String())
		if err != nil {
			t.Fatalf("%q gives %#v, whose text is refused: %v", text, target, err)
		}
		if diff := cmp.Diff(target, again); diff != "" {
			t.Fatalf("%q and its text %q differ:\n%s", text, target, diff)
		}
		if target.Scheme != registry.SchemeStatic && strings.ContainsAny(target.Service, "/%?#") {
			t.Fatalf("%q gives service %q", text, target.Service)
		}
	})
}
