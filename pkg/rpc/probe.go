package rpc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/internal/pool"
	grpcclient "github.com/0x1d/goplt/internal/services/grpc/client"
	"github.com/0x1d/goplt/pkg/registry"
)

// probe asks the instance, as it is spoken to now, whether it takes calls, and returns nil if so. ctx bounds it. It goes over the connections
// that calls use, so that it finds what they would find, but neither the breaker nor the balancer hears of it.
//
// The name asked for is the instance's own, if it has one (see [registry.MetadataHealth]), whose status is that of the service it stands for; else
// the server as a whole. An instance that does not know the name, or does not offer health, or not to this client, answered, and passes.
func (i *instance) probe(ctx context.Context, spoken Protocol) (err error) {
	result := ProbeStatus{At: time.Now()}
	defer func() {
		result.Duration = time.Since(result.At)
		if err != nil {
			result.Error = err.Error()
		}
		i.lastProbe.Store(&result)
	}()
	name := i.described.Load().Metadata[registry.MetadataHealth]
	shown, err := probe(ctx, i.wireFor(spoken), name)
	if spoken != ProtocolAuto {
		return err
	}
	i.fallback.listen(shown, err, result.At)
	if shown != grpcclient.Blocked {
		return err
	}
	evidence := err
	if _, err = probe(ctx, &i.http, name); err == nil {
		i.fallback.learn(evidence)
	}
	return err
}

// probe asks by one protocol. It also returns what that shows of whether gRPC gets through.
func probe(ctx context.Context, chosen *wire, name string) (grpcclient.Evidence, error) {
	line := &direct{wire: chosen, exchange: &exchange{}}
	status, err := CheckHealth(ctx, line, name)
	shown := line.shown(err)
	switch {
	case err != nil && !line.offersNone(err):
		return shown, fmt.Errorf("health by %s: %w", chosen.protocol, err)
	case err == nil && status != HealthServing && status != HealthServiceUnknown:
		return shown, fmt.Errorf("health by %s: the instance is %v", chosen.protocol, status)
	default:
		return shown, nil
	}
}

// direct is a [connect.Transport] for one exchange with one instance.
type direct struct {
	wire     *wire
	exchange *exchange
}

var _ connect.Transport = (*direct)(nil)

// NewClientStream reserves a connection and opens the stream on it.
func (d *direct) NewClientStream(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
	d.exchange = &exchange{Context: ctx}
	conn, err := d.wire.pool.Acquire(ctx)
	if err != nil {
		if ctxErr := ctx.Err(); ctxErr != nil {
			return nil, contextError(ctxErr)
		}
		return nil, unavailable(err)
	}
	d.exchange.conn = conn
	stream, err := d.wire.transport.NewClientStream(d.exchange, spec)
	if err != nil {
		d.exchange.finish()
		return nil, err
	}
	return &directStream{ClientStream: stream, exchange: d.exchange}, nil
}

// shown returns what the exchange, which ended by err, shows of whether gRPC gets through.
func (d *direct) shown(err error) grpcclient.Evidence {
	if errors.Is(err, pool.ErrNotHTTP2) {
		return grpcclient.Blocked
	}
	return d.exchange.shown()
}

// offersNone reports whether there was an answer that says nothing of the instance's health: that it does not offer the service, or not to this
// client. It may be that of a gateway, which lets no health through though calls pass: an instance behind it would else never be re-admitted.
func (d *direct) offersNone(err error) bool {
	if d.exchange.response == nil {
		return false
	}
	switch d.exchange.response.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return true
	}
	switch connect.CodeOf(err) {
	case connect.CodeUnimplemented:
		return true
	case connect.CodeUnauthenticated, connect.CodePermissionDenied:
		return d.exchange.answered
	default:
		return false
	}
}

// directStream gives its connection back when it is closed.
type directStream struct {
	connect.ClientStream

	exchange *exchange
}

// Close gives back a connection that was not used before the stream is closed, which would send a request without a message.
func (s *directStream) Close() error {
	s.exchange.finish()
	_ = s.ClientStream.Close() // the answer is complete, or has failed for a reason that is known
	return nil
}
