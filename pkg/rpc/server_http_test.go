package rpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectinprocess"

	"github.com/0x1d/goplt/pkg/rpc"
)

const wordsMethods = "Chat, Echo, Fail, Hang, Join, Panic, Read, Split, Stay"

// unimplemented is Connect's JSON for an error with the message, which is JSON too.
func unimplemented(message string) string {
	return `{"code":"unimplemented","message":"` + message + `"}`
}

// TestServerNotAProcedure pins what a request gets that is no call of a procedure.
func TestServerNotAProcedure(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	server := startServer(t, handlers, testConfig())
	config := testConfig()
	config.Reflection = false
	private := startServer(t, handlers, config)

	for _, row := range []struct {
		name                      string
		server                    *rpc.Server
		method, path, contentType string
		status                    int
		header, headerValue       string
		body                      string
	}{
		{
			"unknown method", server, "POST", "/test.v1.Words/Shout", "application/json", 404, "Content-Type", "application/json",
			unimplemented(`\"/test.v1.Words/Shout\" is not a procedure of this server: the methods of test.v1.Words are ` + wordsMethods),
		},
		{
			"unknown method by GET", server, "GET", "/test.v1.Words/Shout", "", 404, "Content-Type", "application/json",
			unimplemented(`\"/test.v1.Words/Shout\" is not a procedure of this server: the methods of test.v1.Words are ` + wordsMethods),
		},
		{
			"unknown method of health", server, "POST", "/grpc.health.v1.Health/List", "application/json", 404, "Content-Type", "application/json",
			unimplemented(`\"/grpc.health.v1.Health/List\" is not a procedure of this server: the methods of grpc.health.v1.Health are Check, Watch`),
		},
		{
			"unknown method, API not shown", private, "POST", "/test.v1.Words/Shout", "application/json", 404, "Content-Type", "application/json",
			unimplemented(`\"/test.v1.Words/Shout\" is not a procedure of this server`),
		},
		{
			"unknown service", server, "POST", "/test.v1.Nothing/Echo", "application/json", 404, "Content-Type", "application/json",
			unimplemented(`\"/test.v1.Nothing/Echo\" is not a procedure of this server: it has no service test.v1.Nothing`),
		},
		{
			"root", server, "GET", "/", "", 404, "Content-Type", "application/json",
			unimplemented(`\"/\" is not a procedure; procedures are of the form /package.Service/Method`),
		},
		{
			"below a procedure", server, "POST", "/test.v1.Words/Echo/more", "application/json", 404, "Content-Type", "application/json",
			unimplemented(`\"/test.v1.Words/Echo/more\" is not a procedure; procedures are of the form /package.Service/Method`),
		},
		{
			"GET of a procedure", server, "GET", "/test.v1.Words/Echo", "", 405, "Allow", "POST",
			`{"code":"unknown","message":"GET /test.v1.Words/Echo: procedures are called by POST"}`,
		},
		{
			"GET of a procedure without side effects", server, "GET", "/test.v1.Words/Read?encoding=json&message=%22x%22", "", 405, "Allow", "POST",
			`{"code":"unknown","message":"GET /test.v1.Words/Read: procedures are called by POST"}`,
		},
		{
			"DELETE of a procedure", server, "DELETE", "/test.v1.Words/Echo", "application/json", 405, "Allow", "POST",
			`{"code":"unknown","message":"DELETE /test.v1.Words/Echo: procedures are called by POST"}`,
		},
		// A body in JSON would be nothing that these protocols know.
		{"DELETE by gRPC", server, "DELETE", "/test.v1.Words/Echo", "application/grpc", 405, "Content-Type", "", ""},
		{"DELETE by gRPC-Web", server, "DELETE", "/test.v1.Words/Echo", "application/grpc-web+proto", 405, "Allow", "POST", ""},
		{
			"content type", server, "POST", "/test.v1.Words/Echo", "text/plain", 415, "Accept-Post",
			"application/grpc, application/grpc+json, application/grpc+json; charset=utf-8, application/grpc+proto, " +
				"application/grpc-web, application/grpc-web+json, application/grpc-web+json; charset=utf-8, application/grpc-web+proto, " +
				"application/json, application/json; charset=utf-8, application/proto",
			`{"code":"unknown","message":"POST /test.v1.Words/Echo: content type \"text/plain\" is not one that it takes; want application/json"}`,
		},
		{
			"no content type", server, "POST", "/test.v1.Words/Echo", "", 415, "Content-Type", "application/json; charset=utf-8",
			`{"code":"unknown","message":"POST /test.v1.Words/Echo: no content type; want application/json"}`,
		},
		{
			"content type of a stream", server, "POST", "/test.v1.Words/Echo", "application/connect+json", 415, "Content-Type", "application/json; charset=utf-8",
			`{"code":"unknown","message":"POST /test.v1.Words/Echo: content type \"application/connect+json\" is not one that it takes; ` +
				`want application/json"}`,
		},
		{
			"content type for a stream", server, "POST", "/test.v1.Words/Split", "application/json", 415, "Content-Type", "application/json; charset=utf-8",
			`{"code":"unknown","message":"POST /test.v1.Words/Split: content type \"application/json\" is not one that it takes; ` +
				`want application/connect+json"}`,
		},
		{"content type by gRPC", server, "POST", "/test.v1.Words/Echo", "application/grpc+yaml", 415, "Content-Length", "0", ""},
		{"bidi stream over HTTP/1.1", server, "POST", "/test.v1.Words/Chat", "application/connect+json", 505, "Content-Length", "0", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			status, body, header := post(t, httpClient(t, 1, nil), row.method, baseURL(row.server, nil)+row.path, row.contentType, "")
			if status != row.status || body != row.body || header.Get(row.header) != row.headerValue {
				t.Errorf("got %d %s\n%s: %s\nwant %d %s\n%s: %s",
					status, body, row.header, header.Get(row.header), row.status, row.body, row.header, row.headerValue)
			}
		})
	}
}

