package services

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"

	"connectrpc.com/connect/v2"
)

// ServerErrors returns an interceptor that gives the errors of any handler the meaning that those of the core services have: sentinels of
// package services become their codes, with the text of services.Errorf; what callers must not learn of becomes internal, and is
// logged to logger, [slog.Default] if it is nil. The adapters of the core services do so by themselves.
func ServerErrors(logger *slog.Logger) connect.ServerInterceptor {
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			if err := next(ctx, spec, stream); err != nil {
				return verdict(ctx, logger, err)
			}
			return nil
		}
	}
}

// ClientErrors returns an interceptor that makes the errors of any generated client match the sentinels of package services, as those of
// the core services do.
func ClientErrors() connect.ClientInterceptor {
	return func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			operation := strings.TrimPrefix(spec.Procedure, "/")
			stream, err := next(ctx, spec)
			if err != nil {
				return nil, newCallError(ctx, operation, err)
			}
			return &meaningfulStream{ClientStream: stream, ctx: ctx, operation: operation}, nil
		}
	}
}

// meaningfulStream gives the errors of a stream their meaning.
type meaningfulStream struct {
	connect.ClientStream

	ctx       context.Context //nolint:containedctx // the call's, to tell who gave up
	operation string
}

func (s *meaningfulStream) SendHeaders() error { return s.meaning(s.ClientStream.SendHeaders()) }

func (s *meaningfulStream) Send(message any) error { return s.meaning(s.ClientStream.Send(message)) }

func (s *meaningfulStream) CloseSend() error { return s.meaning(s.ClientStream.CloseSend()) }

func (s *meaningfulStream) Receive(message any) error {
	return s.meaning(s.ClientStream.Receive(message))
}

// meaning leaves the end of a stream, which is io.EOF, as it is.
func (s *meaningfulStream) meaning(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return newCallError(s.ctx, s.operation, err)
}
