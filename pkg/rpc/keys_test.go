package rpc_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/internal/testcert"
	"github.com/0x1d/goplt/pkg/rpc"
)

// The tests here change one key of the client's configuration each, and see the effect. Those of protocol, wait_for_instances and
// pool.drain_timeout stand with what they are about.

func TestKeyTimeoutAndAttemptTimeout(t *testing.T) {
	var left time.Duration
	handler := &authHandler{validate: func(ctx context.Context, _ *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
		left = 0
		if deadline, ok := ctx.Deadline(); ok {
			left = time.Until(deadline)
		}
		return &authv1.ValidateTokenResponse{Claims: &authv1.TokenClaims{UserId: "u"}}, nil
	}}
	addr := startHTTP(t, handler.mount(), http1And2).Listener.Addr().String()
	for _, row := range []struct{ timeout, attempt, want time.Duration }{
		{0, 0, 0}, {time.Hour, 0, time.Hour}, {0, time.Minute, time.Minute}, {time.Hour, time.Minute, time.Minute}, {time.Minute, time.Hour, time.Minute},
	} {
		transport, _ := only(t, addr, func(config *rpc.ClientConfig) { config.Timeout, config.AttemptTimeout = row.timeout, row.attempt })
		if err := validate(t.Context(), transport); err != nil {
			t.Fatal(err)
		}
		if left > row.want || left < row.want*9/10 {
			t.Errorf("timeout %v, attempt_timeout %v: the server saw %v, want %v", row.timeout, row.attempt, left, row.want)
		}
	}
}

// TestKeyTimeoutEndsTheCall: without any deadline of the caller's, the call ends in time, whatever the server does.
func TestKeyTimeoutEndsTheCall(t *testing.T) {
	for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
		handler := &authHandler{login: func(ctx context.Context, _ *authv1.LoginRequest) (*authv1.LoginResponse, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		transport, status := only(t, startHTTP(t, handler.mount(), http1And2).Listener.Addr().String(), func(config *rpc.ClientConfig) {
			config.Protocol, config.Timeout = spoken, 500*time.Millisecond
		})
		began := time.Now()
		expectCode(t, login(t.Context(), transport), connect.CodeDeadlineExceeded)
		if took := time.Since(began); took < 495*time.Millisecond || took > 2500*time.Millisecond {
			t.Errorf("%s: took %v, want 500ms", spoken, took)
		}
		if got := status(); got.InFlight != 0 {
			t.Errorf("status %+v", got)
		}
		expectCount(t, "logins", &handler.logins, 1)
	}
}

func TestKeyMaxBytes(t *testing.T) {
	handler := &authHandler{}
	addr := startHTTP(t, handler.mount(), http1And2).Listener.Addr().String()
	token := strings.Repeat("x", 500) // comes back in the answer
	for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
		for _, row := range []struct {
			receive, send int
			want          string
		}{
			{1000, 1000, ""}, {400, 1000, "larger than configured max 400"}, {1000, 400, "exceeds sendMaxBytes 400"},
		} {
			transport, _ := only(t, addr, func(config *rpc.ClientConfig) {
				config.Protocol, config.MaxReceiveBytes, config.MaxSendBytes = spoken, row.receive, row.send
			})
			_, err := newAuthClient(transport).ValidateToken(t.Context(), &authv1.ValidateTokenRequest{Token: token})
			switch {
			case row.want == "" && err != nil:
				t.Errorf("%s %+v: %v", spoken, row, err)
			case row.want != "" && (connect.CodeOf(err) != connect.CodeResourceExhausted || !strings.Contains(fmt.Sprint(err), row.want)):
				t.Errorf("%s %+v: got %v", spoken, row, err)
			}
		}
	}
}

func TestKeyCompression(t *testing.T) {
	var compressed bool
	service := (&authHandler{}).mount()
	addr := startHTTP(t, http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		compressed = request.Header.Get("Content-Encoding") == "gzip"
		service.ServeHTTP(response, request)
	}), http1And2).Listener.Addr().String()
	for _, row := range []struct {
		requests       bool
		minimum, bytes int
		want           bool
	}{
		{false, 0, 5000, false}, {true, 1000, 5000, true}, {true, 1000, 500, false}, {true, 0, 500, true}, {true, 10000, 5000, false},
	} {
		transport, _ := only(t, addr, func(config *rpc.ClientConfig) {
			config.Protocol, config.CompressRequests, config.CompressMinBytes = rpc.ProtocolHTTP, row.requests, row.minimum
		})
		if _, err := newAuthClient(transport).ValidateToken(t.Context(), &authv1.ValidateTokenRequest{Token: strings.Repeat("x", row.bytes)}); err != nil {
			t.Fatal(err)
		}
		if compressed != row.want {
			t.Errorf("%+v: compressed %t", row, compressed)
		}
	}
}

