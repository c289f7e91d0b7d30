//go:build integration

package faults_test

import (
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/0x1d/goplt/pkg/servicestest"
)

// peerConn is a connection of an instance that speaks HTTP/2 frame by frame, and notes what it executes.
type peerConn struct {
	*servicestest.HTTP2Conn

	executions *ledger
}

func startPeer(t testing.TB, executions *ledger, serve func(number int, conn *peerConn)) *servicestest.HTTP2Server {
	t.Helper()
	return servicestest.StartHTTP2(t, func(conn *servicestest.HTTP2Conn) { serve(conn.Number, &peerConn{conn, executions}) })
}

// note notes a request as executed, and returns the ID of its call.
func (c *peerConn) note(request *servicestest.HTTP2Request) (id string) {
	// The ID of the call is the first field of either request: five bytes of gRPC, then the tag and the text.
	id, n := protowire.ConsumeString(request.Body.Bytes()[6:])
	if n < 0 {
		panic("a request without an ID")
	}
	c.executions.note(id)
	return id
}

// execute notes a request as executed and answers it.
func (c *peerConn) execute(request *servicestest.HTTP2Request) {
	id := c.note(request)
	var answer proto.Message = loginResponse(id)
	if request.Path() == "/goplt.auth.v1.AuthService/ValidateToken" {
		answer = validateResponse(id)
	}
	c.Answer(request.Stream, answer)
}
