package rpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/google/go-cmp/cmp"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/pkg/rpc"
)

// changing are the parts of an error's text that differ from run to run.
var changing = regexp.MustCompile(`127\.0\.0\.1:\d+(->127\.0\.0\.1:\d+)?|\d+(\.\d+)?(µs|ms|s)\b|\b0s\b`)

// pinned replaces the changing parts of an error's text.
func pinned(text string) string {
	return changing.ReplaceAllStringFunc(text, func(part string) string {
		if strings.Contains(part, ":") {
			return "ADDR"
		}
		return "TIME"
	})
}

// TestCallErrorText pins what a caller reads.
func TestCallErrorText(t *testing.T) {
	down := nobody(t)
	answers := func(codes ...connect.Code) string {
		handler := &authHandler{}
		handler.validate = func(context.Context, *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
			return nil, connect.NewError(codes[min(int(handler.validations.Load()), len(codes))-1], "in the service's own words")
		}
		return startHTTP(t, handler.mount(), http1And2).Listener.Addr().String()
	}
	tlsServer := httptest.NewUnstartedServer(http.NotFoundHandler())
	tlsServer.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0) // has its own word on who does not speak TLS
	tlsServer.StartTLS()
	t.Cleanup(tlsServer.Close)
	secured := tlsServer.Listener.Addr().String()
	once := func(spoken rpc.Protocol) func(*rpc.ClientConfig) {
		return func(config *rpc.ClientConfig) { config.Retry.MaxAttempts, config.Protocol = 1, spoken }
	}
	for _, row := range []struct {
		name, addr string
		adjust     func(*rpc.ClientConfig)
		want       string
	}{
		{"the service's one answer stands alone", answers(connect.CodeNotFound), nil, "not_found: in the service's own words"},
		{
			"an answer after others is explained", answers(connect.CodeUnavailable, connect.CodeNotFound), nil,
			"not_found: in the service's own words [scripted:///auth; " +
				"attempt 1: one (ADDR) by grpc, processed, TIME: unavailable: in the service's own words; " +
				"attempt 2: one (ADDR) by grpc, processed, TIME]",
		},
		{
			"nobody there", down, func(config *rpc.ClientConfig) { config.Retry.MaxAttempts = 2 },
			"unavailable: dial tcp ADDR: connect: connection refused [scripted:///auth; " +
				"attempt 1: one (ADDR) by grpc, not sent, TIME; " +
				"attempt 2: one (ADDR) by grpc, not sent, TIME]",
		},
		{"one attempt that is no answer is explained", down, once(rpc.ProtocolHTTP), "unavailable: dial tcp ADDR: connect: connection refused [scripted:///auth; " +
			"attempt 1: one (ADDR) by http, not sent, TIME]"},
		{
			"both protocols of an attempt are listed", startHTTP(t, http.HandlerFunc(func(response http.ResponseWriter, _ *http.Request) {
				http.Error(response, "no", http.StatusUnsupportedMediaType)
			}), http1And2).Listener.Addr().String(), nil,
			"unknown: 415 Unsupported Media Type: no [scripted:///auth; " +
				"attempt 1: one (ADDR) by grpc, refused, TIME: unknown: HTTP status 415 Unsupported Media Type: no; " +
				"attempt 2: one (ADDR) by http, maybe processed, TIME]",
		},
		{
			"a server that wants TLS, by gRPC", secured, once(rpc.ProtocolGRPC),
			"unavailable: HTTP/2 preface to ADDR: connection closed before an answer, as by a server that wants TLS [scripted:///auth; " +
				"attempt 1: one (ADDR) by grpc, not sent, TIME]",
		},
		{
			"a server that wants TLS, by HTTP", secured, once(rpc.ProtocolHTTP),
			"internal: 400 Bad Request: Client sent an HTTP request to an HTTPS server. [scripted:///auth; " +
				"attempt 1: one (ADDR) by http, maybe processed, TIME]",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			transport, _ := only(t, row.addr, row.adjust)
			_, err := newAuthClient(transport).ValidateToken(t.Context(), &authv1.ValidateTokenRequest{Token: "secret-token"})
			if diff := cmp.Diff(row.want, pinned(fmt.Sprint(err))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			failure := callError(t, err)
			if failure.Procedure != "/goplt.auth.v1.AuthService/ValidateToken" || failure.Target != "scripted:///auth" {
				t.Errorf("procedure %q, target %q", failure.Procedure, failure.Target)
			}
			if connect.CodeOf(err) != failure.Attempts[len(failure.Attempts)-1].Code {
				t.Errorf("code %v is not the last attempt's of %v", connect.CodeOf(err), failure.Attempts)
			}
		})
	}
}

