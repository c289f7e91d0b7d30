package main

import (
	"context"
	"log/slog"
	"net"
	"strconv"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/hashicorp/consul/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	"github.com/0x1d/goplt/pkg/registry/consul"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/services"
)

// seeker is a client that finds a service's instances in Consul, and takes them in turn.
type seeker struct {
	name string
	dial func(agent, service string) (*seeking, error)
}

// seeking is one that is dialed. Its call returns who answered.
type seeking struct {
	call func(ctx context.Context) (string, error)
	stop func()
}

func seekers() []seeker {
	return []seeker{{"goplt", seekByGoplt}, {"grpc-go with a loop", seekByLoop}}
}

// named is a service that says who it is.
type named struct {
	services.AuthServiceClient // the methods that are not called

	name string
}

func (n named) ValidateToken(context.Context, string) (*services.TokenClaims, error) {
	return &services.TokenClaims{UserID: n.name, IssuedAt: issuedAt, ExpiresAt: expiresAt}, nil
}

// seekByGoplt uses the default configuration but for two things that would hide when an instance is first known: instances are taken in turn, and
// none slowly at first.
func seekByGoplt(agent, service string) (*seeking, error) {
	found, err := registryOver(agent)
	if err != nil {
		return nil, err
	}
	config := rpc.DefaultClientConfig()
	config.Balancer.Policy, config.Balancer.SlowStart = rpc.BalancerRoundRobin, 0
	transport, err := rpc.NewTransport("consul:///"+service, found, rpc.WithClientConfig(config))
	if err != nil {
		return nil, err
	}
	auth := authv1connect.NewAuthServiceClient(connect.NewClient(transport))
	call := func(ctx context.Context) (string, error) {
		response, err := auth.ValidateToken(ctx, &authv1.ValidateTokenRequest{Token: token})
		return response.GetClaims().GetUserId(), err
	}
	return &seeking{call: call, stop: func() {
		_ = transport.Close()
		_ = found.Close()
	}}, nil
}

// registryOver returns a registry over an agent with the default configuration.
func registryOver(agent string) (*consul.Registry, error) {
	config := consul.DefaultConfig()
	config.Address, config.Logger = agent, slog.New(slog.DiscardHandler)
	return consul.New(config)
}

// apiTo returns a client of Consul's own API with its defaults, and what closes the connections that it leaves.
func apiTo(agent string) (*api.Client, func(), error) {
	config := api.DefaultConfig()
	config.Address = agent
	client, err := api.NewClient(config)
	return client, config.Transport.CloseIdleConnections, err
}

// seekByLoop uses grpc-go, told of instances by a loop on Consul's own API, as resolvers for Consul are made.
func seekByLoop(agent, service string) (*seeking, error) {
	client, closeIdle, err := apiTo(agent)
	if err != nil {
		return nil, err
	}
	connection, err := grpc.NewClient("loop:///"+service, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`), grpc.WithResolvers(loopBuilder{client}))
	if err != nil {
		return nil, err
	}
	call := func(ctx context.Context) (string, error) {
		response := new(authv1.ValidateTokenResponse)
		err := connection.Invoke(ctx, authv1connect.AuthServiceValidateTokenProcedure, &authv1.ValidateTokenRequest{Token: token}, response)
		return response.GetClaims().GetUserId(), err
	}
	return &seeking{call: call, stop: func() {
		_ = connection.Close()
		closeIdle()
	}}, nil
}

// loopBuilder is the [resolver.Builder] of grpc-go with a loop.
type loopBuilder struct{ client *api.Client }

func (loopBuilder) Scheme() string { return "loop" }

// Build implements [resolver.Builder].
func (b loopBuilder) Build(target resolver.Target, connection resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		loop(ctx, b.client, target.Endpoint(), func() {}, func(entries []*api.ServiceEntry) {
			var state resolver.State
			for _, entry := range entries {
				address := net.JoinHostPort(entry.Service.Address, strconv.Itoa(entry.Service.Port))
				state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: address}}})
			}
			_ = connection.UpdateState(state) // is refused when there are none, which is no news here
		})
	}()
	return loopResolver{cancel: cancel, done: done}, nil
}

type loopResolver struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func (loopResolver) ResolveNow(resolver.ResolveNowOptions) {}

func (r loopResolver) Close() {
	r.cancel()
	<-r.done
}

// loopRetry is how long the loop waits after an error.
const loopRetry = time.Second

// loop follows a service as Consul's documentation of blocking queries has it, until the context ends. It says before each query that it asks, and
// after each answer what that was.
func loop(ctx context.Context, client *api.Client, service string, ask func(), tell func([]*api.ServiceEntry)) {
	for index := uint64(0); ctx.Err() == nil; {
		ask()
		entries, meta, err := client.Health().ServiceMultipleTags(service, nil, true, (&api.QueryOptions{WaitIndex: index}).WithContext(ctx))
		if err != nil {
			_ = rest(ctx, loopRetry)
			continue
		}
		if meta.LastIndex < index {
			index = 0
			continue
		}
		index = meta.LastIndex
		tell(entries)
	}
}
