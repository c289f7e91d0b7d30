//go:build integration

package faults_test

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	connectrpc "connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// unreadable is an answer that nobody can read, by one protocol.
type unreadable struct {
	spoken rpc.Protocol
	answer http.HandlerFunc
	code   connectrpc.Code
	text   string // that the error says, among other things
}

// framed returns a message as gRPC has it.
func framed(flags byte, message string) string {
	return string(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(message)))) + message
}

// answering returns a handler that answers with headers, which are names and values, a body and, by gRPC, the trailers of a success.
func answering(body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for at := 0; at < len(headers); at += 2 {
			w.Header().Set(headers[at], headers[at+1])
		}
		if strings.HasPrefix(w.Header().Get("Content-Type"), "application/grpc") {
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
		}
		_, _ = w.Write([]byte(body))
	}
}

// TestRow38Unreadable: the call was executed, and its answer cannot be read. It would be no better the second time.
func TestRow38Unreadable(t *testing.T) {
	t.Parallel()
	const internal, unimplemented, unknown = connectrpc.CodeInternal, connectrpc.CodeUnimplemented, connectrpc.CodeUnknown
	spokenGRPC := func(code connectrpc.Code, text, body string, headers ...string) unreadable {
		return unreadable{rpc.ProtocolAuto, answering(body, append(headers, "Content-Type", "application/grpc")...), code, text}
	}
	spokenJSON := func(code connectrpc.Code, text, body string, headers ...string) unreadable {
		return unreadable{rpc.ProtocolHTTP, answering(body, append([]string{"Content-Type", "application/json"}, headers...)...), code, text}
	}
	for name, bad := range map[string]unreadable{
		"grpc bad gzip":               spokenGRPC(internal, "cannot be read: get decompressor: connectgzip", framed(1, "no gzip"), "Grpc-Encoding", "gzip"),
		"grpc gzip without saying so": spokenGRPC(internal, "compress", framed(1, "no gzip")),
		"grpc unknown compression":    spokenGRPC(internal, `unknown encoding "zstd"`, framed(1, "x"), "Grpc-Encoding", "zstd"),
		"grpc bad protobuf":           spokenGRPC(internal, "cannot be read: unmarshal message: proto", framed(0, "\xff\xff\xff")),
		"grpc cut off":                spokenGRPC(internal, "promised 7 bytes", framed(0, "message")[:8]),
		// The conformance suite has it that these two are unimplemented.
		"grpc no message":          spokenGRPC(unimplemented, "zero messages", ""),
		"grpc two messages":        spokenGRPC(unimplemented, "multiple messages", framed(0, "")+framed(0, "")),
		"json bad gzip":            spokenJSON(internal, "cannot be read: get decompressor: connectgzip", "no gzip", "Content-Encoding", "gzip"),
		"json unknown compression": spokenJSON(internal, `unknown encoding "zstd"`, "x", "Content-Encoding", "zstd"),
		"json bad JSON":            spokenJSON(internal, "cannot be read: unmarshal message: ", `{"user": `),
		"json other JSON":          spokenJSON(internal, "cannot be read: unmarshal message: ", `[1]`),
		"json page":                spokenJSON(unknown, `invalid content-type: "text/html"`, "<html>welcome</html>", "Content-Type", "text/html"),
	} {
		t.Run(name, func(t *testing.T) {
			row(t)
			executions := newLedger()
			gateway := servicestest.StartHTTPProxy(t, host{}.start(t, executions).Addr())
			transport := reach(t, inMemory(speaking(bad.spoken)), gateway.Addr)
			bad.expect(t, transport, gateway, executions)
		})
	}
}

func (bad unreadable) expect(t *testing.T, transport *rpc.Transport, gateway *servicestest.HTTPProxy, executions *ledger) {
	t.Helper()
	for range 3 {
		for _, what := range both {
			before := gateway.Requests("*")
			if bad.answer != nil {
				gateway.Respond("auth", bad.answer, servicestest.AfterExecution(), servicestest.Times(1))
			}
			made := invoke(t.Context(), transport, what, patience)
			if made.err == nil || !strings.Contains(made.err.Error(), bad.text) {
				t.Fatalf("the call ends with %v, want an error that says %q", made.err, bad.text)
			}
			made.expect(t, executions, bad.code, 1)
			if got := gateway.Requests("*") - before; got != 1 {
				t.Errorf("the call was sent %d times", got)
			}
			expectAtRest(t, transport)
		}
	}
	// Whether the last connection is one of those that are of no use depends on how far it got when the client gave up. So let it be a good one.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if health, err := rpc.CheckHealth(ctx, transport, ""); err != nil || health != rpc.HealthServing {
		t.Errorf("a call that can be read: %v, %v", health, err)
	}
	await(t, "connections that are of no use to be closed", func() bool { return gateway.Open.Load() == 1 })
}

// TestRow38TooLarge: the answer is larger than the client takes, as it comes or once it is decompressed.
func TestRow38TooLarge(t *testing.T) {
	t.Parallel()
	for name, padding := range map[string]string{"as it comes": incompressible(40 << 10), "decompressed": strings.Repeat("x", 256<<10)} {
		for _, spoken := range byBoth {
			t.Run(string(spokenBy(spoken))+" "+name, func(t *testing.T) {
				row(t)
				executions := newLedger()
				gateway := servicestest.StartHTTPProxy(t, host{padding: padding}.start(t, executions).Addr())
				transport := reach(t, inMemory(speaking(spoken), func(cfg *config.Config) { cfg.Defaults.MaxReceiveBytes = 10_000 }), gateway.Addr)
				unreadable{spoken, nil, connectrpc.CodeResourceExhausted, "larger than configured max 10000"}.expect(t, transport, gateway, executions)
				if came := gateway.FromServer.Load(); name == "decompressed" && came > 50_000 {
					t.Errorf("%d bytes came: the test tests nothing", came)
				}
				expectUntouched(t, transport, spokenBy(spoken))
			})
		}
	}
}

// incompressible returns a text of so many bytes that no compression makes less than half as large.
func incompressible(size int) string {
	text := make([]byte, size)
	for at := range text {
		text[at] = "0123456789abcdef"[rand.N(16)]
	}
	return string(text)
}
