package rpc

import (
	"context"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// CheckHealth asks grpc.health.v1.Health/Check over transport for the status of service; the empty name is the server as a whole. The transport
// may be a [Transport], which asks any one instance, or any other.
//
// A server that does not know the name is no error: the status is [HealthServiceUnknown]. One that does not offer the service is, with the
// code unimplemented.
func CheckHealth(ctx context.Context, transport connect.Transport, service string) (HealthStatus, error) {
	schema, err := loadHealthSchema()
	if err != nil {
		return 0, err
	}
	request, reply := dynamicpb.NewMessage(schema.check.Input()), dynamicpb.NewMessage(schema.check.Output())
	request.Set(schema.requestName, protoreflect.ValueOfString(service))
	err = connect.NewClient(transport).CallUnary(ctx, schema.checkSpec(), request, reply)
	switch {
	case connect.CodeOf(err) == connect.CodeNotFound && isRemote(err):
		return HealthServiceUnknown, nil
	case err != nil:
		return 0, err
	}
	return HealthStatus(reply.Get(schema.replyStatus).Enum()), nil
}
