package rpc

import (
	"context"
	"fmt"
	"sync"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

const healthServiceName = "grpc.health.v1.Health"

// healthSchema is grpc.health.v1 for both halves. Its messages are dynamic ones of a descriptor of its own, and not generated: a program may
// link each protobuf name once, and one that uses goplt may well link grpc-go's copy too.
type healthSchema struct {
	check, watch             protoreflect.MethodDescriptor
	requestName, replyStatus protoreflect.FieldDescriptor
}

// loadHealthSchema builds the schema once per process, when it is first needed.
var loadHealthSchema = sync.OnceValues(func() (*healthSchema, error) { //nolint:gochecknoglobals // a constant that has to be computed
	file, err := protodesc.NewFile(healthFile(), nil)
	if err != nil {
		return nil, fmt.Errorf("rpc: descriptor of %s: %w", healthServiceName, err)
	}
	methods := file.Services().ByName("Health").Methods()
	check := methods.ByName("Check")
	return &healthSchema{
		check: check, watch: methods.ByName("Watch"),
		requestName: check.Input().Fields().ByName("service"), replyStatus: check.Output().Fields().ByName("status"),
	}, nil
})

// checkSpec and watchSpec are the methods under the standard's procedure names.
func (s *healthSchema) checkSpec() connect.Spec {
	return connect.Spec{Procedure: "/" + healthServiceName + "/Check", StreamType: connect.StreamTypeUnary, Schema: s.check}
}

func (s *healthSchema) watchSpec() connect.Spec {
	return connect.Spec{Procedure: "/" + healthServiceName + "/Watch", StreamType: connect.StreamTypeServer, Schema: s.watch}
}

// healthService serves a [Health] as grpc.health.v1.Health.
type healthService struct {
	*healthSchema

	health *Health
}

func newHealthService(health *Health) (*healthService, error) {
	schema, err := loadHealthSchema()
	return &healthService{healthSchema: schema, health: health}, err
}

// methods returns what to register on a server.
func (s *healthService) methods() []connect.Method {
	return []connect.Method{{Spec: s.checkSpec(), Handler: s.serveCheck}, {Spec: s.watchSpec(), Handler: s.serveWatch}}
}

func (s *healthService) serveCheck(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
	service, err := s.receive(stream)
	if err != nil {
		return err
	}
	status := s.health.Status(service)
	if status == HealthServiceUnknown {
		return connect.Errorf(connect.CodeNotFound, "unknown service %q", service)
	}
	return s.send(stream, status)
}

func (s *healthService) serveWatch(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
	service, err := s.receive(stream)
	if err != nil {
		return err
	}
	return s.health.watch(ctx, service, func(status HealthStatus) error { return s.send(stream, status) })
}

func (s *healthService) receive(stream connect.ServerStream) (service string, err error) {
	request := dynamicpb.NewMessage(s.check.Input())
	if err := stream.Receive(request); err != nil {
		return "", err
	}
	return request.Get(s.requestName).String(), nil
}

func (s *healthService) send(stream connect.ServerStream, status HealthStatus) error {
	reply := dynamicpb.NewMessage(s.check.Output())
	reply.Set(s.replyStatus, protoreflect.ValueOfEnum(protoreflect.EnumNumber(status)))
	return stream.Send(reply)
}

// healthFile is grpc/health/v1/health.proto (https://github.com/grpc/grpc-proto/blob/master/grpc/health/v1/health.proto), without its
// List method, which is for clients that ask about all services. It is in no registry, so it collides with no other copy in the program.
func healthFile() *descriptorpb.FileDescriptorProto {
	const request, reply = ".grpc.health.v1.HealthCheckRequest", ".grpc.health.v1.HealthCheckResponse"
	value := func(name string, number HealthStatus) *descriptorpb.EnumValueDescriptorProto {
		return &descriptorpb.EnumValueDescriptorProto{Name: &name, Number: new(int32(number))}
	}
	return &descriptorpb.FileDescriptorProto{
		Name: new("grpc/health/v1/health.proto"), Package: new("grpc.health.v1"), Syntax: new("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{
			Name: new("HealthCheckRequest"),
			Field: []*descriptorpb.FieldDescriptorProto{{
				Name: new("service"), JsonName: new("service"), Number: new(int32(1)),
				Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(), Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(),
			}},
		}, {
			Name: new("HealthCheckResponse"),
			Field: []*descriptorpb.FieldDescriptorProto{{
				Name: new("status"), JsonName: new("status"), Number: new(int32(1)),
				Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(), Type: descriptorpb.FieldDescriptorProto_TYPE_ENUM.Enum(),
				TypeName: new(reply + ".ServingStatus"),
			}},
			EnumType: []*descriptorpb.EnumDescriptorProto{{
				Name: new("ServingStatus"),
				Value: []*descriptorpb.EnumValueDescriptorProto{
					value("UNKNOWN", 0), value("SERVING", HealthServing), value("NOT_SERVING", HealthNotServing),
					value("SERVICE_UNKNOWN", HealthServiceUnknown),
				},
			}},
		}},
		Service: []*descriptorpb.ServiceDescriptorProto{{
			Name: new("Health"),
			Method: []*descriptorpb.MethodDescriptorProto{
				{Name: new("Check"), InputType: new(request), OutputType: new(reply)},
				{Name: new("Watch"), InputType: new(request), OutputType: new(reply), ServerStreaming: new(true)},
			},
		}},
	}
}
