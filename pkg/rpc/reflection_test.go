package rpc_test

import (
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/grpcreflect/v2"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
)

func reflected(t *testing.T, server interface{ Addr() string }) *grpcreflect.ClientStream {
	t.Helper()
	transport := connecthttp.NewTransport(httpClient(t, 2, nil), "http://"+server.Addr(), connecthttp.WithGRPC())
	return grpcreflect.NewClient(connect.NewClient(transport)).NewStream(t.Context())
}

func TestReflection(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	authv1connect.RegisterAuthServiceHandler(handlers, authv1connect.UnimplementedAuthServiceHandler{})
	stream := reflected(t, startServer(t, handlers, testConfig()))
	defer stream.Close()

	services, err := stream.ListServices()
	if err != nil {
		t.Fatal(err)
	}
	want := []protoreflect.FullName{ // without test.v1.Words, which has no protobuf schema
		"goplt.auth.v1.AuthService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
	}
	if diff := cmp.Diff(want, services); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}

	for _, service := range services {
		files, err := stream.FileContainingSymbol(service)
		if err != nil {
			t.Errorf("%s: %v", service, err)
			continue
		}
		registry, err := protodesc.NewFiles(&descriptorpb.FileDescriptorSet{File: files})
		if err != nil {
			t.Errorf("%s: the files do not fit together: %v", service, err)
			continue
		}
		if descriptor, err := registry.FindDescriptorByName(service); err != nil {
			t.Errorf("%s is not in its file: %v", service, err)
		} else if _, ok := descriptor.(protoreflect.ServiceDescriptor); !ok {
			t.Errorf("%s: got %T, want a service", service, descriptor)
		}
	}
}

// TestReflectionOfHealth: what reflection says of health is what is served, under the standard's names.
func TestReflectionOfHealth(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	stream := reflected(t, startServer(t, handlers, testConfig()))
	defer stream.Close()
	files, err := stream.FileContainingSymbol("grpc.health.v1.Health")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := protoregistry.GlobalFiles.FindDescriptorByName("grpc.health.v1.Health"); err == nil {
		t.Fatal("the test's own program has registered grpc.health.v1.Health, so this proves nothing")
	}
	registry, err := protodesc.NewFiles(&descriptorpb.FileDescriptorSet{File: files})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []protoreflect.FullName{
		"grpc.health.v1.Health.Check", "grpc.health.v1.Health.Watch", "grpc.health.v1.HealthCheckRequest.service",
		"grpc.health.v1.HealthCheckResponse.status", "grpc.health.v1.HealthCheckResponse.ServingStatus", "grpc.health.v1.HealthCheckResponse.NOT_SERVING",
	} {
		if _, err := registry.FindDescriptorByName(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	methods, err := registry.FindDescriptorByName("grpc.health.v1.Health")
	if err != nil {
		t.Fatal(err)
	}
	if got := methods.(protoreflect.ServiceDescriptor).Methods().Len(); got != 2 {
		t.Errorf("methods of health: got %d, want 2, those that are served", got)
	}
}

func TestReflectionOff(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	config := testConfig()
	config.Reflection = false
	stream := reflected(t, startServer(t, handlers, config))
	if _, err := stream.ListServices(); connect.CodeOf(err) != connect.CodeUnimplemented {
		t.Errorf("got %v, want unimplemented", err)
	}
	_ = stream.Close()
}

// TestReflectionOfTheCaller: a server that has its own reflection keeps it.
func TestReflectionOfTheCaller(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	grpcreflect.Register(handlers, grpcreflect.WithNamer(grpcreflect.NamerFunc(func() []string { return []string{"my.own.Name"} })))
	stream := reflected(t, startServer(t, handlers, testConfig()))
	defer stream.Close()
	services, err := stream.ListServices()
	if diff := cmp.Diff([]protoreflect.FullName{"my.own.Name"}, services); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}
