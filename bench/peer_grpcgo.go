package main

import (
	"context"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
)

// retryConfig is what a careful user of grpc-go configures: all instances in turn, and another attempt when one is not reachable.
const retryConfig = `{
	"loadBalancingConfig": [{"round_robin": {}}],
	"methodConfig": [{
		"name": [{"service": "goplt.auth.v1.AuthService"}],
		"retryPolicy": {
			"maxAttempts": 3, "initialBackoff": "0.02s", "maxBackoff": "1s", "backoffMultiplier": 2,
			"retryableStatusCodes": ["UNAVAILABLE"]
		}
	}],
	"retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1}
}`

// serveGRPCGo serves what protoc-gen-go-grpc would generate for the one method, written by hand.
func serveGRPCGo() (*server, error) {
	listener, err := listen()
	if err != nil {
		return nil, err
	}
	service := grpc.ServiceDesc{
		ServiceName: authv1connect.AuthServiceName,
		Methods:     []grpc.MethodDesc{{MethodName: "ValidateToken", Handler: handleGRPCGo}},
	}
	grpcServer := grpc.NewServer()
	grpcServer.RegisterService(&service, nil)
	go func() { _ = grpcServer.Serve(listener) }() // ends with Stop
	return &server{addr: listener.Addr().String(), stop: grpcServer.Stop}, nil
}

//nolint:revive // grpc.MethodHandler has the context second
func handleGRPCGo(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	request := new(authv1.ValidateTokenRequest)
	if err := decode(request); err != nil {
		return nil, err
	}
	if request.GetToken() != token {
		return nil, status.Error(codes.Unauthenticated, "wrong token")
	}
	return answer(), nil
}

func dialGRPCGo(addr string, _ int) (*client, error) {
	return dialGRPC("passthrough:///" + addr)
}

func dialGRPCGoRetry(addr string, _ int) (*client, error) {
	return dialGRPC("dns:///"+addr, grpc.WithDefaultServiceConfig(retryConfig))
}

func dialGRPC(target string, options ...grpc.DialOption) (*client, error) {
	options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	connection, err := grpc.NewClient(target, options...)
	if err != nil {
		return nil, err
	}
	call := func(ctx context.Context) error {
		response := new(authv1.ValidateTokenResponse)
		request := &authv1.ValidateTokenRequest{Token: token}
		if err := connection.Invoke(ctx, authv1connect.AuthServiceValidateTokenProcedure, request, response); err != nil {
			return err
		}
		return checkMessage(response)
	}
	return &client{call: call, stop: func() { _ = connection.Close() }}, nil
}

func listen() (net.Listener, error) {
	return (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
}
