package rpc

import (
	"context"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/internal/balancer"
)

type hashKey struct{}

// WithHashKey gives the calls made with the context returned the key by which [BalancerConsistentHash] chooses their instance: a user's or a
// tenant's ID, for example, so that what an instance has in its memory serves again. It wins over [BalancerConfig.HashHeader], and other
// balancers pass it over. An empty key is none.
func WithHashKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, hashKey{}, key)
}

// balanced returns what the choice of an instance for a call depends on. Only consistent_hash asks for its key.
func (t *Transport) balanced(ctx context.Context) balancer.Call {
	if t.config.Balancer.Policy != BalancerConsistentHash {
		return balancer.Call{}
	}
	key, _ := ctx.Value(hashKey{}).(string)
	if header := t.config.Balancer.HashHeader; key == "" && header != "" {
		if info, ok := connect.CallInfoForClientContext(ctx); ok {
			key = info.RequestHeader().Get(header)
		}
	}
	if key == "" {
		return balancer.Call{}
	}
	return balancer.Call{Hash: balancer.Hash(key), Hashed: true}
}
