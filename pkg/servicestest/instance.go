package servicestest

import (
	"cmp"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"testing"

	"connectrpc.com/connect/v2"

	adapters "github.com/0x1d/goplt/internal/services"
	"github.com/0x1d/goplt/pkg/rpc"
)

// Instance is one of the servers that [Start] starts. All host the same services, on one [Platform].
type Instance struct {
	// URL is where it answers, past the proxy.
	URL string
	// Proxy stands between the clients and this instance if [WithProxy] says so; otherwise it is nil, and using it panics.
	Proxy *HTTPProxy

	addr     netip.AddrPort // for clients
	handlers *connect.Server
	faults   *Faults
}

// Faults returns the faults of this instance alone. They strike after those of [Running.Faults].
func (i *Instance) Faults() *Faults { return i.faults }

// WithInstances starts n servers in place of one, which are [Running.Instances] and known to the clients by IDs such as "auth-1" and "auth-2",
// to see what becomes of calls when one of them fails. Calls of [rpc.ProtocolInProcess] go to the first.
//
//	s := servicestest.Start(t, servicestest.WithDemoData(), servicestest.WithInstances(2))
//	hung := s.Instances[0].Faults().Delay("authz", time.Hour)
//	for hung.Hits() == 0 { // Which instance a call is sent to first is up to the client.
//		if _, err := s.Authz.HasPermission(t.Context(), "usr_ada", "invoices:read"); err != nil {
//			t.Fatal(err)
//		}
//	}
//
// How long a call waits for an instance that hangs is [rpc.ClientConfig]'s AttemptTimeout, or a hedge's delay.
func WithInstances(n int) StartOption {
	return startOption(func(s *startSettings) { s.servers = n })
}

// start starts one more server.
func (r *Running) start(tb testing.TB, settings startSettings) *Instance {
	tb.Helper()
	instance := &Instance{faults: NewFaults()}
	r.faults.among = append(r.faults.among, instance.faults)
	instance.handlers = r.host(tb, settings.hosted, instance.faults)

	server, err := rpc.NewServer(instance.handlers)
	if err != nil {
		tb.Fatalf("servicestest: %v", err)
	}
	web := httptest.NewUnstartedServer(server.Handler())
	web.Listener = instance.faults.Listener(web.Listener)
	web.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // Of connections that faults break.
	web.Config.Protocols = new(http.Protocols)
	web.Config.Protocols.SetHTTP1(true)
	web.Config.Protocols.SetUnencryptedHTTP2(true)
	web.Start()
	tb.Cleanup(web.Close)
	instance.URL = web.URL

	addr := web.Listener.Addr().String()
	if settings.proxy {
		instance.Proxy = StartHTTPProxy(tb, web.URL)
		instance.Proxy.faults.only(tb, append(proceduresOf(instance.handlers), ownProcedures()...))
		addr = instance.Proxy.Addr
	}
	if instance.addr, err = netip.ParseAddrPort(addr); err != nil {
		tb.Fatalf("servicestest: address of the server: %v", err)
	}
	return instance
}

// host returns the services to host, behind the faults of all instances and those of the one.
func (r *Running) host(tb testing.TB, hosted Services, one *Faults) *connect.Server {
	tb.Helper()
	handlers := connect.NewServer(adapters.RecoverPanics(nil), r.faults.interceptor(&one.conns), one.Interceptor())
	adapters.RegisterAuth(handlers, cmp.Or(hosted.Auth, r.Platform.Auth()), nil)
	adapters.RegisterIdentity(handlers, cmp.Or(hosted.Identity, r.Platform.Identity()), nil)
	adapters.RegisterAuthz(handlers, cmp.Or(hosted.Authz, r.Platform.Authz()), nil)
	adapters.RegisterAudit(handlers, cmp.Or(hosted.Audit, r.Platform.Audit()), nil)
	r.faults.set.only(tb, proceduresOf(handlers))
	one.set.only(tb, proceduresOf(handlers))
	return handlers
}

// clear removes all faults of the instance.
func (i *Instance) clear() {
	i.faults.Clear()
	if i.Proxy != nil {
		i.Proxy.Clear()
	}
}

// proceduresOf lists the procedures of a server, sorted.
func proceduresOf(server *connect.Server) []string {
	var procedures []string
	for spec := range server.Specs() {
		procedures = append(procedures, spec.Procedure)
	}
	slices.Sort(procedures)
	return procedures
}

// ownProcedures are those that [rpc.Server] has besides the services': calls of them pass through a proxy, and not through [Faults].
func ownProcedures() []string {
	return []string{
		"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch",
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
	}
}

// only has the set refuse faults, by ending the test, whose name none of the procedures has.
func (s *faultSet) only(tb testing.TB, procedures []string) {
	tb.Helper()
	s.procedures = procedures
	s.refuse = func(name string, known []string) {
		tb.Helper()
		tb.Fatalf("servicestest: no procedure has the name %q, so the fault would never strike; the procedures are %q", name, known)
	}
}