// TestCallErrorLog pins the structure that a log gets of the CallError itself. connect.Client wraps the errors of its calls in errors.Join,
// which hides a LogValue; whoever wants the structure takes the CallError out.
func TestCallErrorLog(t *testing.T) {
	down := nobody(t)
	transport, _ := only(t, down, func(config *rpc.ClientConfig) { config.Retry.MaxAttempts = 2 })
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Error("failed", "error", callError(t, login(t.Context(), transport)))
	var got struct {
		Error map[string]any `json:"error"`
	}
	if err := json.Unmarshal(log.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	attempts, _ := got.Error["attempts"].(map[string]any)
	for _, attempt := range attempts {
		fields := attempt.(map[string]any)
		if duration, _ := fields["duration"].(float64); duration <= 0 || duration > float64(time.Minute) {
			t.Errorf("duration %v", fields["duration"])
		}
		delete(fields, "duration")
	}
	text, err := json.Marshal(got.Error)
	if err != nil {
		t.Fatal(err)
	}
	const refused = "unavailable: dial tcp ADDR: connect: connection refused"
	const attempt = `{"addr":"ADDR","code":"unavailable","error":"` + refused + `","hedge":false,"instance":"one","protocol":"grpc","verdict":"not sent"}`
	want := `{"attempts":{"1":` + attempt + `,"2":` + attempt + `},"error":"` + refused + `",` +
		`"procedure":"/goplt.auth.v1.AuthService/Login","target":"scripted:///auth"}`
	if diff := cmp.Diff(want, pinned(string(text))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestCallErrorHidesSecrets: whatever goes wrong, no error holds what was sent or what came back.
func TestCallErrorHidesSecrets(t *testing.T) {
	leaky := func(contentType string) string {
		return startHTTP(t, http.HandlerFunc(func(response http.ResponseWriter, _ *http.Request) {
			response.Header().Set("Content-Type", contentType)
			_, _ = response.Write([]byte(`{"tokens":{"accessToken":{"secret-token":1}}}`))
		}), http1And2).Listener.Addr().String()
	}
	silentPeer := startHTTP(t, http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
		_, _ = io.Copy(io.Discard, request.Body) // net/http notices that its client has gone only when the body is read
		<-request.Context().Done()
	}), http1And2)
	for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
		for name, addr := range map[string]string{
			"an answer that is no message":  leaky("application/json"),
			"an answer of another protocol": leaky("text/html"),
			"no answer":                     silentPeer.Listener.Addr().String(),
		} {
			t.Run(name+" by "+string(spoken), func(t *testing.T) {
				transport, _ := only(t, addr, func(config *rpc.ClientConfig) { config.Protocol, config.Timeout = spoken, 100*time.Millisecond })
				for _, err := range []error{login(t.Context(), transport), validate(t.Context(), transport)} {
					if err == nil {
						t.Fatal("it succeeded")
					}
					for _, text := range []string{err.Error(), fmt.Sprintf("%+v %#v", err, err), slog.AnyValue(err).Resolve().String()} {
						if strings.Contains(text, "secret") {
							t.Errorf("the error holds a secret: %s", text)
						}
					}
				}
			})
		}
	}
}

func TestSentinels(t *testing.T) {
	_, err := callText(t.Context(), connect.NewClient(newTransport(t, newScripted(), nil)), specEcho, "x")
	for sentinel, want := range map[error]bool{rpc.ErrNoInstances: true, rpc.ErrClosed: false, context.Canceled: false} {
		if errors.Is(err, sentinel) != want {
			t.Errorf("%v matches %v: %t", err, sentinel, !want)
		}
	}
}
