package wireapp

import (
	"context"
	"log/slog"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt"
)

// Token is what the application shows to the services that it calls.
type Token string

// newOptions has goplt log to the application's logger, and send its token with each call.
func newOptions(logger *slog.Logger, token Token) []goplt.Option {
	return []goplt.Option{goplt.WithLogger(logger), goplt.WithInterceptors(withToken(token))}
}

func withToken(token Token) connect.ClientInterceptor {
	return func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			if info, ok := connect.CallInfoForClientContext(ctx); ok {
				info.RequestHeader().Set("Authorization", "Bearer "+string(token))
			}
			return next(ctx, spec)
		}
	}
}
