package services

import (
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectinprocess"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
)

// TestDialErrorOfAnotherClient shows that what a client of any kind says of a connection that it could not open stays in the server's log.
func TestDialErrorOfAnotherClient(t *testing.T) {
	const nowhere = "127.0.0.1:1"
	downstream := authv1connect.NewAuthServiceClient(connect.NewClient(connecthttp.NewTransport(&http.Client{}, "http://"+nowhere)))
	_, failure := downstream.Login(t.Context(), &authv1.LoginRequest{})
	if failure == nil || !strings.Contains(failure.Error(), nowhere) {
		t.Fatalf("got %v, want an error with the address", failure)
	}
	logged := &journal{}
	server := connect.NewServer()
	RegisterAuth(server, &stub{err: failure}, logged.logger())
	_, err := NewAuthClient(connect.NewClient(connectinprocess.New(server))).Login(t.Context(), "a@b.c", "x")
	if err == nil || strings.Contains(err.Error(), nowhere) {
		t.Errorf("the caller is told %v", err)
	}
	if !strings.Contains(logged.String(), nowhere) {
		t.Errorf("the log does not tell: %s", logged)
	}
}
