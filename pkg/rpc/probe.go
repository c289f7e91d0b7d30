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
	got := check(ctx, i.wireFor(spoken), name)
	if spoken != ProtocolAuto {
		return got.failure()
	}
	i.fallback.listen(got.shown(), got.err, result.At)
	if got.shown() != grpcclient.Blocked {
		return got.failure()
	}
	evidence := got.err
	got = check(ctx, &i.http, name)
	if got.answered() {
		i.fallback.learn(evidence, result.At)
	}
	return got.failure()
}

// check asks an instance for its health by one protocol.
func check(ctx context.Context, by *wire, name string) checked {
	line := &direct{wire: by, exchange: &exchange{}}
	status, err := CheckHealth(ctx, line, name)
	return checked{line: line, status: status, err: err}
}

// checked is what came of asking for health.
type checked struct {
	line   *direct
	status HealthStatus
	err    error
}

// failure is why the instance is not to be given calls; nil if nothing was found to be wrong.
func (c checked) failure() error {
	switch {
	case c.err != nil && !c.offersNone():
		return fmt.Errorf("health by %s: %w", c.line.wire.protocol, c.err)
	case c.err == nil && c.status != HealthServing && c.status != HealthServiceUnknown:
		return fmt.Errorf("health by %s: the instance is %v", c.line.wire.protocol, c.status)
	default:
		return nil
	}
}

// answered reports whether the service itself answered in the protocol, be it with an error.
func (c checked) answered() bool { return c.err == nil || isRemote(c.err) }

// shown returns what that shows of whether gRPC gets through.
func (c checked) shown() grpcclient.Evidence {
	if errors.Is(c.err, pool.ErrNotHTTP2) {
		return grpcclient.Blocked
	}
	return c.line.exchange.shown()
}

// offersNone reports whether there was an answer that says nothing of the instance's health: that it does not offer the service, or not to this
// client. It may be that of a gateway, which lets no health through though calls pass: an instance behind it would else never be re-admitted.
func (c checked) offersNone() bool {
	if c.line.exchange.response == nil {
		return false
	}
	switch c.line.exchange.response.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return true
	}
	switch connect.CodeOf(c.err) {
	case connect.CodeUnimplemented:
		return true
	case connect.CodeUnauthenticated, connect.CodePermissionDenied:
		return c.line.exchange.answered
	default:
		return false
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

// directStream gives its connection back when it is closed.
type directStream struct {
	connect.ClientStream

	exchange *exchange
}

// Receive has no answer pass for the service's that is not.
func (s *directStream) Receive(message any) error {
	return s.exchange.attributed(s.ClientStream.Receive(message))
}

// Close gives back a connection that was not used before the stream is closed, which would send a request without a message.
func (s *directStream) Close() error {
	s.exchange.finish()
	_ = s.ClientStream.Close() // the answer is complete, or has failed for a reason that is known
	return nil
}
