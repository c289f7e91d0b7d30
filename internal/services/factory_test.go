package services

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/memory"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/services"
)

// platform is a server of every service, registered under each name.
func platform(t *testing.T, impl *stub) *memory.Registry {
	t.Helper()
	reg := memory.New()
	t.Cleanup(func() { _ = reg.Close() })
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	listening := listen(t, newServer(impl, &journal{}), &protocols)
	for _, name := range services.Names() {
		register(t, reg, name, listening.Listener.Addr())
	}
	return reg
}

// register adds an instance of a service to reg.
func register(t *testing.T, reg registry.ServiceRegistry, service string, addr net.Addr) {
	t.Helper()
	host, portText, err := net.SplitHostPort(addr.String())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		t.Fatal(err)
	}
	instance := registry.Instance{ID: service + "-1", Service: service, Host: host, Port: port, Weight: 1}
	if _, err := reg.Register(t.Context(), instance); err != nil {
		t.Fatal(err)
	}
}

func newFactory(t *testing.T, config FactoryConfig) *Factory {
	t.Helper()
	factory, err := NewFactory(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := factory.Close(); err != nil {
			t.Error(err)
		}
	})
	return factory
}

// over returns a configuration with a protocol, the same for every service.
func over(protocol rpc.Protocol) func(string) rpc.ClientConfig {
	return func(string) rpc.ClientConfig {
		config := rpc.DefaultClientConfig()
		config.Protocol = protocol
		return config
	}
}

func TestNewServiceClientMakesEachService(t *testing.T) {
	impl := &stub{result: true}
	reg := platform(t, impl)
	for _, name := range services.Names() {
		t.Run(name, func(t *testing.T) {
			client, err := NewServiceClient(name, reg)
			if err != nil {
				t.Fatal(err)
			}
			if got := client.Service(); got != name {
				t.Errorf("Service() = %q, want %q", got, name)
			}
			call := func() error {
				switch name {
				case services.AuthService:
					_, err := client.(services.AuthServiceClient).ValidateToken(t.Context(), "token")
					return err
				case services.IdentityService:
					return client.(services.IdentityServiceClient).DeleteUser(t.Context(), "42")
				case services.AuthzService:
					return client.(services.AuthzServiceClient).Authorize(t.Context(), "42", "a:b")
				default:
					return client.(services.AuditServiceClient).Record(t.Context(), services.Action{Action: "test"})
				}
			}
			impl.result = &services.TokenClaims{}
			if err := call(); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := client.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}
			err = call()
			if !errors.Is(err, services.ErrUnavailable) || !errors.Is(err, rpc.ErrClosed) || !strings.HasSuffix(err.Error(), "unavailable: client is closed") {
				t.Errorf("a call after Close: got %v, want unavailable", err)
			}
		})
	}
}

func TestUnknownServiceNamesTheKnownOnes(t *testing.T) {
	const known = "; known services: auth, identity, authz, audit"
	factory := newFactory(t, FactoryConfig{Registry: memory.New()})
	for name, want := range map[string]string{
		"aut":      `unknown service "aut"` + known + `; did you mean "auth"?`,
		"Identity": `unknown service "Identity"` + known + `; did you mean "identity"?`,
		"auths":    `unknown service "auths"` + known + `; did you mean "auth"?`,
		"audits":   `unknown service "audits"` + known + `; did you mean "audit"?`,
		"billing":  `unknown service "billing"` + known,
		"":         `unknown service ""` + known,
	} {
		for maker, newClient := range map[string]func() (services.ServiceClient, error){
			"package":              func() (services.ServiceClient, error) { return NewServiceClient(name, memory.New()) },
			"package, no registry": func() (services.ServiceClient, error) { return NewServiceClient(name, nil) },
			"factory":              func() (services.ServiceClient, error) { return factory.NewServiceClient(name) },
		} {
			if client, err := newClient(); client != nil || errorText(err) != want {
				t.Errorf("%s: got %v, %q\nwant nil, %q", maker, client, err, want)
			}
		}
	}
}

