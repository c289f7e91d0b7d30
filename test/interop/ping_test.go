package interop_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/0x1d/goplt/internal/pool"
)

// TestPingsAndTheEnforcementOfGRPCGo: grpc-go ends a connection that is pinged too often while it has nothing to say, and the pool's next
// connection pings half as often; a server that was told to expect the pings has nothing against them.
func TestPingsAndTheEnforcementOfGRPCGo(t *testing.T) {
	const interval = 20 * time.Millisecond
	for _, row := range []struct {
		name      string
		options   []grpc.ServerOption
		complains bool
	}{
		{"by default", nil, true},
		{"told to expect them", []grpc.ServerOption{grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: interval / 4})}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			hang := grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
				<-stream.Context().Done()
				return stream.Context().Err()
			})
			_, addr := startGRPCGo(t, func(*grpc.Server) {}, append(row.options, hang)...)
			p := pool.New(pool.Config{
				Kind: pool.HTTP2, Addr: addr, MaxConnections: 1, DialTimeout: patience, PingInterval: interval, PingTimeout: patience,
			})
			t.Cleanup(p.Close)
			ctx, cancel := context.WithCancel(within(t))
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- hangingCall(ctx, p) }()
			if row.complains {
				if err := <-ended; err == nil {
					t.Error("the call succeeded")
				}
				stats := p.Stats()
				if stats.Ended.GoAway != 1 || stats.PingInterval != 2*interval || stats.Pings < 4 { // one is free, and three strikes are too many
					t.Errorf("got %+v", stats)
				}
				return
			}
			for tick := time.Tick(interval); p.Stats().Pings < 10; <-tick {
				if ctx.Err() != nil {
					t.Fatalf("got %+v", p.Stats())
				}
			}
			cancel()
			<-ended
			if stats := p.Stats(); stats.Ended != (pool.Endings{}) || stats.PingInterval != interval || stats.Open != 1 {
				t.Errorf("got %+v", stats)
			}
		})
	}
}

// hangingCall makes a call that is not answered.
func hangingCall(ctx context.Context, p *pool.Pool) error {
	conn, err := p.Acquire(ctx)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://peer.test/any.Service/Method", bytes.NewReader(make([]byte, 5)))
	if err != nil {
		conn.Release()
		return err
	}
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("TE", "trailers")
	response, err := conn.RoundTrip(request)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	return err
}
