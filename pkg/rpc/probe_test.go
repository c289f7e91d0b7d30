package rpc_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/0x1d/goplt/internal/outlier"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/rpc"
)

// newProbed returns an instance with one connection and one stream at a time, so that a slot that is not given back makes the next probe fail.
func newProbed(t *testing.T, described registry.Instance) *rpc.Probed {
	t.Helper()
	config := rpc.DefaultClientConfig()
	config.Pool.MaxConnections, config.Pool.MaxHTTPConnections = 1, 1
	config.Breaker.MinCalls, config.Breaker.FailureRate = 1, 0.01
	probed := rpc.NewProbed(described, &config)
	t.Cleanup(probed.Close)
	return probed
}

// expectProbe probes three times, and checks that each ends as wanted and leaves no trace. want is what the error's text holds; empty if none.
func expectProbe(t *testing.T, probed *rpc.Probed, spoken rpc.Protocol, timeout time.Duration, want string) {
	t.Helper()
	for number := range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		err := probed.Probe(ctx, spoken)
		cancel()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("probe %d: got %v, want %q", number+1, err, want)
		}
	}
	calls, failures, inFlight := probed.Traces()
	if breaker := probed.Breaker(); calls != 0 || failures != 0 || inFlight != 0 || breaker != "closed" {
		t.Errorf("left behind: %d calls, %d failures, %d in flight, breaker %s", calls, failures, inFlight, breaker)
	}
}

// patience is a time-out that nothing here should need.
const patience = 10 * time.Second

// TestProbeServer: our own server, by either protocol, is as well as it says, under the name that the registry has for it.
func TestProbeServer(t *testing.T) {
	for _, spoken := range []rpc.Protocol{rpc.ProtocolAuto, rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
		t.Run(string(spoken), func(t *testing.T) {
			_, handlers := newWords()
			reg := &recordingRegistry{}
			config := testConfig()
			config.MaxConcurrentStreams = 1
			server := startServer(t, handlers, config, rpc.WithRegistration(reg, "words"))
			how := "grpc"
			if spoken == rpc.ProtocolHTTP {
				how = "http"
			}
			anonymous, registered := newProbed(t, instanceAt(t, "a", server.Addr())), newProbed(t, reg.registered[0])
			stranger := instanceAt(t, "b", server.Addr())
			stranger.Metadata = map[string]string{registry.MetadataHealth: "of another process"}
			expectProbe(t, anonymous, spoken, patience, "")
			expectProbe(t, registered, spoken, patience, "")
			expectProbe(t, newProbed(t, stranger), spoken, patience, "") // it answered

			server.Health().SetNotServing("words")
			expectProbe(t, anonymous, spoken, patience, "")
			expectProbe(t, registered, spoken, patience, "health by "+how+": the instance is NOT_SERVING")
			server.Health().SetServing("words")
			expectProbe(t, registered, spoken, patience, "")

			server.Health().SetNotServing("")
			expectProbe(t, anonymous, spoken, patience, "health by "+how+": the instance is NOT_SERVING")
		})
	}
}

// healthAnswer serves one answer to every request.
func healthAnswer(status int, contentType, body string) http.HandlerFunc {
	return func(writer http.ResponseWriter, request *http.Request) {
		_, _ = io.Copy(io.Discard, request.Body)
		writer.Header().Set("Content-Type", contentType)
		writer.WriteHeader(status)
		_, _ = io.WriteString(writer, body)
	}
}

// byContentType gives gRPC and everything else answers of their own.
func byContentType(grpc, other http.Handler) http.HandlerFunc {
	return func(writer http.ResponseWriter, request *http.Request) {
		if strings.HasPrefix(request.Header.Get("Content-Type"), "application/grpc") {
			grpc.ServeHTTP(writer, request)
		} else {
			other.ServeHTTP(writer, request)
		}
	}
}

