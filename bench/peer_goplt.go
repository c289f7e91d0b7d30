package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"

	"connectrpc.com/connect/v2"

	adapters "github.com/0x1d/goplt/internal/services"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/memory"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/services"
)

// auth implements the service as an application does, in domain types.
type auth struct {
	services.AuthServiceClient // the methods that are not called
}

// ValidateToken answers what all peers answer.
func (auth) ValidateToken(_ context.Context, got string) (*services.TokenClaims, error) {
	if got != token {
		return nil, services.Errorf(services.ErrUnauthenticated, "wrong token")
	}
	return &services.TokenClaims{
		UserID: userID, Email: email, Roles: roles, TokenID: tokenID, IssuedAt: issuedAt, ExpiresAt: expiresAt,
	}, nil
}

// serveGoplt serves with all that an application gets by default: adapters, limits, time-outs, health, reflection.
func serveGoplt() (*server, error) { return hostAuth(auth{}) }

func hostAuth(implementation services.AuthServiceClient) (*server, error) {
	handlers := connect.NewServer()
	adapters.RegisterAuth(handlers, implementation, slog.New(slog.DiscardHandler))
	config := rpc.DefaultServerConfig()
	config.Listen = "127.0.0.1:0"
	hosting, err := rpc.NewServer(handlers, rpc.WithServerConfig(config))
	if err != nil {
		return nil, err
	}
	if err := hosting.Start(context.Background()); err != nil {
		return nil, err
	}
	return &server{addr: hosting.Addr(), stop: func() { _ = hosting.Stop(context.Background()) }}, nil
}

// dialGopltGRPC uses the default configuration: protocol auto, which speaks gRPC to a server that can.
func dialGopltGRPC(addr string, _ int) (*client, error) {
	return dialGoplt(addr, rpc.DefaultClientConfig())
}

func dialGopltJSON(addr string, callers int) (*client, error) {
	config := rpc.DefaultClientConfig()
	config.Protocol = rpc.ProtocolHTTP
	config.Pool.MaxHTTPConnections = max(config.Pool.MaxHTTPConnections, callers)
	return dialGoplt(addr, config)
}

// dialGoplt makes the client that applications inject: found in a registry, balanced, retried, guarded by a breaker.
func dialGoplt(addr string, config rpc.ClientConfig) (*client, error) {
	found, err := registryWith(services.AuthService, addr)
	if err != nil {
		return nil, err
	}
	factory, err := adapters.NewFactory(adapters.FactoryConfig{
		Registry: found, Client: func(string) rpc.ClientConfig { return config },
	})
	if err != nil {
		return nil, errors.Join(err, found.Close())
	}
	authClient, err := factory.Auth()
	if err != nil {
		return nil, errors.Join(err, factory.Close(), found.Close())
	}
	call := func(ctx context.Context) error {
		claims, err := authClient.ValidateToken(ctx, token)
		if err != nil {
			return err
		}
		return checkAnswer(claims.UserID, claims.Email, len(claims.Roles), claims.ExpiresAt.Unix())
	}
	return &client{call: call, stop: func() { _ = errors.Join(factory.Close(), found.Close()) }}, nil
}

func registryWith(service, addr string) (*memory.Registry, error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("port of %s: %w", addr, err)
	}
	found := memory.New()
	_, err = found.Register(context.Background(), registry.Instance{ID: addr, Service: service, Host: host, Port: port, Weight: 1})
	if err != nil {
		return nil, errors.Join(err, found.Close())
	}
	return found, nil
}