// TestServerContentTypeByHTTP2: what refuses a content type says so by HTTP/2 too.
func TestServerContentTypeByHTTP2(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	server := startServer(t, handlers, testConfig())
	// What curl sends when it is told nothing.
	status, body, header := post(t, httpClient(t, 2, nil), "POST", baseURL(server, nil)+"/test.v1.Words/Echo", "application/x-www-form-urlencoded", "{}")
	want := `{"code":"unknown","message":"POST /test.v1.Words/Echo: content type \"application/x-www-form-urlencoded\" is not one that it takes; ` +
		`want application/json"}`
	if status != http.StatusUnsupportedMediaType || body != want || header.Get("Accept-Post") == "" {
		t.Errorf("got %d %s, %v\nwant 415 %s", status, body, header, want)
	}
}

// TestServerUnknownProcedureInEveryProtocol: callers by RPC get the answer as an error of their own protocol.
func TestServerUnknownProcedureInEveryProtocol(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	server := startServer(t, handlers, testConfig())
	for name, option := range map[string]connecthttp.Option{
		"gRPC": connecthttp.WithGRPC(), "gRPC-Web": connecthttp.WithGRPCWeb(), "Connect": connecthttp.WithProtoJSON(),
	} {
		for procedure, want := range map[string]string{
			"/test.v1.Words/Shout":  `"/test.v1.Words/Shout" is not a procedure of this server: the methods of test.v1.Words are ` + wordsMethods,
			"/test.v1.Nothing/Echo": `"/test.v1.Nothing/Echo" is not a procedure of this server: it has no service test.v1.Nothing`,
		} {
			for _, streams := range []connect.StreamType{connect.StreamTypeUnary, connect.StreamTypeServer} {
				_, err := callText(t.Context(), rpcClient(t, server, 2, option), connect.Spec{Procedure: procedure, StreamType: streams}, "x")
				rpcErr, ok := errors.AsType[*connect.Error](err)
				if !ok || rpcErr.Code() != connect.CodeUnimplemented || rpcErr.Message() != want {
					t.Errorf("%s, %s stream of %s: got %v\nwant unimplemented: %s", name, streams, procedure, err, want)
				}
			}
		}
	}
}

