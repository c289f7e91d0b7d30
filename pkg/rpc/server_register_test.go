package rpc_test

import (
	stdcmp "cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/rpc"
)

func TestServerRegistration(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	config := testConfig()
	config.Weight, config.Zone, config.Tags = 7, "eu-1a", []string{"blue", "new"}
	var server *rpc.Server
	served := make(map[string]string)
	reg := &recordingRegistry{onRegister: func(instance registry.Instance) error {
		// Registering makes others call at once, so the server must be serving by now.
		answer, err := callText(t.Context(), rpcClientAt(t, instance.Addr()), specEcho, instance.Service)
		served[instance.Service] = answer
		return err
	}}
	server = startServer(t, handlers, config, rpc.WithRegistration(reg, "words", "letters"))

	host, port := splitAddr(t, server.Addr())
	want := []registry.Instance{
		{Service: "words", Host: host, Port: port, Weight: 7, Zone: "eu-1a", Health: registry.HealthPassing, Tags: []string{"blue", "new"}},
		{Service: "letters", Host: host, Port: port, Weight: 7, Zone: "eu-1a", Health: registry.HealthPassing, Tags: []string{"blue", "new"}},
	}
	got := slices.Clone(reg.registered)
	for at := range got {
		got[at].ID, got[at].Metadata = "", nil // one is random, the other depends on how the test was built
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("registered (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"words": "words", "letters": "letters"}, served); diff != "" {
		t.Errorf("served while registering (-want +got):\n%s", diff)
	}
	form := regexp.MustCompile(fmt.Sprintf(`^(words|letters)-127\.0\.0\.1-%d-[a-z0-9]{8}$`, port))
	for _, instance := range reg.registered {
		if !form.MatchString(instance.ID) {
			t.Errorf("ID %q is not of the form %s", instance.ID, form)
		}
	}

	if err := server.Stop(t.Context()); err != nil {
		t.Fatalf("stop: %v", err)
	}
	sortByService := cmpopts.SortSlices(func(a, b registry.Instance) bool { return a.Service < b.Service })
	if diff := cmp.Diff(reg.registered, reg.deregistered, sortByService); diff != "" {
		t.Errorf("deregistered (-registered +deregistered):\n%s", diff)
	}
}

// TestServerInstanceIDs: a server that follows another at the same address has other IDs, so the late end of the one does not take
// away the other.
func TestServerInstanceIDs(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	reg := &recordingRegistry{}
	first := startServer(t, handlers, testConfig(), rpc.WithRegistration(reg, "words"))
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	config := testConfig()
	config.Listen = first.Addr()
	startServer(t, handlers, config, rpc.WithRegistration(reg, "words"))
	if a, b := reg.registered[0], reg.registered[1]; a.ID == b.ID || a.Addr() != b.Addr() {
		t.Errorf("got %s at %s and %s at %s, want one address and two IDs", a.ID, a.Addr(), b.ID, b.Addr())
	}
}

// TestServerTellsItsRegistry: a registry that lets others check the instance must know how.
func TestServerTellsItsRegistry(t *testing.T) {
	t.Parallel()
	_, plain := newWords()
	_, ownHealth := newWords()
	ownHealth.Register(unary(specCheck, func(context.Context, string) (string, error) { return "", nil }))
	authority, secured := securedConfig(t)
	mutual := secured
	mutual.TLS.CAFile = authority.CAFile
	for name, row := range map[string]struct {
		handlers *connect.Server
		config   rpc.ServerConfig
		health   bool
		tls      string
	}{
		"plain":               {plain, testConfig(), true, ""},
		"TLS":                 {plain, secured, true, "true"},
		"mutual TLS":          {plain, mutual, true, "mutual"},
		"health of one's own": {ownHealth, testConfig(), false, ""},
	} {
		reg := &recordingRegistry{}
		server := startServer(t, row.handlers, row.config, rpc.WithRegistration(reg, "words"))
		want := ""
		if row.health {
			want = reg.registered[0].ID
		}
		if got := reg.registered[0].Metadata; got[registry.MetadataHealth] != want || got[registry.MetadataTLS] != row.tls {
			t.Errorf("%s: got %v; want health %q and TLS %q", name, got, want, row.tls)
		}
		if err := server.Stop(t.Context()); err != nil {
			t.Errorf("%s: stop: %v", name, err)
		}
	}
}

func TestServerAdvertise(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, listen, advertise, want string }{
		{"as listening", "127.0.0.1:0", "", "127.0.0.1:PORT"},
		{"as listening on a name", "localhost:0", "", "LOCALHOST:PORT"},
		{"elsewhere", "127.0.0.1:0", "words.example.org:443", "words.example.org:443"},
		{"its port elsewhere", "0.0.0.0:0", "words.example.org:0", "words.example.org:PORT"},
		{"IPv6 elsewhere", "127.0.0.1:0", "[2001:db8::1]:80", "[2001:db8::1]:80"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			_, handlers := newWords()
			config := testConfig()
			config.Listen, config.Advertise = row.listen, row.advertise
			reg := &recordingRegistry{}
			server := startServer(t, handlers, config, rpc.WithRegistration(reg, "words"))
			host, port := splitAddr(t, server.Addr())
			want := strings.NewReplacer("LOCALHOST", host, "PORT", strconv.Itoa(port)).Replace(row.want)
			if got := reg.registered[0].Addr(); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			if id := reg.registered[0].ID; strings.ContainsAny(id, ":/%") {
				t.Errorf("ID %q does not go into a path as it is", id)
			}
		})
	}
}