// TestKeyRetryBackoff: with waits that are either next to nothing or for ever, the attempts made within the deadline tell which waits
// there were.
func TestKeyRetryBackoff(t *testing.T) {
	const ages, instant = 10000 * time.Hour, time.Microsecond
	handler := &authHandler{validate: func(context.Context, *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
		return nil, connect.NewError(connect.CodeUnavailable, "no")
	}}
	addr := startHTTP(t, handler.mount(), http1And2).Listener.Addr().String()
	for _, row := range []struct {
		name         string
		attempts     int
		initial, cap time.Duration
		multiplier   float64
		want         int64
	}{
		{"max_attempts 1", 1, instant, instant, 1, 1},
		{"max_attempts 2", 2, instant, instant, 1, 2},
		{"max_attempts 5", 5, instant, instant, 1, 5},
		{"initial_backoff for ever", 5, ages, ages, 1, 1},
		{"backoff_multiplier to for ever", 5, instant, ages, 1e15, 2},
		{"max_backoff next to nothing", 5, instant, instant, 1e15, 5},
	} {
		t.Run(row.name, func(t *testing.T) {
			handler.validations.Store(0)
			transport, _ := only(t, addr, func(config *rpc.ClientConfig) {
				config.Retry.MaxAttempts, config.Retry.InitialBackoff, config.Retry.MaxBackoff = row.attempts, row.initial, row.cap
				config.Retry.BackoffMultiplier = row.multiplier
			})
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if err := validate(ctx, transport); err == nil {
				t.Error("it succeeded")
			}
			expectCount(t, "attempts", &handler.validations, row.want)
		})
	}
}

func TestKeyRetryBudget(t *testing.T) {
	handler := &authHandler{validate: func(context.Context, *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
		return nil, connect.NewError(connect.CodeUnavailable, "no")
	}}
	addr := startHTTP(t, handler.mount(), http1And2).Listener.Addr().String()
	for _, row := range []struct {
		tokens, ratio float64
		want          []int64 // attempts of a call on a full bucket, of the next, and of one after three successes
	}{
		{3, 1, []int64{2, 1, 2}}, {3, 0.1, []int64{2, 1, 1}}, {1, 1, []int64{1, 1, 1}}, {100, 0.1, []int64{3, 3, 3}},
	} {
		transport, _ := only(t, addr, func(config *rpc.ClientConfig) {
			config.Retry.BudgetTokens, config.Retry.BudgetRatio, config.Retry.InitialBackoff = row.tokens, row.ratio, time.Microsecond
		})
		for at, want := range row.want {
			if at == 2 {
				for range 3 {
					if err := login(t.Context(), transport); err != nil {
						t.Fatal(err)
					}
				}
			}
			handler.validations.Store(0)
			expectCode(t, validate(t.Context(), transport), connect.CodeUnavailable)
			if got := handler.validations.Load(); got != want {
				t.Errorf("tokens %v, ratio %v, call %d: %d attempts, want %d", row.tokens, row.ratio, at+1, got, want)
			}
		}
	}
}

func TestKeyBreaker(t *testing.T) {
	for _, row := range []struct {
		name   string
		adjust func(*rpc.BreakerConfig)
		calls  string // well, ill, or pause for 50ms
		want   string
	}{
		{"as it is", func(*rpc.BreakerConfig) {}, "ill ill", "open"},
		{"enabled false", func(config *rpc.BreakerConfig) { config.Enabled = false }, "ill ill", "disabled"},
		{"min_calls 3", func(config *rpc.BreakerConfig) { config.MinCalls = 3 }, "ill ill", "closed"},
		{"min_calls 3, thrice", func(config *rpc.BreakerConfig) { config.MinCalls = 3 }, "ill ill ill", "open"},
		{"failure_rate 1", func(*rpc.BreakerConfig) {}, "well ill ill", "closed"},
		{"failure_rate 0.6", func(config *rpc.BreakerConfig) { config.FailureRate = 0.6 }, "well ill ill", "open"},
		{"window 20ms", func(config *rpc.BreakerConfig) { config.Window = 20 * time.Millisecond }, "ill pause ill", "closed"},
		{"window 1h", func(*rpc.BreakerConfig) {}, "ill pause ill", "open"},
		{"open_for 20ms, half_open_successes 2", func(config *rpc.BreakerConfig) { config.OpenFor = 20 * time.Millisecond }, "ill ill pause well", "half-open"},
		{"open_for 20ms, half_open_successes 1", func(config *rpc.BreakerConfig) {
			config.OpenFor, config.HalfOpenSuccesses = 20*time.Millisecond, 1
		}, "ill ill pause well", "closed"},
		{"open_for 1h", func(*rpc.BreakerConfig) {}, "ill ill pause well", "open"},
	} {
		t.Run(row.name, func(t *testing.T) {
			service := startSick(t)
			transport, status := only(t, service.addr, func(config *rpc.ClientConfig) {
				config.Breaker = rpc.BreakerConfig{Enabled: true, FailureRate: 1, MinCalls: 2, Window: time.Hour, OpenFor: time.Hour, HalfOpenSuccesses: 2}
				row.adjust(&config.Breaker)
			})
			for call := range strings.FieldsSeq(row.calls) {
				if call == "pause" {
					elapse(t, 50*time.Millisecond)
					continue
				}
				service.sick.Store(call == "ill")
				if err := login(t.Context(), transport); (err != nil) != (call == "ill") {
					t.Fatalf("%s: got %v", call, err)
				}
			}
			if got := status().Breaker; got != row.want {
				t.Errorf("after %q the breaker is %s, want %s", row.calls, got, row.want)
			}
		})
	}
}

