package rpc_test

import (
	"bytes"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	"github.com/0x1d/goplt/pkg/rpc"
)

// chunks is a listener that keeps what each Read of its connections returned.
type chunks struct {
	net.Listener

	mu   sync.Mutex
	read []string
}

type chunkedConn struct {
	net.Conn

	listener *chunks
}

func (l *chunks) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &chunkedConn{conn, l}, nil
}

func (c *chunkedConn) Read(buffer []byte) (int, error) {
	n, err := c.Conn.Read(buffer)
	if n > 1 || n == 1 && buffer[0] != 'P' { // else net/http waits for the next request with a buffer of one byte
		c.listener.mu.Lock()
		c.listener.read = append(c.listener.read, string(buffer[:n]))
		c.listener.mu.Unlock()
	}
	return n, err
}

// TestJSONRequestLeavesInOnePiece: header and message in one write, which is a system call less here and a wake-up less at the server.
func TestJSONRequestLeavesInOnePiece(t *testing.T) {
	listener := &chunks{Listener: listen(t).Listener}
	serveOn(t, listener, new(authHandler).mount(), http1Only)
	transport, _ := only(t, listener.Addr().String(), protocol(rpc.ProtocolHTTP))
	const calls = 50
	for range calls {
		if err := validate(t.Context(), transport); err != nil {
			t.Fatal(err)
		}
	}
	listener.mu.Lock()
	defer listener.mu.Unlock()
	if got := len(listener.read); got != calls {
		t.Errorf("%d requests arrived in %d pieces", calls, got)
	}
	for _, piece := range listener.read {
		if !strings.HasSuffix(piece, "}") {
			t.Fatalf("a piece is not a header and its message: %q", piece)
		}
	}
}

// TestServerNeverRepeatsWhatItWasSent: the answer to a request that does not fit is logged by clients and proxies.
func TestServerNeverRepeatsWhatItWasSent(t *testing.T) {
	handlers := connect.NewServer()
	authv1connect.RegisterAuthServiceHandler(handlers, new(authHandler))
	server := startServer(t, handlers, testConfig())
	client := httpClient(t, 1, nil)
	url := baseURL(server, nil) + authv1connect.AuthServiceLoginProcedure
	for _, row := range []struct{ body, want string }{
		{`{"email":"ada@example.com","password":98765}`, `unmarshal message: (line 1:39): field password: want a string`},
		{`{"password":"98765`, `unmarshal message: (line 1:13): field password: want the string to end`},
		{`{"password":{"98765":1}}`, `unmarshal message: (line 1:13): field password: want a string`},
		{`98765`, `unmarshal message: (line 1:1): want an object`},
		{``, `unmarshal message: zero-length payload is not a valid JSON object`},
	} {
		t.Run(row.body, func(t *testing.T) {
			status, body, _ := post(t, client, http.MethodPost, url, "application/json", row.body)
			if want := `{"code":"invalid_argument","message":"` + row.want + `"}`; status != http.StatusBadRequest || body != want {
				t.Errorf("got %d %s\nwant 400 %s", status, body, want)
			}
		})
	}
}

// TestClientNeverRepeatsWhatItGot: the same for an answer, whose error is logged here.
func TestClientNeverRepeatsWhatItGot(t *testing.T) {
	server := startHTTP(t, http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		_, _ = new(bytes.Buffer).ReadFrom(request.Body)
		response.Header().Set("Content-Type", "application/json")
		_, _ = response.Write([]byte(`{"tokens":{"accessToken":98765}}`))
	}), http1Only)
	transport, _ := only(t, server.Listener.Addr().String(), protocol(rpc.ProtocolHTTP))
	err := login(t.Context(), transport)
	expectCode(t, err, connect.CodeInternal)
	want := "unmarshal message: (line 1:26): field tokens.accessToken: want a string"
	if text := err.Error(); !strings.Contains(text, want) || strings.Contains(text, "98765") {
		t.Errorf("got %s, want it to say %s and no value", text, want)
	}
}