// TestServerUnknownHandler: the unknown handler of the given server is asked about unknown methods of known services.
func TestServerUnknownHandler(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	handlers.SetUnknownHandler(func(_ context.Context, spec connect.Spec, _ connect.ServerStream) error {
		return connect.Errorf(connect.CodeFailedPrecondition, "not yet: %s", spec.Procedure)
	})
	server := startServer(t, handlers, testConfig())
	_, err := callText(t.Context(), rpcClient(t, server, 2, connecthttp.WithGRPC()), spec("Shout", connect.StreamTypeUnary), "x")
	if want := "failed_precondition: not yet: /test.v1.Words/Shout"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestServerPanic: a panic fails its own call and nothing else, and is logged with its stack.
func TestServerPanic(t *testing.T) {
	t.Parallel()
	for name, opts := range dialects() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, handlers := newWords()
			var log syncBuffer
			server := startServer(t, handlers, testConfig(), rpc.WithServerLogger(slog.New(slog.NewJSONHandler(&log, nil))))
			client := rpcClient(t, server, versionOf(name), opts...)

			_, err := callText(t.Context(), client, specPanic, "memory")
			if want := "internal: the handler panicked"; err == nil || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
			var entry struct{ Level, Msg, Procedure, Panic, Stack string }
			if err := json.Unmarshal([]byte(log.String()), &entry); err != nil {
				t.Fatalf("log: %v\n%s", err, log.String())
			}
			if entry.Level != "ERROR" || entry.Procedure != specPanic.Procedure || entry.Panic != "out of memory" ||
				!strings.Contains(entry.Stack, "words).panic") {
				t.Errorf("log: got %+v", entry)
			}

			if _, err := callText(t.Context(), client, specPanic, "abort"); err == nil || strings.Contains(err.Error(), "panicked") {
				t.Errorf("http.ErrAbortHandler: got %v, want a broken connection or stream", err)
			}
			if answer, err := callText(t.Context(), client, specEcho, "still here"); err != nil || answer != "still here" {
				t.Errorf("next call: got %q, %v", answer, err)
			}
		})
	}
}

// TestServerLogsConnections: what net/http has to say of connections goes to the server's log.
func TestServerLogsConnections(t *testing.T) {
	t.Parallel()
	logged := make(chan string, 1)
	_, handlers := newWords()
	_, config := securedConfig(t)
	server := startServer(t, handlers, config, rpc.WithServerLogger(slog.New(slog.NewTextHandler(writerFunc(func(line string) {
		select {
		case logged <- line:
		default:
		}
	}), nil))))
	status, _, _ := post(t, httpClient(t, 1, nil), http.MethodGet, "http://"+server.Addr()+"/", "", "")
	if status != http.StatusBadRequest {
		t.Errorf("cleartext to a TLS port: got %d, want 400", status)
	}
	if line := <-logged; !strings.Contains(line, "level=WARN") || !strings.Contains(line, "client sent an HTTP request to an HTTPS server") {
		t.Errorf("log: got %s", line)
	}
}

// TestServersShareHandlers: a connect.Server is not changed by hosting it, so it can be hosted twice and called in process.
func TestServersShareHandlers(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	first, second := startServer(t, handlers, testConfig()), startServer(t, handlers, testConfig())
	for _, server := range []*rpc.Server{first, second} {
		if answer, err := callText(t.Context(), rpcClient(t, server, 2, connecthttp.WithGRPC()), specEcho, "x"); err != nil || answer != "x" {
			t.Errorf("%s: got %q, %v", server.Addr(), answer, err)
		}
	}
	if answer, err := callText(t.Context(), connect.NewClient(connectinprocess.New(handlers)), specEcho, "x"); err != nil || answer != "x" {
		t.Errorf("in process: got %q, %v", answer, err)
	}
	for spec := range handlers.Specs() {
		if !strings.HasPrefix(spec.Procedure, "/test.v1.Words/") {
			t.Errorf("%s was registered on the caller's server", spec.Procedure)
		}
	}
}

// TestServerKeepsSpecs: interceptors of the given server see the procedure as it was registered.
func TestServerKeepsSpecs(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	server := startServer(t, handlers, testConfig())
	ctx, info := connect.NewClientContext(t.Context())
	if _, err := callText(ctx, rpcClient(t, server, 2, connecthttp.WithGRPC()), specRead, "x"); err != nil {
		t.Fatal(err)
	}
	if got, want := info.ResponseHeader().Get("Seen"), "grpc proto HTTP/2.0 no_side_effects"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// syncBuffer is a log that is read while it is written.
type syncBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

type writerFunc func(string)

func (f writerFunc) Write(p []byte) (int, error) { f(string(p)); return len(p), nil }
