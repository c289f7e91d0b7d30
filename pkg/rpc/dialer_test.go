package rpc_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	"github.com/0x1d/goplt/internal/testcert"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/rpc"
)

// somewhere is an instance whose name nobody can look up.
var somewhere = registry.Instance{ID: "1", Service: "auth", Host: "auth.invalid", Port: 7, Weight: 1}

func dialerTransport(t *testing.T, config rpc.ClientConfig, dial func(context.Context, string, string) (net.Conn, error)) *rpc.Transport {
	t.Helper()
	transport, err := rpc.NewTransport("scripted:///auth", newScripted(somewhere), rpc.WithClientConfig(config), rpc.WithDialer(dial))
	if err != nil {
		t.Fatal(err)
	}
	return transport
}

// TestDialer: connections are opened by the dialer given, to the instance as the registry has it, and TLS is spoken on them in its name.
func TestDialer(t *testing.T) {
	authority := testcert.New(t)
	pair := authority.Issue(t, somewhere.Host)
	_, handlers := newWords()
	secured := testConfig()
	secured.TLS = rpc.TLSConfig{Enabled: true, CertFile: pair.CertFile, KeyFile: pair.KeyFile}
	for _, row := range []struct {
		name   string
		server rpc.ServerConfig
		client rpc.TLSConfig
	}{
		{"cleartext", testConfig(), rpc.TLSConfig{}},
		{"TLS", secured, rpc.TLSConfig{Enabled: true, CAFile: authority.CAFile}},
	} {
		server := startServer(t, handlers, row.server)
		for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
			t.Run(row.name+" "+string(spoken), func(t *testing.T) {
				config := rpc.DefaultClientConfig()
				config.Protocol, config.TLS = spoken, row.client
				transport := dialerTransport(t, config, func(ctx context.Context, network, addr string) (net.Conn, error) {
					if network != "tcp" || addr != "auth.invalid:7" {
						t.Errorf("asked to dial %s %s", network, addr)
					}
					return new(net.Dialer).DialContext(ctx, "tcp", server.Addr())
				})
				if answer, err := callText(t.Context(), connect.NewClient(transport), specEcho, "x"); err != nil || answer != "x" {
					t.Errorf("answer %q, %v", answer, err)
				}
				if err := transport.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestDialerFails(t *testing.T) {
	refused := errors.New("the tunnel is shut")
	config := rpc.DefaultClientConfig()
	config.Retry.MaxAttempts = 1
	transport := dialerTransport(t, config, func(context.Context, string, string) (net.Conn, error) { return nil, refused })
	_, err := newAuthClient(transport).ValidateToken(t.Context(), &authv1.ValidateTokenRequest{})
	if connect.CodeOf(err) != connect.CodeUnavailable || !errors.Is(err, refused) || !strings.Contains(err.Error(), "dial auth.invalid:7: the tunnel is shut") {
		t.Errorf("error %v; want unavailable, for what the dialer says", err)
	}
	if err := transport.Close(); err != nil {
		t.Error(err)
	}
}

// TestDialerInMemory: over connections in memory a whole call runs on the clock of synctest, to the nanosecond.
func TestDialerInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler := &authHandler{validate: func(ctx context.Context, _ *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		handlers := connect.NewServer()
		authv1connect.RegisterAuthServiceHandler(handlers, handler)
		_, listener := startInBubble(t, handlers)
		transport := dialerTransport(t, rpc.DefaultClientConfig(), func(context.Context, string, string) (net.Conn, error) { return listener.dial() })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := newAuthClient(transport).ValidateToken(ctx, &authv1.ValidateTokenRequest{})
		if took := time.Since(began); connect.CodeOf(err) != connect.CodeDeadlineExceeded || took != time.Second {
			t.Errorf("%v after %v; want deadline exceeded after 1s", err, took)
		}
		if err := transport.Close(); err != nil {
			t.Error(err)
		}
	})
}
