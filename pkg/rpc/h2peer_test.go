package rpc_test

import (
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/pkg/servicestest"
)

type (
	h2Peer    = servicestest.HTTP2Server
	h2Request = servicestest.HTTP2Request
)

// h2Conn is a connection of a peer that knows how to answer as the auth service.
type h2Conn struct{ *servicestest.HTTP2Conn }

func startH2Peer(t testing.TB, serve func(number int, conn *h2Conn)) *h2Peer {
	t.Helper()
	return servicestest.StartHTTP2(t, func(conn *servicestest.HTTP2Conn) { serve(conn.Number, &h2Conn{conn}) })
}

// Serve answers every request like a healthy auth service, counting, until the connection ends.
func (c *h2Conn) Serve(executed *atomic.Int64) {
	for {
		request, ok := c.Next()
		if !ok {
			return
		}
		executed.Add(1)
		c.AnswerAuth(request)
	}
}

// AnswerAuth answers a request to the auth service.
func (c *h2Conn) AnswerAuth(request *h2Request) {
	var answer proto.Message = &authv1.LoginResponse{Tokens: &authv1.TokenPair{AccessToken: "a"}}
	if request.Path() == "/goplt.auth.v1.AuthService/ValidateToken" {
		answer = &authv1.ValidateTokenResponse{Claims: &authv1.TokenClaims{UserId: "u"}}
	}
	c.Answer(request.Stream, answer)
}