// TestProbeOthers: whoever answers without saying that it is ill passes, by whichever protocol gets through to it.
func TestProbeOthers(t *testing.T) {
	const auto, onlyGRPC, onlyHTTP = rpc.ProtocolAuto, rpc.ProtocolGRPC, rpc.ProtocolHTTP
	noHealth := new(authHandler).mount()
	serving, ill := healthAnswer(200, "application/json", `{"status":"SERVING"}`), healthAnswer(200, "application/json", `{"status":"NOT_SERVING"}`)
	noGRPC, noGRPCIll := byContentType(healthAnswer(415, "text/html", ""), serving), byContentType(healthAnswer(415, "text/html", ""), ill)
	handlers := connect.NewServer()
	handlers.Register(connect.Method{
		Spec: connect.Spec{Procedure: "/grpc.health.v1.Health/Check"},
		Handler: func(context.Context, connect.Spec, connect.ServerStream) error {
			return connect.NewError(connect.CodeUnauthenticated, "no token")
		},
	})
	wantsToken := http.NewServeMux()
	connecthttp.Mount(wantsToken, handlers)
	for _, row := range []struct {
		name    string
		handler http.Handler
		speaks  protocols
		spoken  rpc.Protocol
		want    string
		learned bool // that gRPC provably does not get through, and that the other protocol does
	}{
		{"connect without health", noHealth, http1And2, auto, "", false},
		{"connect without health", noHealth, http1And2, onlyGRPC, "", false},
		{"connect without health", noHealth, http1And2, onlyHTTP, "", false},
		{"connect without health over HTTP/1.1", noHealth, http1Only, auto, "", false}, // the answer is the router's
		{"connect without health over HTTP/1.1", noHealth, http1Only, onlyGRPC, "does not speak HTTP/2", false},
		{"well over HTTP/1.1", serving, http1Only, auto, "", true},
		{"ill over HTTP/1.1", ill, http1Only, auto, "health by http: the instance is NOT_SERVING", true},
		{"a proxy that lets no gRPC through", noGRPC, http1And2, auto, "", true},
		{"a proxy that lets no gRPC through", noGRPC, http1And2, onlyGRPC, "415", false},
		{"ill behind such a proxy", noGRPCIll, http1And2, auto, "health by http: the instance is NOT_SERVING", true},
		{"wants a token", wantsToken, http1And2, onlyGRPC, "", false},
		{"wants a token", wantsToken, http1And2, onlyHTTP, "", false},
		{"status unknown", healthAnswer(200, "application/json", `{}`), http1And2, onlyHTTP, "the instance is UNKNOWN", false},
		{"a gateway says 401", healthAnswer(401, "text/plain", "who?"), http1And2, onlyHTTP, "", false},
		{"a gateway says 403", healthAnswer(403, "text/html", "no"), http1And2, onlyGRPC, "", false},
		{"a gateway says 405", healthAnswer(405, "text/html", "no"), http1Only, auto, "", false},
		{"a gateway says 404 in JSON", healthAnswer(404, "application/json", `{"message":"no route"}`), http1Only, auto, "", false},
		{"a gateway says 403 in JSON", healthAnswer(403, "application/json", `{"error":"forbidden"}`), http1Only, auto, "", false},
		{"a gateway says 500 in JSON", healthAnswer(500, "application/json", `{"message":"bad"}`), http1Only, auto, "500 Internal Server Error: bad", false},
		{"a gateway says 501", healthAnswer(501, "text/html", "no"), http1And2, onlyHTTP, "", false},
		{"a gateway says 500", healthAnswer(500, "text/html", "bad"), http1And2, onlyHTTP, "500", false},
		{"a gateway says 502", healthAnswer(502, "text/html", "bad"), http1And2, onlyHTTP, "502", false},
		{"a gateway says 503", healthAnswer(503, "text/html", "bad"), http1And2, onlyGRPC, "503", false},
		{"unavailable", healthAnswer(503, "application/json", `{"code":"unavailable","message":"later"}`), http1And2, onlyHTTP, "later", false},
		{"not JSON", healthAnswer(200, "application/json", `<html>`), http1And2, onlyHTTP, "health by http", false},
	} {
		t.Run(row.name+" by "+string(row.spoken), func(t *testing.T) {
			server := startHTTP(t, row.handler, row.speaks)
			probed := newProbed(t, instanceAt(t, "a", server.Listener.Addr().String()))
			expectProbe(t, probed, row.spoken, patience, row.want)
			if probed.SpeaksHTTP() != row.learned {
				t.Errorf("spoken to over HTTP/1.1: %t, want %t", probed.SpeaksHTTP(), row.learned)
			}
		})
	}
}

