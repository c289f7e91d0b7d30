package rpc_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/0x1d/goplt/internal/testcert"
	"github.com/0x1d/goplt/pkg/rpc"
)

// TestServerProtocols calls every kind of procedure in every protocol, over every version of HTTP, in cleartext and TLS, on one port each.
func TestServerProtocols(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	cleartext := startServer(t, handlers, testConfig())
	authority, config := securedConfig(t)
	secure := startServer(t, handlers, config)
	trust := trusting(t, authority)

	protocols := []struct {
		name   string
		opts   []connecthttp.Option
		http1  bool
		expect string
	}{
		{"gRPC", []connecthttp.Option{connecthttp.WithGRPC()}, false, "grpc proto"},
		{"gRPC JSON", []connecthttp.Option{connecthttp.WithGRPC(), connecthttp.WithProtoJSON()}, false, "grpc json"},
		{"gRPC-Web", []connecthttp.Option{connecthttp.WithGRPCWeb()}, true, "grpcweb proto"},
		{"Connect", nil, true, "connect proto"},
		{"Connect JSON", []connecthttp.Option{connecthttp.WithProtoJSON()}, true, "connect json"},
	}
	for _, protocol := range protocols {
		for _, version := range []int{1, 2} {
			for _, config := range []*tls.Config{nil, trust} {
				if version == 1 && !protocol.http1 {
					continue
				}
				name := fmt.Sprintf("%s over HTTP/%d", protocol.name, version)
				server := cleartext
				if config != nil {
					name, server = name+" and TLS", secure
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					transport := connecthttp.NewTransport(httpClient(t, version, config), baseURL(server, config), protocol.opts...)
					client := connect.NewClient(transport)
					seen := fmt.Sprintf("%s HTTP/%s idempotency_unknown", protocol.expect, map[int]string{1: "1.1", 2: "2.0"}[version])
					testProcedures(t, client, version, seen)
				})
			}
		}
	}
}

