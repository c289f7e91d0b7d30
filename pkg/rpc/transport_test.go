package rpc_test

import (
	"net/http"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/pkg/rpc"
)

func TestUnaryCallByEachProtocol(t *testing.T) {
	for _, want := range []struct {
		configured, spoken rpc.Protocol
		wire               string
	}{
		{rpc.ProtocolAuto, rpc.ProtocolGRPC, connect.ProtocolNameGRPC},
		{rpc.ProtocolGRPC, rpc.ProtocolGRPC, connect.ProtocolNameGRPC},
		{rpc.ProtocolHTTP, rpc.ProtocolHTTP, connect.ProtocolNameConnect},
	} {
		t.Run(string(want.configured), func(t *testing.T) {
			handler := &authHandler{}
			server := startHTTP(t, handler.mount(), http1And2)
			transport := newTransport(t, newScripted(instanceAt(t, "one", server.Listener.Addr().String())), protocol(want.configured))
			ctx, info := connect.NewClientContext(t.Context())
			response, err := newAuthClient(transport).ValidateToken(ctx, &authv1.ValidateTokenRequest{Token: "t"})
			if err != nil {
				t.Fatal(err)
			}
			if got := response.GetClaims().GetUserId(); got != "user of t" {
				t.Errorf("user %q", got)
			}
			if info.Protocol != want.wire {
				t.Errorf("spoke %s, want %s", info.Protocol, want.wire)
			}
			status := transport.Status()
			if len(status.Instances) != 1 {
				t.Fatalf("status %+v", status)
			}
			instance := status.Instances[0]
			if instance.Protocol != want.spoken || instance.Calls != 1 || instance.Failures != 0 || instance.InFlight != 0 ||
				instance.Breaker != "closed" || instance.Connections != 1 {
				t.Errorf("status %+v", instance)
			}
			if handler.validations.Load() != 1 {
				t.Errorf("%d executions, want 1", handler.validations.Load())
			}
		})
	}
}

func BenchmarkUnary(b *testing.B) {
	for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
		b.Run(string(spoken), func(b *testing.B) {
			handler := &authHandler{}
			server := startHTTP(b, handler.mount(), http1And2)
			client := newAuthClient(newTransport(b, newScripted(instanceAt(b, "one", server.Listener.Addr().String())), protocol(spoken)))
			request := &authv1.ValidateTokenRequest{Token: "t"}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := client.ValidateToken(b.Context(), request); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkBareConnect is the same call by connecthttp over net/http's own pool, without anything of ours: what BenchmarkUnary costs more
// is what the instances, their breakers and pools, and the evidence for retries cost.
func BenchmarkBareConnect(b *testing.B) {
	for _, row := range []struct {
		spoken rpc.Protocol
		option connecthttp.Option
	}{
		{rpc.ProtocolGRPC, connecthttp.WithGRPC()},
		{rpc.ProtocolHTTP, connecthttp.WithProtoJSON()},
	} {
		b.Run(string(row.spoken), func(b *testing.B) {
			handler := &authHandler{}
			server := startHTTP(b, handler.mount(), http1And2)
			doer := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
			doer.Protocols.SetHTTP1(row.spoken == rpc.ProtocolHTTP)
			doer.Protocols.SetUnencryptedHTTP2(row.spoken == rpc.ProtocolGRPC)
			b.Cleanup(doer.CloseIdleConnections)
			client := newAuthClient(connecthttp.NewTransport(&http.Client{Transport: doer}, server.URL, row.option))
			request := &authv1.ValidateTokenRequest{Token: "t"}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := client.ValidateToken(b.Context(), request); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