func TestFactoryRefusesWhatCannotWork(t *testing.T) {
	broken := func(service string) rpc.ClientConfig {
		config := rpc.DefaultClientConfig()
		if service == "authz" || service == "audit" {
			config.Retry.MaxAttempts = 9
		}
		return config
	}
	makeFactory := func(config FactoryConfig) error {
		_, err := NewFactory(config)
		return err
	}
	makeClient := func(config FactoryConfig) error {
		_, err := newFactory(t, config).Auth()
		return err
	}
	for name, test := range map[string]struct {
		err  error
		want []string
	}{
		"no registry": {func() error { _, err := NewServiceClient("auth", nil); return err }(), []string{"client of auth: no registry"}},
		"nothing":     {makeFactory(FactoryConfig{}), []string{"no registry"}},
		"configuration": {makeFactory(FactoryConfig{Registry: memory.New(), Client: broken}), []string{
			"client configuration of authz: retry.max_attempts: 9", "client configuration of audit: retry.max_attempts: 9",
		}},
		"a network without a registry": {makeClient(FactoryConfig{InProcess: connect.NewServer()}), []string{
			"client of auth: no registry to find its instances in", `protocol "auto" needs one`,
		}},
		"inprocess without a server": {makeClient(FactoryConfig{Registry: memory.New(), Client: over(rpc.ProtocolInProcess)}), []string{
			"client of auth", "inprocess",
		}},
		"target": {makeClient(FactoryConfig{Registry: memory.New(), Target: func(string) string { return "consul:///auth" }}), []string{
			"client of auth", "consul",
		}},
	} {
		for _, want := range test.want {
			if !strings.Contains(errorText(test.err), want) {
				t.Errorf("%s: got %v, want %q in it", name, test.err, want)
			}
		}
	}
}

func TestFactorySharesOneTransportPerService(t *testing.T) {
	reg := platform(t, &stub{result: &services.TokenClaims{}})
	var asked, targets atomic.Int64
	factory := newFactory(t, FactoryConfig{
		Registry: reg,
		Client: func(service string) rpc.ClientConfig {
			asked.Add(1)
			return rpc.DefaultClientConfig()
		},
		Target: func(service string) string {
			targets.Add(1)
			return "memory:///" + service
		},
	})
	asked.Store(0) // validation asked too

	var users sync.WaitGroup
	for range 16 {
		users.Go(func() {
			named, err := factory.NewServiceClient("auth")
			if err != nil {
				t.Error(err)
				return
			}
			auth, err := factory.Auth()
			if err != nil {
				t.Error(err)
				return
			}
			for _, client := range []services.AuthServiceClient{auth, named.(services.AuthServiceClient)} {
				if _, err := client.ValidateToken(t.Context(), "token"); err != nil {
					t.Error(err)
				}
			}
			if err := named.Close(); err != nil { // the others' calls go on
				t.Error(err)
			}
			if _, err := auth.ValidateToken(t.Context(), "token"); err != nil {
				t.Errorf("after another client's Close: %v", err)
			}
		})
	}
	users.Wait()
	if asked.Load() != 1 || targets.Load() != 1 {
		t.Errorf("configuration asked for %d times, target %d times, want once each", asked.Load(), targets.Load())
	}
	transport, err := factory.Transport("auth")
	if err != nil {
		t.Fatal(err)
	}
	status := transport.Status()
	if status.Target != "memory:///auth" || len(status.Instances) != 1 || status.Instances[0].Calls != 48 {
		t.Errorf("got %+v, want all 48 calls on the one instance of memory:///auth", status)
	}
}

func TestFactoryClosesEveryTransportOnce(t *testing.T) {
	factory := newFactory(t, FactoryConfig{Registry: platform(t, &stub{result: true})})
	auth, authErr := factory.Auth()
	identity, identityErr := factory.Identity()
	authz, authzErr := factory.Authz()
	audit, auditErr := factory.Audit()
	if err := errors.Join(authErr, identityErr, authzErr, auditErr); err != nil {
		t.Fatal(err)
	}
	if allowed, err := authz.HasPermission(t.Context(), "42", "a:b"); err != nil || !allowed {
		t.Fatalf("got %t, %v", allowed, err)
	}
	var closers sync.WaitGroup
	for range 4 {
		closers.Go(func() {
			if err := factory.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	closers.Wait()
	eachMethod(clients{auth, identity, authz, audit}, func(operation string, method reflect.Value) {
		_, err := invoke(t.Context(), method, randomArgs(1, method.Type()))
		if !errors.Is(err, services.ErrUnavailable) || !errors.Is(err, rpc.ErrClosed) {
			t.Errorf("%s after Close: got %v, want unavailable", operation, err)
		}
	})
	if _, err := factory.Auth(); !errors.Is(err, rpc.ErrClosed) {
		t.Errorf("Auth after Close: got %v, want ErrClosed", err)
	}
	if _, err := factory.NewServiceClient("auth"); !errors.Is(err, rpc.ErrClosed) {
		t.Errorf("NewServiceClient after Close: got %v, want ErrClosed", err)
	}
}

func TestCloseLetsCallsUnderWayFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		impl := &stub{do: func(context.Context) error {
			<-release
			return nil
		}}
		factory := newFactory(t, FactoryConfig{InProcess: newServer(impl, &journal{}), Client: over(rpc.ProtocolInProcess)})
		client, err := factory.newServiceClient("audit", factory.Close) // as NewServiceClient makes it
		if err != nil {
			t.Fatal(err)
		}
		results, closed := make(chan error, 1), make(chan error, 1)
		go func() {
			results <- client.(services.AuditServiceClient).Record(t.Context(), services.Action{Action: "test"})
		}()
		synctest.Wait()
		go func() { closed <- client.Close() }()
		synctest.Wait()
		select {
		case err := <-closed:
			t.Errorf("Close returned %v before the call", err)
		default:
		}
		close(release)
		if err := errors.Join(<-results, <-closed); err != nil {
			t.Error(err)
		}
	})
}

