package servicestest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/services"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// counted is an auth service that counts how often it runs.
type counted struct {
	services.AuthServiceClient

	logins, validations atomic.Int64
}

func (c *counted) Login(ctx context.Context, email, password string) (*services.TokenResponse, error) {
	c.logins.Add(1)
	return c.AuthServiceClient.Login(ctx, email, password)
}

func (c *counted) ValidateToken(ctx context.Context, token string) (*services.TokenClaims, error) {
	c.validations.Add(1)
	return c.AuthServiceClient.ValidateToken(ctx, token)
}

// startCounted starts a server whose auth service counts, with a user and her access token.
func startCounted(t *testing.T, opts ...servicestest.StartOption) (s *servicestest.Running, count *counted, token string) {
	t.Helper()
	platform := newPlatform(servicestest.WithDemoData())
	count = &counted{AuthServiceClient: platform.Auth()}
	tokens, err := platform.Auth().Login(t.Context(), "ada@example.com", servicestest.DemoPassword)
	if err != nil {
		t.Fatal(err)
	}
	s = servicestest.Start(t, append(opts, servicestest.WithServices(servicestest.Services{Auth: count}))...)
	return s, count, tokens.AccessToken
}

func protocols() []rpc.Protocol { return []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} }

func TestFailTimes(t *testing.T) {
	for _, protocol := range protocols() {
		t.Run(string(protocol), func(t *testing.T) {
			s, count, token := startCounted(t, servicestest.WithProtocol(protocol))
			fault := s.Faults().Fail("auth.Login", connect.CodeResourceExhausted, servicestest.Times(2))
			for range 2 {
				_, err := s.Auth.Login(t.Context(), "ada@example.com", servicestest.DemoPassword)
				if !errors.Is(err, services.ErrResourceExhausted) || !strings.Contains(err.Error(), "injected fault") {
					t.Errorf("got %v, want the injected error", err)
				}
			}
			if _, err := s.Auth.ValidateToken(t.Context(), token); err != nil {
				t.Errorf("a method without a fault: %v", err)
			}
			if _, err := s.Auth.Login(t.Context(), "ada@example.com", servicestest.DemoPassword); err != nil {
				t.Errorf("after the fault: %v", err)
			}
			if fault.Hits() != 2 || count.logins.Load() != 1 {
				t.Errorf("got %d hits and %d logins, want 2 and 1", fault.Hits(), count.logins.Load())
			}
		})
	}
}

// An idempotent method gets through what is over after two attempts; one that is not fails, and did not run twice.
func TestFailMeetsRetries(t *testing.T) {
	s, count, token := startCounted(t)
	fault := s.Faults().Fail("auth", connect.CodeUnavailable, servicestest.Times(2))
	if _, err := s.Auth.ValidateToken(t.Context(), token); err != nil {
		t.Errorf("a method that may be repeated: %v", err)
	}
	if fault.Hits() != 2 || count.validations.Load() != 1 {
		t.Errorf("got %d hits and %d validations, want 2 and 1", fault.Hits(), count.validations.Load())
	}
	fault = s.Faults().Fail("auth.Login", connect.CodeUnavailable, servicestest.Times(1), servicestest.AfterExecution())
	_, err := s.Auth.Login(t.Context(), "ada@example.com", servicestest.DemoPassword)
	if !errors.Is(err, services.ErrUnavailable) || fault.Hits() != 1 || count.logins.Load() != 1 {
		t.Errorf("got %v, %d hits and %d logins; want unavailable, 1 and 1", err, fault.Hits(), count.logins.Load())
	}
}

func TestFaultNames(t *testing.T) {
	for _, test := range []struct {
		name         string
		login, query bool
	}{
		{"*", true, true},
		{"auth", true, false},
		{"auth.Login", true, false},
		{"/goplt.auth.v1.AuthService/Login", true, false},
		{"auth.ValidateToken", false, false},
		{"audit", false, true},
		{"audit.Query", false, true},
	} {
		t.Run(strings.ReplaceAll(test.name, "/", "|"), func(t *testing.T) {
			s := servicestest.Start(t, servicestest.WithDemoData(), servicestest.WithProtocol(rpc.ProtocolInProcess))
			s.Faults().Fail(test.name, connect.CodeAborted)
			_, err := s.Auth.Login(t.Context(), "ada@example.com", servicestest.DemoPassword)
			if errors.Is(err, services.ErrAborted) != test.login {
				t.Errorf("Login: got %v, want a fault: %t", err, test.login)
			}
			_, err = s.Audit.Query(t.Context(), services.AuditFilters{})
			if errors.Is(err, services.ErrAborted) != test.query {
				t.Errorf("Query: got %v, want a fault: %t", err, test.query)
			}
			s.Faults().Clear()
			if _, err := s.Audit.Query(t.Context(), services.AuditFilters{}); err != nil {
				t.Errorf("after Clear: %v", err)
			}
		})
	}
}