// TestProbeUnreachable: nobody there, nobody who answers, and an instance that was removed are failures that say so, in time.
func TestProbeUnreachable(t *testing.T) {
	release := make(chan struct{})
	silent := startHTTP(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }), http1And2)
	t.Cleanup(func() { close(release) }) // before the server is closed, which waits for its handlers
	nobody := listen(t)
	if err := nobody.Close(); err != nil {
		t.Fatal(err)
	}
	for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
		t.Run(string(spoken), func(t *testing.T) {
			expectProbe(t, newProbed(t, instanceAt(t, "a", nobody.Addr().String())), spoken, patience, "connection refused")
			started := time.Now()
			expectProbe(t, newProbed(t, instanceAt(t, "b", silent.Listener.Addr().String())), spoken, 200*time.Millisecond, "deadline exceeded")
			if took := time.Since(started); took > patience {
				t.Errorf("three probes of 200ms took %v", took)
			}
			removed := newProbed(t, instanceAt(t, "c", silent.Listener.Addr().String()))
			removed.Close()
			expectProbe(t, removed, spoken, patience, "closed")
		})
	}
}

// TestProberOverSockets: an instance that was ejected stays out for as long as its server says that it is ill, and is back when it is well.
func TestProberOverSockets(t *testing.T) {
	_, handlers := newWords()
	reg := &recordingRegistry{}
	server := startServer(t, handlers, testConfig(), rpc.WithRegistration(reg, "words"))
	server.Health().SetNotServing("words")
	changes := make(chan outlier.Change, 8)
	config := rpc.DefaultClientConfig().Outlier
	config.BaseEjection = 20 * time.Millisecond
	host, stop := newProbed(t, reg.registered[0]).Watch(config, func(change outlier.Change) { changes <- change })
	defer stop()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	expect := func(want outlier.Phase) {
		t.Helper()
		select {
		case got := <-changes:
			if got.Phase != want {
				t.Fatalf("got %v, want %v", got, want)
			}
		case <-ctx.Done():
			t.Fatalf("never %v: %+v", want, host.State())
		}
	}
	for range 5 {
		host.Failed(time.Now())
	}
	expect(outlier.Ejected)
	expect(outlier.AwaitingProbe)
	await(t, "a probe", func() bool {
		return strings.HasSuffix(host.State().Reason, "health by grpc: the instance is NOT_SERVING")
	})
	server.Health().SetServing("words")
	expect(outlier.Serving)
	if len(changes) > 0 {
		t.Errorf("then %v", <-changes)
	}
}

// TestCheckHealth over any transport: all statuses, and what is no status.
func TestCheckHealth(t *testing.T) {
	_, handlers := newWords()
	server := startServer(t, handlers, testConfig())
	transport := newTransport(t, newScripted(instanceAt(t, "a", server.Addr())), nil)
	check := func(service string, want rpc.HealthStatus) {
		t.Helper()
		if got, err := rpc.CheckHealth(t.Context(), transport, service); got != want || err != nil {
			t.Errorf("%q: got %v, %v, want %v", service, got, err, want)
		}
	}
	check("", rpc.HealthServing)
	check("nothing", rpc.HealthServiceUnknown)
	server.Health().SetNotServing("")
	check("", rpc.HealthNotServing)
	plain := startHTTP(t, new(authHandler).mount(), http1And2)
	transport = newTransport(t, newScripted(instanceAt(t, "a", plain.Listener.Addr().String())), nil)
	_, err := rpc.CheckHealth(t.Context(), transport, "")
	expectCode(t, err, connect.CodeUnimplemented)
}