func TestFactoryInterceptorsWrapEveryClient(t *testing.T) {
	var seen []string
	note := func(name string) connect.ClientInterceptor {
		return func(next connect.ClientFunc) connect.ClientFunc {
			return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
				seen = append(seen, name)
				return next(ctx, spec)
			}
		}
	}
	interceptors := []connect.ClientInterceptor{note("outer"), note("inner")}
	server := newServer(&stub{result: true}, &journal{})
	factory := newFactory(t, FactoryConfig{InProcess: server, Client: over(rpc.ProtocolInProcess), Interceptors: interceptors})
	clear(interceptors) // the factory has its own
	named, err := factory.NewServiceClient("authz")
	if err != nil {
		t.Fatal(err)
	}
	typed, err := factory.Authz()
	if err != nil {
		t.Fatal(err)
	}
	for _, authz := range []services.AuthzServiceClient{named.(services.AuthzServiceClient), typed} {
		seen = nil
		if allowed, err := authz.HasPermission(t.Context(), "42", "a:b"); err != nil || !allowed {
			t.Fatalf("got %t, %v", allowed, err)
		}
		if strings.Join(seen, " ") != "outer inner" {
			t.Errorf("interceptors ran as %v, want outer, inner", seen)
		}
	}
}

// Any Connect service, not only the core ones, can be called over a factory's transport.
func TestTransportCarriesOtherClients(t *testing.T) {
	factory := newFactory(t, FactoryConfig{
		Registry: platform(t, &stub{result: &services.TokenClaims{UserID: "42"}}),
		Target:   func(service string) string { return map[string]string{"other": "auth"}[service] },
	})
	transport, err := factory.Transport("other")
	if err != nil {
		t.Fatal(err)
	}
	claims, err := NewAuthClient(connect.NewClient(transport)).ValidateToken(t.Context(), "token")
	if err != nil || claims.UserID != "42" {
		t.Errorf("got %+v, %v", claims, err)
	}
}

// The error of a call that a transport made holds the attempts.
func TestAttemptsAreReachable(t *testing.T) {
	reg := memory.New()
	defer reg.Close()
	gone := httptest.NewServer(nil)
	gone.Close()
	register(t, reg, "auth", gone.Listener.Addr())
	auth, err := newFactory(t, FactoryConfig{Registry: reg}).Auth()
	if err != nil {
		t.Fatal(err)
	}
	_, err = auth.Login(t.Context(), "a@example.com", "secret")
	failed, ok := errors.AsType[*rpc.CallError](err)
	if !ok || len(failed.Attempts) == 0 || failed.Attempts[0].Instance != "auth-1" || !errors.Is(err, services.ErrUnavailable) {
		t.Errorf("got %v, want unavailable, with the attempts", err)
	}
	if text := errorText(err); !strings.HasPrefix(text, "auth.Login: unavailable: ") || strings.Contains(text, "\n") {
		t.Errorf("got text %q, want one line", text)
	}

	none, err := NewServiceClient("identity", reg)
	if err != nil {
		t.Fatal(err)
	}
	defer none.Close()
	err = none.(services.IdentityServiceClient).DeleteUser(t.Context(), "42")
	if !errors.Is(err, services.ErrUnavailable) || !errors.Is(err, rpc.ErrNoInstances) {
		t.Errorf("got %v, want unavailable because of no instances", err)
	}
	if want := "identity.DeleteUser: unavailable: no instances of identity"; errorText(err) != want {
		t.Errorf("got text %q, want %q", err, want)
	}
}