// recorder is a test that notes that it was ended, instead of ending.
type recorder struct {
	testing.TB

	fatal string
}

func (r *recorder) Helper() {}

func (r *recorder) Fatalf(format string, args ...any) { r.fatal = fmt.Sprintf(format, args...) }

func TestFaultOfUnknownProcedureEndsTheTest(t *testing.T) {
	for _, name := range []string{"auth.Logn", "authentication", "Login", "", "auth.", "AUTH.Login", "/goplt.auth.v1.AuthService"} {
		tb := &recorder{TB: t}
		s := servicestest.Start(tb, servicestest.WithProxy())
		for where, add := range map[string]func(){
			"server": func() { s.Faults().Fail(name, connect.CodeAborted) },
			"proxy":  func() { s.Proxy.InjectStatus(name, http.StatusBadGateway, servicestest.Times(1)) },
		} {
			tb.fatal = ""
			add()
			if !strings.Contains(tb.fatal, fmt.Sprintf("%q", name)) || !strings.Contains(tb.fatal, "AuthService/Login") {
				t.Errorf("name %q at the %s: got %q, want the name and those that there are", name, where, tb.fatal)
			}
		}
	}
}

// Through a proxy comes what the server answers by itself, too.
func TestFaultOfHealthInTheProxy(t *testing.T) {
	s := servicestest.Start(t, servicestest.WithProxy())
	fault := s.Proxy.InjectStatus("/grpc.health.v1.Health/Check", http.StatusBadGateway)
	transport, err := rpc.NewTransport(services.AuthService, s.Registry)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = transport.Close() }()
	if _, err := rpc.CheckHealth(t.Context(), transport, ""); err == nil || fault.Hits() == 0 {
		t.Errorf("a check gave %v after %d faults", err, fault.Hits())
	}
}

func TestFaultWithoutProxy(t *testing.T) {
	s := servicestest.Start(t)
	for name, use := range map[string]func(){
		"a fault":    func() { s.Proxy.InjectStatus("auth", http.StatusBadGateway) },
		"HTTP1Only":  func() { s.Proxy.HTTP1Only() },
		"a question": func() { s.Proxy.Requests("auth") },
	} {
		func() {
			defer func() {
				if said := fmt.Sprint(recover()); said != "servicestest: there is no proxy; Start with WithProxy()" {
					t.Errorf("%s: panicked with %s", name, said)
				}
			}()
			use()
		}()
	}
}

// A fault before the handler keeps it from running; one after does not. Either way the client learns of the fault only.
func TestFaultsBeforeAndAfterExecution(t *testing.T) {
	for _, protocol := range protocols() {
		for name, inject := range map[string]func(*servicestest.Faults, ...servicestest.FaultOption) *servicestest.Fault{
			"fail": func(f *servicestest.Faults, opts ...servicestest.FaultOption) *servicestest.Fault {
				return f.Fail("auth.Login", connect.CodeDataLoss, opts...)
			},
			"drop": func(f *servicestest.Faults, opts ...servicestest.FaultOption) *servicestest.Fault {
				return f.Drop("auth.Login", opts...)
			},
		} {
			t.Run(string(protocol)+" "+name, func(t *testing.T) {
				s, count, _ := startCounted(t, servicestest.WithProtocol(protocol))
				fault := inject(s.Faults())
				if _, err := s.Auth.Login(t.Context(), "ada@example.com", servicestest.DemoPassword); err == nil || count.logins.Load() != 0 {
					t.Errorf("before execution: got %v after %d logins, want an error after none", err, count.logins.Load())
				}
				fault.Remove()
				fault.Remove()
				inject(s.Faults(), servicestest.AfterExecution(), servicestest.Times(1))
				if _, err := s.Auth.Login(t.Context(), "ada@example.com", servicestest.DemoPassword); err == nil || count.logins.Load() != 1 {
					t.Errorf("after execution: got %v after %d logins, want an error after one", err, count.logins.Load())
				}
				if _, err := s.Auth.Login(t.Context(), "ada@example.com", servicestest.DemoPassword); err != nil || count.logins.Load() != 2 {
					t.Errorf("after the faults: got %v after %d logins, want success", err, count.logins.Load())
				}
			})
		}
	}
}

func TestDropIsRetriedWhereThatIsSafe(t *testing.T) {
	for _, protocol := range protocols() {
		t.Run(string(protocol), func(t *testing.T) {
			s, count, token := startCounted(t, servicestest.WithProtocol(protocol))
			fault := s.Faults().Drop("auth.ValidateToken", servicestest.Times(1), servicestest.AfterExecution())
			if _, err := s.Auth.ValidateToken(t.Context(), token); err != nil || fault.Hits() != 1 || count.validations.Load() != 2 {
				t.Errorf("got %v, %d hits and %d executions; want success, 1 and 2", err, fault.Hits(), count.validations.Load())
			}
		})
	}
}