// TestServerAdvertiseAll: a server on all addresses registers the machine's only address, and never the unspecified one.
func TestServerAdvertiseAll(t *testing.T) {
	t.Parallel()
	network := func(text string) net.Addr {
		ip, parsed, err := net.ParseCIDR(text)
		if err != nil {
			t.Fatal(err)
		}
		return &net.IPNet{IP: ip, Mask: parsed.Mask}
	}
	for _, row := range []struct {
		name      string
		addresses []string
		want, err string
	}{
		{"one", []string{"127.0.0.1/8", "::1/128", "10.1.2.3/24", "fe80::1/64", "2001:db8::1/64"}, "10.1.2.3", ""},
		{"IPv6 only", []string{"127.0.0.1/8", "fe80::1/64", "2001:db8::1/64"}, "2001:db8::1", ""},
		{"several", []string{"10.1.2.3/24", "172.17.0.1/16"}, "", "the machine has several: set advertise to one of 10.1.2.3, 172.17.0.1"},
		{"none", []string{"127.0.0.1/8", "::1/128", "169.254.1.1/16"}, "", "the machine has no address that others can reach"},
	} {
		addresses := make([]net.Addr, len(row.addresses))
		for at, text := range row.addresses {
			addresses[at] = network(text)
		}
		got, err := rpc.OnlyAddress(func() ([]net.Addr, error) { return addresses, nil })
		if got != row.want || fmt.Sprint(err) != stdcmp.Or(row.err, "<nil>") {
			t.Errorf("%s: got %q, %v; want %q, %s", row.name, got, err, row.want, row.err)
		}
	}
	_, err := rpc.OnlyAddress(func() ([]net.Addr, error) { return nil, errors.New("no netlink") })
	if want := "listing the machine's addresses: no netlink"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}

	_, handlers := newWords()
	config := testConfig()
	config.Listen = "0.0.0.0:0"
	reg := &recordingRegistry{}
	server, err := rpc.NewServer(handlers, rpc.WithServerConfig(config), rpc.WithRegistration(reg, "words"))
	if err != nil {
		t.Fatal(err)
	}
	// Which of the two depends on the machine; an unspecified or loopback address in the registry is wrong on all.
	if err := server.Start(t.Context()); err != nil {
		if !strings.Contains(err.Error(), "advertise is not set, and the server listens on all addresses (") {
			t.Errorf("start: %v", err)
		}
	} else if ip := net.ParseIP(reg.registered[0].Host); ip == nil || ip.IsUnspecified() || ip.IsLoopback() {
		t.Errorf("registered at %s", reg.registered[0].Addr())
	}
	if err := server.Stop(t.Context()); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// TestServerRegistrationFails: if one registration fails, the others are undone and nothing is left running.