func testProcedures(t *testing.T, client *connect.Client, version int, seen string) {
	t.Helper()
	ctx, info := connect.NewClientContext(t.Context())
	if answer, err := callText(ctx, client, specEcho, "hello"); err != nil || answer != "hello" {
		t.Errorf("unary: got %q, %v", answer, err)
	}
	if diff := cmp.Diff(seen, info.ResponseHeader().Get("Seen")); diff != "" {
		t.Errorf("what the handler saw (-want +got):\n%s", diff)
	}

	_, err := callText(t.Context(), client, specFail, "x")
	if rpcErr, ok := errors.AsType[*connect.Error](err); !ok || rpcErr.Code() != connect.CodeNotFound || rpcErr.Message() != `no word "x"` {
		t.Errorf("failing call: got %v", err)
	}
	if _, err := callText(t.Context(), client, specFail, "plain"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("call failing with an error of no code: got %v, want one without its text", err)
	}

	stream, err := client.CallServerStream(t.Context(), specSplit, wrapperspb.String("to be or"))
	if err != nil {
		t.Fatalf("server stream: %v", err)
	}
	if diff := cmp.Diff([]string{"to", "be", "or"}, receiveAll(t, stream)); diff != "" {
		t.Errorf("server stream (-want +got):\n%s", diff)
	}

	stream, err = client.CallClientStream(t.Context(), specJoin)
	if err != nil {
		t.Fatalf("client stream: %v", err)
	}
	for _, word := range []string{"not", "to", "be"} {
		if err := stream.Send(wrapperspb.String(word)); err != nil {
			t.Fatalf("client stream: send: %v", err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatalf("client stream: close: %v", err)
	}
	if diff := cmp.Diff([]string{"not to be"}, receiveAll(t, stream)); diff != "" {
		t.Errorf("client stream (-want +got):\n%s", diff)
	}

	if version == 1 {
		return // HTTP/1.1 has no full duplex
	}
	stream, err = client.CallClientStream(t.Context(), specChat)
	if err != nil {
		t.Fatalf("bidi stream: %v", err)
	}
	for _, word := range []string{"ping", "pong"} {
		var answer wrapperspb.StringValue
		if err := errors.Join(stream.Send(wrapperspb.String(word)), stream.Receive(&answer)); err != nil || answer.GetValue() != word {
			t.Fatalf("bidi stream: got %q, %v", answer.GetValue(), err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatalf("bidi stream: close: %v", err)
	}
	receiveAll(t, stream)
}

func receiveAll(t *testing.T, stream connect.ClientStream) (all []string) {
	t.Helper()
	defer stream.Close()
	for {
		var answer wrapperspb.StringValue
		if err := stream.Receive(&answer); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("receive: %v", err)
		}
		all = append(all, answer.GetValue())
	}
}

// securedConfig is testConfig with TLS, and who vouches for it.
func securedConfig(t *testing.T) (*testcert.Authority, rpc.ServerConfig) {
	t.Helper()
	authority, config := testcert.New(t), testConfig()
	pair := authority.Issue(t, "127.0.0.1")
	config.TLS = rpc.TLSConfig{Enabled: true, CertFile: pair.CertFile, KeyFile: pair.KeyFile}
	return authority, config
}

// trusting returns what a client needs to trust the authority's certificates.
func trusting(t *testing.T, authority *testcert.Authority) *tls.Config {
	t.Helper()
	pem, err := os.ReadFile(authority.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{RootCAs: roots}
}

// TestServerALPN: over TLS the server offers h2 and HTTP/1.1, so that gRPC's implementations, which insist on h2, connect.
func TestServerALPN(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	authority, config := securedConfig(t)
	server := startServer(t, handlers, config)
	for offer, want := range map[string]string{"h2": "h2", "http/1.1": "http/1.1"} {
		client := trusting(t, authority)
		client.NextProtos = []string{offer}
		connection, err := (&tls.Dialer{Config: client}).DialContext(t.Context(), "tcp", server.Addr())
		if err != nil {
			t.Fatalf("dial with ALPN %s: %v", offer, err)
		}
		if got := connection.(*tls.Conn).ConnectionState().NegotiatedProtocol; got != want {
			t.Errorf("ALPN %s: negotiated %q, want %q", offer, got, want)
		}
		_ = connection.Close()
	}
}

// TestServerPlainHTTP: a procedure answers a plain POST of JSON over HTTP/1.1, as anyone would type it.
func TestServerPlainHTTP(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	server := startServer(t, handlers, testConfig())
	status, body, header := post(t, httpClient(t, 1, nil), http.MethodPost, baseURL(server, nil)+specEcho.Procedure, "application/json", `"hello"`)
	if status != http.StatusOK || body != `"hello"` || header.Get("Content-Type") != "application/json" {
		t.Errorf("got %d %s (%s)", status, body, header.Get("Content-Type"))
	}
	status, body, _ = post(t, httpClient(t, 1, nil), http.MethodPost, baseURL(server, nil)+specEcho.Procedure, "application/json", `{"bad`)
	var answer struct{ Code, Message string }
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusBadRequest || answer.Code != "invalid_argument" {
		t.Errorf("malformed JSON: got %d %s", status, body)
	}
}

// TestServerCurl is the same with curl itself, over HTTP/1.1 and HTTP/2.
func TestServerCurl(t *testing.T) {
	t.Parallel()
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed; TestServerPlainHTTP makes the same request")
	}
	_, handlers := newWords()
	server := startServer(t, handlers, testConfig())
	for _, version := range []string{"--http1.1", "--http2-prior-knowledge"} {
		output, err := exec.CommandContext(t.Context(), curl, "-sS", version, "-H", "Content-Type: application/json", "-d", `"hello"`,
			"-w", " %{http_code}", baseURL(server, nil)+specEcho.Procedure).CombinedOutput()
		if err != nil || string(output) != `"hello" 200` {
			t.Errorf("curl %s: got %s, %v", version, output, err)
		}
	}
}

// TestHandlerWithoutStart: the handler alone serves, behind anyone's http.Server.
func TestHandlerWithoutStart(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	server, err := rpc.NewServer(handlers)
	if err != nil {
		t.Fatal(err)
	}
	client := connect.NewClient(connecthttp.NewTransport(handlerClient{server.Handler()}, "http://in.memory"))
	if answer, err := callText(t.Context(), client, specEcho, "hello"); err != nil || answer != "hello" {
		t.Errorf("got %q, %v", answer, err)
	}
	if addr := server.Addr(); addr != "" {
		t.Errorf("Addr before Start: got %q, want none", addr)
	}
}
