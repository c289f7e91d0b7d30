package rpc_test

import (
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/internal/h2test"
)

type (
	h2Peer    = h2test.Peer
	h2Request = h2test.Request
)

// h2Conn is a connection of a peer that knows how to answer as the auth service.
type h2Conn struct{ *h2test.Conn }

func startH2Peer(t testing.TB, serve func(number int, conn *h2Conn)) *h2Peer {
	t.Helper()
	return h2test.Start(t, func(number int, conn *h2test.Conn) { serve(number, &h2Conn{conn}) })
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
	if request.Header.Get(":path") == "/goplt.auth.v1.AuthService/ValidateToken" {
		answer = &authv1.ValidateTokenResponse{Claims: &authv1.TokenClaims{UserId: "u"}}
	}
	c.Answer(request.Stream, answer)
}
