package interop_test

import (
	"context"
	"slices"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/grpcreflect/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/0x1d/goplt/pkg/rpc"
)

func TestClientWatchesHealthOfGRPCGo(t *testing.T) {
	state := health.NewServer()
	_, addr := startGRPCGo(t, func(server *grpc.Server) { grpc_health_v1.RegisterHealthServer(server, state) })
	client := connect.NewClient(transportTo(t, []string{addr}))
	spec := connect.Spec{Procedure: grpc_health_v1.Health_Watch_FullMethodName, StreamType: connect.StreamTypeServer}
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	stream, err := client.CallServerStream(ctx, spec, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	expect := func(want grpc_health_v1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		got := new(grpc_health_v1.HealthCheckResponse)
		if err := stream.Receive(got); err != nil || got.GetStatus() != want {
			t.Fatalf("watch: %v, %v, want %v", got, err, want)
		}
	}
	expect(grpc_health_v1.HealthCheckResponse_SERVING)
	state.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	expect(grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	cancel()
	if err := stream.Receive(new(grpc_health_v1.HealthCheckResponse)); connect.CodeOf(err) != connect.CodeCanceled {
		t.Errorf("after cancel: %v, want canceled", err)
	}
}

// TestClientChecksHealthOfGRPCGo: what re-admits an instance that was ejected, asked of grpc-go's health server.
func TestClientChecksHealthOfGRPCGo(t *testing.T) {
	state := health.NewServer()
	_, addr := startGRPCGo(t, func(server *grpc.Server) { grpc_health_v1.RegisterHealthServer(server, state) })
	transport := transportTo(t, []string{addr})
	state.SetServingStatus("ill", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	for service, want := range map[string]rpc.HealthStatus{"": rpc.HealthServing, "ill": rpc.HealthNotServing, "nobody": rpc.HealthServiceUnknown} {
		if got, err := rpc.CheckHealth(within(t), transport, service); got != want || err != nil {
			t.Errorf("%q: %v, %v, want %v", service, got, err, want)
		}
	}
	state.Shutdown()
	if got, err := rpc.CheckHealth(within(t), transport, ""); got != rpc.HealthNotServing || err != nil {
		t.Errorf("after shutdown: %v, %v, want %v", got, err, rpc.HealthNotServing)
	}
	_, without := startGRPCGo(t, func(*grpc.Server) {})
	if _, err := rpc.CheckHealth(within(t), transportTo(t, []string{without}), ""); connect.CodeOf(err) != connect.CodeUnimplemented {
		t.Errorf("without health: %v, want %v", err, connect.CodeUnimplemented)
	}
}

func TestClientReflectsOnGRPCGo(t *testing.T) {
	_, addr := startGRPCGo(t, func(server *grpc.Server) {
		grpc_health_v1.RegisterHealthServer(server, health.NewServer())
		reflection.Register(server)
	})
	client := grpcreflect.NewClient(connect.NewClient(transportTo(t, []string{addr})))
	stream := client.NewStream(within(t))
	defer stream.Close()
	// Question and answer alternate on one bidirectional stream.
	names, err := stream.ListServices()
	if err != nil || !slices.Contains(names, protoreflect.FullName(grpc_health_v1.Health_ServiceDesc.ServiceName)) {
		t.Fatalf("services %q, %v", names, err)
	}
	files, err := stream.FileContainingSymbol(protoreflect.FullName(grpc_health_v1.Health_ServiceDesc.ServiceName))
	if err != nil || len(files) == 0 || files[0].GetPackage() != "grpc.health.v1" {
		t.Errorf("files %v, %v", files, err)
	}
}
