package rpc_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/0x1d/goplt/pkg/rpc"
)

// BenchmarkServerHandler is what a unary call costs in the server's own layers, beside connect-go's alone: the difference is the guard's
// context with its timer, the stream that keeps late messages back, and the second dispatch. Shedding, if enabled, adds locks.
func BenchmarkServerHandler(b *testing.B) {
	_, handlers := newWords()
	bare := http.NewServeMux()
	connecthttp.Mount(bare, handlers)
	for name, handler := range map[string]http.Handler{
		"goplt": newHandler(b, handlers, rpc.DefaultServerConfig()), "goplt, shedding": newHandler(b, handlers, sheddingConfig()), "connect": bare,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				serveEcho(b, handler)
			}
		})
	}
}

// sheddingConfig has both bounds on the load.
func sheddingConfig() rpc.ServerConfig {
	config := rpc.DefaultServerConfig()
	config.MaxConcurrentCalls, config.Shedding.Enabled = 1000, true
	return config
}

func newHandler(tb testing.TB, handlers *connect.Server, config rpc.ServerConfig) http.Handler {
	tb.Helper()
	server, err := rpc.NewServer(handlers, rpc.WithServerConfig(config))
	if err != nil {
		tb.Fatal(err)
	}
	return server.Handler()
}

func serveEcho(tb testing.TB, handler http.Handler) {
	tb.Helper()
	request := httptest.NewRequest(http.MethodPost, specEcho.Procedure, io.NopCloser(strings.NewReader(`"x"`)))
	request.ProtoMajor = 2
	request.Header.Set("Content-Type", "application/json")
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, request)
	if recorder.Code != http.StatusOK {
		tb.Fatal(recorder.Code)
	}
}
