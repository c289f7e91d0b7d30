package rpc_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect/v2/connecthttp"

	"github.com/0x1d/goplt/pkg/rpc"
)

// BenchmarkServerHandler is what a unary call costs in the server's own layers, beside connect-go's alone: the difference is the guard's
// context with its timer, and the second dispatch.
func BenchmarkServerHandler(b *testing.B) {
	_, handlers := newWords()
	server, err := rpc.NewServer(handlers)
	if err != nil {
		b.Fatal(err)
	}
	bare := http.NewServeMux()
	connecthttp.Mount(bare, handlers)
	for name, handler := range map[string]http.Handler{"goplt": server.Handler(), "connect": bare} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				request := httptest.NewRequest(http.MethodPost, specEcho.Procedure, io.NopCloser(strings.NewReader(`"x"`)))
				request.ProtoMajor = 2
				request.Header.Set("Content-Type", "application/json")
				recorder := httptest.NewRecorder()
				handler.ServeHTTP(recorder, request)
				if recorder.Code != http.StatusOK {
					b.Fatal(recorder.Code)
				}
			}
		})
	}
}
