package rpc_test

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/pkg/rpc"
)

// TestGatewayAnswersInJSON: that the answer to the replay is JSON does not make it the service's. Nothing is learned from a gateway's, and it
// counts as a failure of the instance, in whose place it was given.
func TestGatewayAnswersInJSON(t *testing.T) {
	for _, row := range []struct {
		name    string
		status  int
		body    string
		zipped  bool
		service bool // whether it is the service's
		code    connect.Code
		text    string
	}{
		{"message", 404, `{"message":"no Route matched"}`, false, false, connect.CodeUnimplemented, "404 Not Found: no Route matched"},
		{"zipped message", 404, `{"message":"no Route matched"}`, true, false, connect.CodeUnimplemented, "404 Not Found: no Route matched"},
		{"error", 403, `{"error":"forbidden"}`, false, false, connect.CodePermissionDenied, "403 Forbidden"},
		{"number", 502, `{"code":502,"message":"x"}`, false, false, connect.CodeUnavailable, "502 Bad Gateway"},
		{"another code", 401, `{"code":"unauthorized","message":"who?"}`, false, false, connect.CodeUnauthenticated, "401 Unauthorized: who?"},
		{"text", 404, `nothing here`, false, false, connect.CodeUnimplemented, "404 Not Found"},
		{"cut off", 404, `{"message":"no Rou`, false, false, connect.CodeUnimplemented, "404 Not Found"},
		{"service", 404, `{"code":"unimplemented","message":"no such method"}`, false, true, connect.CodeUnimplemented, "no such method"},
		{"service, zipped", 401, `{"message":"who?","code":"unauthenticated"}`, true, true, connect.CodeUnauthenticated, "who?"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var answer http.Handler = healthAnswer(row.status, "application/json", row.body)
			if row.zipped {
				answer = zipped(t, row.status, row.body)
			}
			server := startHTTP(t, byContentType(healthAnswer(http.StatusUnsupportedMediaType, "text/html", ""), answer), http1And2)
			for _, spoken := range []rpc.Protocol{rpc.ProtocolAuto, rpc.ProtocolHTTP} {
				transport, status := only(t, server.Listener.Addr().String(), protocol(spoken))
				err := login(t.Context(), transport)
				expectCode(t, err, row.code)
				if want := row.code.String() + ": " + row.text; !strings.HasPrefix(err.Error(), want) {
					t.Errorf("by %s: got %v, want it to begin with %q", spoken, err, want)
				}
				// The service's own answer, if it is all there was, needs no explanation.
				if explained := strings.Contains(err.Error(), ": one ("); explained == (row.service && spoken == rpc.ProtocolHTTP) {
					t.Errorf("by %s: got %v; explained: %t", spoken, err, explained)
				}
				want, failures := rpc.ProtocolHTTP, uint64(0)
				if !row.service {
					failures = 1
				}
				if !row.service && spoken == rpc.ProtocolAuto {
					want = rpc.ProtocolGRPC
				}
				if got := status(); got.Protocol != want || got.Failures != failures {
					t.Errorf("by %s: status %+v; want protocol %s and %d failures", spoken, got, want, failures)
				}
			}
		})
	}
}

// zipped serves one answer in JSON, compressed, to every request.
func zipped(t *testing.T, status int, body string) http.HandlerFunc {
	t.Helper()
	var buffer bytes.Buffer
	writer := gzip.NewWriter(&buffer)
	if _, err := writer.Write([]byte(body)); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	serve := healthAnswer(status, "application/json", buffer.String())
	return func(response http.ResponseWriter, request *http.Request) {
		response.Header().Set("Content-Encoding", "gzip")
		serve(response, request)
	}
}