func TestDropInProcess(t *testing.T) {
	s := servicestest.Start(t, servicestest.WithProtocol(rpc.ProtocolInProcess))
	s.Faults().Drop("auth.Login")
	if _, err := s.Auth.Login(t.Context(), "ada@example.com", servicestest.DemoPassword); !errors.Is(err, services.ErrUnavailable) {
		t.Errorf("got %v, want unavailable", err)
	}
}

func TestDropConnections(t *testing.T) {
	for _, protocol := range protocols() {
		t.Run(string(protocol), func(t *testing.T) {
			s, _, token := startCounted(t, servicestest.WithProtocol(protocol))
			if n := s.Faults().DropConnections(); n != 0 {
				t.Errorf("dropped %d connections before the first call", n)
			}
			for range 3 {
				if _, err := s.Auth.ValidateToken(t.Context(), token); err != nil {
					t.Fatalf("validate: %v", err)
				}
				if n := s.Faults().DropConnections(); n != 1 {
					t.Errorf("dropped %d connections, want 1", n)
				}
			}
		})
	}
}

// The peer learns of it as of a crash, not of a goodbye.
func TestDroppedConnectionIsReset(t *testing.T) {
	s := servicestest.Start(t)
	var dialer net.Dialer
	conn, err := dialer.DialContext(t.Context(), "tcp", strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = io.Copy(io.Discard, response.Body); err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if n := s.Faults().DropConnections(); n != 1 {
		t.Errorf("dropped %d connections, want 1", n)
	}
	if _, err = reader.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

// blocking is an auth service whose Login says that it was called and then waits for the end of its context.
type blocking struct {
	services.AuthServiceClient

	called chan struct{}
}

func (b blocking) Login(ctx context.Context, _, _ string) (*services.TokenResponse, error) {
	close(b.called)
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestDropConnectionsUnderACall(t *testing.T) {
	for _, protocol := range protocols() {
		t.Run(string(protocol), func(t *testing.T) {
			auth := blocking{called: make(chan struct{})}
			s := servicestest.Start(t, servicestest.WithProtocol(protocol), servicestest.WithServices(servicestest.Services{Auth: auth}))
			failed := make(chan error)
			go func() {
				_, err := s.Auth.Login(t.Context(), "ada@example.com", servicestest.DemoPassword)
				failed <- err
			}()
			<-auth.called
			if n := s.Faults().DropConnections(); n != 1 {
				t.Errorf("dropped %d connections, want 1", n)
			}
			if err := <-failed; !errors.Is(err, services.ErrUnavailable) {
				t.Errorf("got %v, want unavailable", err)
			}
		})
	}
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faults := servicestest.NewFaults()
		ran := 0
		call := faults.Interceptor()(func(context.Context, connect.Spec, connect.ServerStream) error {
			ran++
			return nil
		})
		spec := connect.Spec{Procedure: "/acme.billing.v1.BillingService/Charge"}
		begin := time.Now()
		faults.Delay("billing.Charge", time.Minute, servicestest.Times(1))
		faults.Delay("billing", time.Second)
		if err := call(t.Context(), spec, nil); err != nil || time.Since(begin) != time.Minute+time.Second || ran != 1 {
			t.Errorf("got %v after %v, want success after both delays", err, time.Since(begin))
		}
		begin = time.Now()
		if err := call(t.Context(), spec, nil); err != nil || time.Since(begin) != time.Second {
			t.Errorf("got %v after %v, want success after the delay that is left", err, time.Since(begin))
		}
		begin = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		err := call(ctx, spec, nil)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Millisecond || ran != 2 {
			t.Errorf("got %v after %v, want the call's deadline to end the delay", err, time.Since(begin))
		}
	})
}

func TestRemoveEndsDelaysUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faults := servicestest.NewFaults()
		call := faults.Interceptor()(func(context.Context, connect.Spec, connect.ServerStream) error { return nil })
		fault := faults.Delay("*", time.Hour)
		begin := time.Now()
		done := make(chan error)
		go func() { done <- call(t.Context(), connect.Spec{Procedure: "/a.B/C"}, nil) }()
		synctest.Wait()
		if fault.Hits() != 1 {
			t.Errorf("got %d hits, want 1", fault.Hits())
		}
		fault.Remove()
		if err := <-done; err != nil || time.Since(begin) != 0 {
			t.Errorf("got %v after %v, want success at once", err, time.Since(begin))
		}
	})
}
