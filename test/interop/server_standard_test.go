package interop_test

import (
	"context"
	"io"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	"github.com/0x1d/goplt/pkg/rpc"
)

func TestServerHealthFromGRPCGo(t *testing.T) {
	server := serveStub(t, claims)
	client := grpc_health_v1.NewHealthClient(dialGRPCGo(t, "passthrough:///"+server.Addr()))
	ctx := within(t)

	for _, service := range []string{"", authv1connect.AuthServiceName} {
		got, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil || got.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("check %q: %v, %v, want SERVING", service, got, err)
		}
	}
	if _, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "nothing"}); status.Code(err) != codes.NotFound {
		t.Errorf("check of an unknown service: %v, want NotFound", err)
	}

	watch, err := client.Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: authv1connect.AuthServiceName})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want grpc_health_v1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		got, err := watch.Recv()
		if err != nil || got.GetStatus() != want {
			t.Fatalf("watch: %v, %v, want %v", got, err, want)
		}
	}
	expect(grpc_health_v1.HealthCheckResponse_SERVING)
	server.Health().SetNotServing(authv1connect.AuthServiceName)
	expect(grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	server.Health().SetServing(authv1connect.AuthServiceName)
	expect(grpc_health_v1.HealthCheckResponse_SERVING)
}

func TestServerReflectionFromGRPCGo(t *testing.T) {
	server := startServer(t, handlersOf(newPlatform()))
	client := grpc_reflection_v1.NewServerReflectionClient(dialGRPCGo(t, "passthrough:///"+server.Addr()))
	stream, err := client.ServerReflectionInfo(within(t))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(request *grpc_reflection_v1.ServerReflectionRequest) *grpc_reflection_v1.ServerReflectionResponse {
		t.Helper()
		if err := stream.Send(request); err != nil {
			t.Fatal(err)
		}
		response, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return response
	}

	listed := ask(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}})
	var names []string
	for _, service := range listed.GetListServicesResponse().GetService() {
		names = append(names, service.GetName())
	}
	for _, want := range []string{
		"goplt.audit.v1.AuditService", "goplt.auth.v1.AuthService", "goplt.authz.v1.AuthzService", "goplt.identity.v1.IdentityService",
		"grpc.health.v1.Health",
	} {
		if !slices.Contains(names, want) {
			t.Errorf("services %q lack %s", names, want)
			continue
		}
		response := ask(&grpc_reflection_v1.ServerReflectionRequest{
			MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: want},
		})
		files := response.GetFileDescriptorResponse().GetFileDescriptorProto()
		if len(files) == 0 {
			t.Errorf("no file for %s: %v", want, response)
			continue
		}
		file := new(descriptorpb.FileDescriptorProto)
		if err := proto.Unmarshal(files[0], file); err != nil || len(file.GetService()) != 1 {
			t.Errorf("file of %s: %d services, %v", want, len(file.GetService()), err)
		}
	}

	if err := stream.CloseSend(); err != nil {
		t.Error(err)
	}
	if _, err := stream.Recv(); err != io.EOF { //nolint:errorlint // gRPC promises this very value
		t.Errorf("end of the stream: %v, want io.EOF", err)
	}
}

func TestServerStopsWithoutFailingCallsOfGRPCGo(t *testing.T) {
	var servers [2]*rpc.Server
	var served [2]gauge
	targets := resolver.State{}
	for i := range servers {
		servers[i] = serveStub(t, func(ctx context.Context, request *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
			served[i].add(1)
			return claims(ctx, request)
		})
		targets.Addresses = append(targets.Addresses, resolver.Address{Addr: servers[i].Addr()})
	}
	fixed := manual.NewBuilderWithScheme("fixed")
	fixed.InitialState(targets)
	connection := dialGRPCGo(t, "fixed:///auth", grpc.WithResolvers(fixed),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`))

	calls, err := loadUntil(within(t), 8, func(ctx context.Context, _ int64) error {
		return connection.Invoke(ctx, validateToken, &authv1.ValidateTokenRequest{Token: "t"}, &authv1.ValidateTokenResponse{})
	}, func() error { return servers[0].Stop(t.Context()) })
	if err != nil {
		t.Error(err)
	}
	if got := served[0].value() + served[1].value(); got != calls || served[0].value() == 0 {
		t.Errorf("%d calls were executed %d times, of which %d on the stopped server", calls, got, served[0].value())
	}
}