// elapse waits for time that real sockets need to be real.
func elapse(t testing.TB, duration time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), duration)
	defer cancel()
	<-ctx.Done()
}

func TestKeyTLS(t *testing.T) {
	authority, stranger := testcert.New(t), testcert.New(t)
	pair, client := authority.Issue(t, "auth.internal", "127.0.0.1"), authority.Issue(t, "caller")
	named := authority.Issue(t, "auth.internal") // not valid for the address
	load := func(pair testcert.Pair) tls.Certificate {
		certificate, err := tls.LoadX509KeyPair(pair.CertFile, pair.KeyFile)
		if err != nil {
			t.Fatal(err)
		}
		return certificate
	}
	trusted, pem := x509.NewCertPool(), readFile(t, authority.CAFile)
	trusted.AppendCertsFromPEM(pem)
	plain := &tls.Config{Certificates: []tls.Certificate{load(pair)}, NextProtos: []string{"h2", "http/1.1"}}
	byName := &tls.Config{Certificates: []tls.Certificate{load(named)}, NextProtos: []string{"h2", "http/1.1"}}
	mutual := &tls.Config{
		Certificates: []tls.Certificate{load(pair)}, NextProtos: []string{"h2", "http/1.1"}, ClientCAs: trusted, ClientAuth: tls.RequireAndVerifyClientCert,
		MaxVersion: tls.VersionTLS12, // so that the refusal comes within the handshake
	}
	for _, row := range []struct {
		name   string
		server *tls.Config
		client rpc.TLSConfig
		want   string // in the error; empty for success
	}{
		{"enabled", plain, rpc.TLSConfig{Enabled: true, CAFile: authority.CAFile}, ""},
		{"not enabled", plain, rpc.TLSConfig{}, "attempt 1"}, // the server answers cleartext with 400 or not at all
		{"no ca_file", plain, rpc.TLSConfig{Enabled: true}, "certificate signed by unknown authority"},
		{"another ca_file", plain, rpc.TLSConfig{Enabled: true, CAFile: stranger.CAFile}, "certificate signed by unknown authority"},
		{"server_name", byName, rpc.TLSConfig{Enabled: true, CAFile: authority.CAFile, ServerName: "auth.internal"}, ""},
		{"no server_name", byName, rpc.TLSConfig{Enabled: true, CAFile: authority.CAFile}, "cannot validate certificate for 127.0.0.1"},
		{"wrong server_name", byName, rpc.TLSConfig{Enabled: true, CAFile: authority.CAFile, ServerName: "x"}, "certificate is valid for auth.internal, not x"},
		{"cert_file and key_file", mutual, rpc.TLSConfig{Enabled: true, CAFile: authority.CAFile, CertFile: client.CertFile, KeyFile: client.KeyFile}, ""},
		{"no cert_file", mutual, rpc.TLSConfig{Enabled: true, CAFile: authority.CAFile}, "unavailable"},
	} {
		for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
			t.Run(row.name+" by "+string(spoken), func(t *testing.T) {
				handler, listener := &authHandler{}, listen(t)
				server := &http.Server{Handler: handler.mount(), TLSConfig: row.server.Clone(), ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
				var serving sync.WaitGroup
				serving.Go(func() { _ = server.ServeTLS(listener, "", "") })
				t.Cleanup(func() {
					_ = server.Close()
					serving.Wait()
				})
				transport, status := only(t, listener.Addr().String(), func(config *rpc.ClientConfig) {
					config.Protocol, config.TLS, config.Retry.MaxAttempts = spoken, row.client, 1
					config.Timeout = 2 * time.Second
				})
				err := login(t.Context(), transport)
				switch {
				case row.want == "" && err != nil:
					t.Error(err)
				case row.want == "":
					expectCount(t, "logins", &handler.logins, 1)
				default:
					if err == nil || !strings.Contains(err.Error(), row.want) {
						t.Errorf("got %v, want it to say %q", err, row.want)
					}
					expectCount(t, "logins", &handler.logins, 0)
				}
				expectAtRest(t, status(), spoken)
			})
		}
	}
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