func TestServerRegistrationFails(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	refused := errors.New("refused by policy")
	var addr string
	reg := &recordingRegistry{onRegister: func(instance registry.Instance) error {
		addr = instance.Addr()
		if instance.Service == "letters" {
			return refused
		}
		return nil
	}}
	server, err := rpc.NewServer(handlers, rpc.WithServerConfig(testConfig()), rpc.WithRegistration(reg, "words", "letters", "lines"))
	if err != nil {
		t.Fatal(err)
	}
	err = server.Start(t.Context())
	want := fmt.Sprintf(`rpc: start server: registering "letters" at %s: refused by policy`, addr)
	if !errors.Is(err, refused) || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if len(reg.registered) != 1 || len(reg.deregistered) != 1 || !reg.registered[0].Equal(reg.deregistered[0]) {
		t.Errorf("registered %v, deregistered %v; want the first of three in both", reg.registered, reg.deregistered)
	}
	if connection, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr); err == nil {
		_ = connection.Close()
		t.Error("the server still listens")
	}
	if err := server.Stop(t.Context()); err != nil {
		t.Errorf("stop: %v", err)
	}
	if err := server.Start(t.Context()); err == nil || err.Error() != "rpc: start server: already stopped; make a new one" {
		t.Errorf("second start: %v", err)
	}
}

func TestServerStartErrors(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	start := func(config rpc.ServerConfig, opts ...rpc.ServerOption) string {
		server, err := rpc.NewServer(handlers, append(opts, rpc.WithServerConfig(config))...)
		if err != nil {
			t.Fatal(err)
		}
		err = server.Start(t.Context())
		if err == nil {
			_ = server.Stop(t.Context())
		}
		return fmt.Sprint(err)
	}

	running := startServer(t, handlers, testConfig())
	config := testConfig()
	config.Listen = running.Addr()
	if got, want := start(config), "rpc: start server: listen tcp "+running.Addr()+": bind: address already in use"; got != want {
		t.Errorf("port in use: got %s\nwant %s", got, want)
	}

	config = testConfig()
	config.TLS = rpc.TLSConfig{Enabled: true, CertFile: "/nowhere/cert.pem", KeyFile: "/nowhere/key.pem"}
	listener := newPipeListener()
	got, want := start(config, rpc.WithListener(listener)), "rpc: start server: tls.cert_file: open /nowhere/cert.pem: no such file or directory"
	if got != want || !listener.refuses() {
		t.Errorf("certificate missing: got %s, listener closed: %t\nwant %s, true", got, listener.refuses(), want)
	}

	listener = newPipeListener()
	got = start(testConfig(), rpc.WithListener(listener), rpc.WithRegistration(&recordingRegistry{}, "words"))
	want = "rpc: start server: advertise is not set, and no host:port follows from a listener on memory pipe"
	if got != want || !listener.refuses() {
		t.Errorf("no address: got %s, listener closed: %t\nwant %s, true", got, listener.refuses(), want)
	}

	if err := running.Start(t.Context()); err == nil || err.Error() != "rpc: server on "+running.Addr()+": already started" {
		t.Errorf("second start: %v", err)
	}
	if answer, err := callText(t.Context(), rpcClientAt(t, running.Addr()), specEcho, "x"); err != nil || answer != "x" {
		t.Errorf("after the second start: got %q, %v", answer, err)
	}
}

func TestNewServerErrors(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	reg := &recordingRegistry{}
	for name, row := range map[string]struct {
		option rpc.ServerOption
		want   string
	}{
		"configuration": {rpc.WithServerConfig(rpc.ServerConfig{Listen: "x"}), `rpc: new server: listen: "x" is not host:port with a port within 0 to 65535`},
		"no registry":   {rpc.WithRegistration(nil, "a", "b"), "rpc: new server: registration of a, b: registry is nil"},
		"no name":       {rpc.WithRegistration(reg), "rpc: new server: registration: no service name; want at least one, such as auth"},
		"empty name":    {rpc.WithRegistration(reg, ""), "rpc: new server: registration: service name is empty"},
		"wrong name": {
			rpc.WithRegistration(reg, "../kv/x"), `rpc: new server: registration: service name "../kv/x" holds ".."`,
		},
		"one name twice": {rpc.WithRegistration(reg, "a", "b", "a"), `rpc: new server: registration: service "a" is named twice`},
	} {
		_, err := rpc.NewServer(handlers, row.option)
		if got, _, _ := strings.Cut(fmt.Sprint(err), "\n"); got != row.want {
			t.Errorf("%s: got %s\nwant %s", name, got, row.want)
		}
	}
	if _, err := rpc.NewServer(nil); err == nil || err.Error() != "rpc: new server: handlers is nil; want a connect.Server" {
		t.Errorf("no handlers: %v", err)
	}
}

func splitAddr(t *testing.T, addr string) (string, int) {
	t.Helper()
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(service)
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}
