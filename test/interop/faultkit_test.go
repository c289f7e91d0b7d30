package interop_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/0x1d/goplt/pkg/servicestest"
)

// The fault kit of servicestest, with client and server that are both grpc-go's: nothing in it needs them to be ours.

// startHealth starts a grpc-go server with its health service, which counts its executions, and returns its address.
func startHealth(t *testing.T, executions *servicestest.Executions) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(
		func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			received, _ := metadata.FromIncomingContext(ctx)
			executions.Count(strings.Join(received.Get(servicestest.CallIDHeader), ","))
			return handle(ctx, request)
		}))
	healthpb.RegisterHealthServer(server, health.NewServer())
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// checkVia returns a function that makes a call with an ID by a grpc-go client to an address, and returns the ID and the error.
func checkVia(t *testing.T, addr string) func(timeout time.Duration) (id string, err error) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	client := healthpb.NewHealthClient(conn)
	return func(timeout time.Duration) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		id := servicestest.NewCallID()
		ctx = metadata.AppendToOutgoingContext(ctx, servicestest.CallIDHeader, id)
		answer, err := client.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
		if err == nil && answer.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("got %v", answer)
		}
		return id, err
	}
}

func TestFaultKitGatewayBetweenGRPCGo(t *testing.T) {
	executions := servicestest.NewExecutions()
	gateway := servicestest.StartHTTPProxy(t, startHealth(t, executions))
	check := checkVia(t, gateway.Addr)
	expect := func(what string, want codes.Code, executed int) {
		t.Helper()
		id, err := check(patience)
		if got := status.Code(err); got != want || executions.Of(id) != executed {
			t.Errorf("%s: got %v and %d executions, want %v and %d", what, err, executions.Of(id), want, executed)
		}
	}
	once, then := servicestest.Times(1), servicestest.AfterExecution()
	expect("no fault", codes.OK, 1)
	gateway.InjectStatus("*", http.StatusServiceUnavailable, once)
	expect("503", codes.Unavailable, 0)
	gateway.InjectStatus("health.Check", http.StatusBadGateway, once, then)
	expect("502 after execution", codes.Unavailable, 1)
	gateway.InjectStatus("*", http.StatusUnsupportedMediaType, once, servicestest.GRPCOnly())
	expect("415", codes.Unknown, 0)
	gateway.StripTrailers("/grpc.health.v1.Health/Check", once)
	expect("trailers stripped", codes.Internal, 1)
	gateway.KillMidResponse("*", 5, once)
	expect("killed within the response", codes.Unavailable, 1)
	gateway.Drop("*", once, then)
	expect("reset after execution", codes.Unavailable, 1)
	expect("no fault again", codes.OK, 1)
	executions.ExpectAtMostOnce(t)
}

func TestFaultKitNetworkBetweenGRPCGo(t *testing.T) {
	executions := servicestest.NewExecutions()
	proxy := servicestest.StartProxy(t, startHealth(t, executions))
	check := checkVia(t, proxy.Addr)
	if _, err := check(patience); err != nil {
		t.Fatal(err)
	}
	for name, fail := range map[string]func() (end func()){
		"frozen": proxy.Freeze, "a black hole": func() func() { return proxy.BlackHole(t) },
	} {
		end := fail()
		if _, err := check(100 * time.Millisecond); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("%s: got %v, want deadline exceeded", name, err)
		}
		end()
		if _, err := check(patience); err != nil {
			t.Errorf("after it was %s: %v", name, err)
		}
	}
	defer proxy.SlowDrip(7, time.Millisecond)()
	if _, err := check(patience); err != nil {
		t.Errorf("7 bytes at a time: %v", err)
	}
	executions.ExpectAtMostOnce(t)
}

func TestFaultKitScriptForGRPCGo(t *testing.T) {
	var executed atomic.Int64
	server := servicestest.StartHTTP2(t, func(conn *servicestest.HTTP2Conn) {
		conn.Greet()
		for request, ok := conn.Next(); ok; request, ok = conn.Next() {
			switch {
			case conn.Number == 1 && request.Stream == 1:
				conn.Reset(request.Stream, http2.ErrCodeRefusedStream)
				continue
			case conn.Number == 1 && request.Stream == 5:
				conn.GoAway(3, http2.ErrCodeNo)
				continue
			}
			executed.Add(1)
			conn.Answer(request.Stream, &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING})
		}
	})
	check := checkVia(t, server.Addr)
	for _, what := range []string{"refused and sent again", "disowned by GOAWAY and sent again", "on a new connection"} {
		if _, err := check(patience); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if executed.Load() != 3 || server.Requests.Load() != 5 || server.Accepted.Load() != 2 {
		t.Errorf("%d executions of %d requests on %d connections, want 3 of 5 on 2", executed.Load(), server.Requests.Load(), server.Accepted.Load())
	}
}
