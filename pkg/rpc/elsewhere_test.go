package rpc_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// TestAnswerCutOffByReset: a gateway that loses its server within an answer resets the stream with INTERNAL_ERROR. Over a connection that is lost, the
// same is tried again.
func TestAnswerCutOffByReset(t *testing.T) {
	var executed atomic.Int64
	peer := startH2Peer(t, func(_ int, conn *h2Conn) {
		conn.Greet()
		if request, ok := conn.Next(); ok {
			conn.Begin(request.Stream)
			conn.Reset(request.Stream, http2.ErrCodeInternal)
		}
		conn.Serve(&executed)
	})
	transport, _ := only(t, peer.Addr, nil)
	if err := validate(t.Context(), transport); err != nil {
		t.Errorf("a call that is idempotent ends with %v", err)
	}
}

// TestPinnedToGRPCBesideAGateway: a transport that is pinned to gRPC meets an instance to which none gets through. Another has it do so.
func TestPinnedToGRPCBesideAGateway(t *testing.T) {
	for name, breaks := range map[string]func(*servicestest.HTTPProxy){
		"415": func(gateway *servicestest.HTTPProxy) {
			gateway.InjectStatus("*", http.StatusUnsupportedMediaType, servicestest.GRPCOnly())
		},
		"no trailers": func(gateway *servicestest.HTTPProxy) { gateway.StripTrailers("*") },
	} {
		t.Run(name, func(t *testing.T) {
			behind, beside := &authHandler{}, &authHandler{}
			gateway := servicestest.StartHTTPProxy(t, startHTTP(t, behind.mount(), http1And2).URL)
			breaks(gateway)
			transport := newTransport(t, newScripted(
				instanceAt(t, "behind", gateway.Addr), instanceAt(t, "beside", startHTTP(t, beside.mount(), http1And2).Listener.Addr().String()),
			), func(config *rpc.ClientConfig) {
				config.Protocol, config.Balancer.Policy, config.Retry.InitialBackoff = rpc.ProtocolGRPC, rpc.BalancerRoundRobin, time.Millisecond
				config.Outlier.Enabled = false
			})
			for range 10 {
				if err := validate(t.Context(), transport); err != nil {
					t.Fatalf("a call that is idempotent ends with %v", err)
				}
			}
			if name != "415" { // which is said before anything is executed
				return
			}
			for range 10 {
				if err := login(t.Context(), transport); err != nil {
					t.Fatalf("a call that was not executed ends with %v", err)
				}
			}
		})
	}
}

// TestNoConnectionInTime: as long as no connection is there, nothing is sent, and a call that must not be repeated may go elsewhere as any other.
func TestNoConnectionInTime(t *testing.T) {
	lost, there := &authHandler{}, &authHandler{}
	way := servicestest.StartProxy(t, startHTTP(t, lost.mount(), http1And2).URL)
	way.BlackHole(t)
	transport := newTransport(t, newScripted(
		instanceAt(t, "lost", way.Addr), instanceAt(t, "there", startHTTP(t, there.mount(), http1And2).Listener.Addr().String()),
	), func(config *rpc.ClientConfig) {
		config.AttemptTimeout, config.Balancer.Policy, config.Outlier.Enabled = 100*time.Millisecond, rpc.BalancerRoundRobin, false
	})
	for range 4 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := login(ctx, transport)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
	}
}
