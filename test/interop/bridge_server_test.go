package interop_test

import (
	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// hostOnGRPCGo returns an option that has a grpc-go server dispatch every call to the handlers of a connect server.
func hostOnGRPCGo(handlers *connect.Server) grpc.ServerOption {
	return grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		procedure, _ := grpc.MethodFromServerStream(stream)
		info := new(connect.CallInfo)
		received, _ := metadata.FromIncomingContext(stream.Context())
		for name, values := range received {
			info.RequestHeader().SetValues(name, values)
		}
		return toStatus(handlers.Call(stream.Context(), procedure, info, connectStream{stream}))
	})
}

// connectStream is the server's side of a call on grpc-go, as connect's handlers see it.
type connectStream struct{ stream grpc.ServerStream }

func (s connectStream) Receive(message any) error { return s.stream.RecvMsg(message) }
func (s connectStream) SendHeaders() error        { return s.stream.SendHeader(nil) }
func (s connectStream) Send(message any) error    { return s.stream.SendMsg(message) }

var _ connect.ServerStream = connectStream{}

func statusOf(err *connect.Error) *status.Status {
	converted := &spb.Status{Code: int32(codes.Code(err.Code())), Message: err.Message()}
	for _, detail := range err.Details() {
		converted.Details = append(converted.Details, connectproto.ErrorDetailToAny(detail))
	}
	return status.FromProto(converted)
}
