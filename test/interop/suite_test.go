package interop_test

import (
	"testing"

	"connectrpc.com/connect/v2"
	"google.golang.org/grpc"

	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/servicestest"
)

func TestServicesFromGRPCGoClient(t *testing.T) {
	servicestest.RunSuite(t, func(t *testing.T) servicestest.Services {
		t.Helper()
		platform := newPlatform()
		server := startServer(t, handlersOf(platform))
		connection := dialGRPCGo(t, "passthrough:///"+server.Addr())
		return clientsOf(connect.NewClient(grpcGoTransport{connection}), platform)
	})
}

func TestServicesOnGRPCGoServer(t *testing.T) {
	servicestest.RunSuite(t, func(t *testing.T) servicestest.Services {
		t.Helper()
		platform := newPlatform()
		_, addr := startGRPCGo(t, func(*grpc.Server) {}, hostOnGRPCGo(handlersOf(platform)))
		transport := transportTo(t, []string{addr}, func(c *rpc.ClientConfig) { c.Protocol = rpc.ProtocolGRPC })
		return clientsOf(connect.NewClient(transport), platform)
	})
}
