package rpc_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	"github.com/0x1d/goplt/pkg/rpc"
)

// TestUnreadBodyIsNoRequest shows that the bytes of a body that the server did not read are never taken for a further request. Behind a proxy
// that shares connections among clients, they would be answered as somebody else's.
func TestUnreadBodyIsNoRequest(t *testing.T) {
	t.Parallel()
	const smuggled = "POST /grpc.health.v1.Health/Check HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
	for _, row := range []struct {
		name   string
		config func(*rpc.ServerConfig)
		path   string
		// length is that of the body announced, of which sent bytes come before the smuggled ones.
		length, sent int
		status       int
	}{
		{"a message over the limit", func(*rpc.ServerConfig) {}, "/goplt.auth.v1.AuthService/Login", 8 << 20, 4<<20 + 1, http.StatusTooManyRequests},
		{"no such procedure", func(*rpc.ServerConfig) {}, "/goplt.auth.v1.AuthService/Logn", 8 << 20, 0, http.StatusNotFound},
		{
			"a body that comes too late",
			func(config *rpc.ServerConfig) { config.RequestTimeout = 50 * time.Millisecond },
			"/goplt.auth.v1.AuthService/Login", 1 << 10, 10, http.StatusGatewayTimeout,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			handlers := connect.NewServer()
			authv1connect.RegisterAuthServiceHandler(handlers, &authHandler{})
			config := rpc.DefaultServerConfig()
			config.Listen = "127.0.0.1:0"
			row.config(&config)
			server, err := rpc.NewServer(handlers, rpc.WithServerConfig(config))
			if err != nil {
				t.Fatal(err)
			}
			if err := server.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = server.Stop(t.Context()) }()
			conn, err := net.Dial("tcp", server.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			request := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
				row.path, row.length, strings.Repeat(" ", row.sent))
			if _, err := io.WriteString(conn, request); err != nil {
				t.Fatal(err)
			}
			answers := bufio.NewReader(conn)
			if row.sent < 4<<20 {
				// The server answers before the rest of the body is there.
				expectAnswer(t, answers, row.status)
			}
			// The server may have closed the connection by now, which is as good.
			_, _ = io.WriteString(conn, strings.Repeat(smuggled, 10))
			if row.sent >= 4<<20 {
				expectAnswer(t, answers, row.status)
			}
			if second, err := http.ReadResponse(answers, nil); err == nil {
				_ = second.Body.Close()
				t.Errorf("bytes of the body were answered with %s", second.Status)
			}
		})
	}
}

func expectAnswer(t *testing.T, answers *bufio.Reader, status int) {
	t.Helper()
	first, err := http.ReadResponse(answers, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, first.Body)
	_ = first.Body.Close()
	if first.StatusCode != status || !first.Close {
		t.Errorf("answered %s, close %t; want %d, and the connection closed", first.Status, first.Close, status)
	}
}
