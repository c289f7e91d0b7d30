package interop_test

import (
	"context"
	"errors"
	"fmt"
	"io"

	"connectrpc.com/connect/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// grpcGoTransport makes a grpc-go connection usable by generated Connect clients, and so by goplt's adapters.
type grpcGoTransport struct{ connection *grpc.ClientConn }

var _ connect.Transport = grpcGoTransport{}

// NewClientStream implements [connect.Transport].
func (t grpcGoTransport) NewClientStream(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
	ctx, cancel := context.WithCancel(ctx)
	if info, ok := connect.CallInfoForClientContext(ctx); ok {
		var pairs []string
		for name, sent := range info.RequestHeader().All() {
			for _, value := range sent {
				pairs = append(pairs, name, value)
			}
		}
		ctx = metadata.AppendToOutgoingContext(ctx, pairs...)
	}
	description := &grpc.StreamDesc{
		ServerStreams: spec.StreamType&connect.StreamTypeServer != 0, ClientStreams: spec.StreamType&connect.StreamTypeClient != 0,
	}
	stream, err := t.connection.NewStream(ctx, description, spec.Procedure)
	if err != nil {
		cancel()
		return nil, fromStatus(err)
	}
	return &grpcGoStream{stream: stream, cancel: cancel}, nil
}

type grpcGoStream struct {
	stream grpc.ClientStream
	cancel context.CancelFunc
}

var _ connect.ClientStream = (*grpcGoStream)(nil)

func (s *grpcGoStream) SendHeaders() error { return nil }

func (s *grpcGoStream) Send(message any) error {
	if err := s.stream.SendMsg(message); err != nil && !errors.Is(err, io.EOF) { // after io.EOF, Receive has the status
		return fromStatus(err)
	}
	return nil
}

func (s *grpcGoStream) CloseSend() error { return s.stream.CloseSend() }

func (s *grpcGoStream) Receive(message any) error { return fromStatus(s.stream.RecvMsg(message)) }

func (s *grpcGoStream) Close() error {
	s.cancel()
	return nil
}

// fromStatus gives an error of grpc-go the form that connect's own transports give theirs.
func fromStatus(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	received := status.Convert(err)
	converted := connect.NewError(connect.Code(received.Code()), received.Message()).WithRemote()
	for _, detail := range received.Proto().GetDetails() {
		converted = converted.WithDetail(&connect.ErrorDetail{Type: string(detail.MessageName()), Value: detail.GetValue()})
	}
	return converted
}

// toStatus is fromStatus the other way round: what a server returns, as grpc-go sends it.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if own, ok := errors.AsType[*connect.Error](err); ok {
		return statusOf(own).Err()
	}
	return fmt.Errorf("not an error for callers: %w", err)
}
