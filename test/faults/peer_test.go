//go:build integration

package faults_test

import (
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/0x1d/goplt/internal/h2test"
)

// peerConn is a connection of an instance that speaks HTTP/2 frame by frame, and notes what it executes.
type peerConn struct {
	*h2test.Conn

	executions *ledger
}

func startPeer(t testing.TB, executions *ledger, serve func(number int, conn *peerConn)) *h2test.Peer {
	t.Helper()
	return h2test.Start(t, func(number int, conn *h2test.Conn) { serve(number, &peerConn{conn, executions}) })
}

// execute notes a request as executed and answers it.
func (c *peerConn) execute(request *h2test.Request) {
	// The ID of the call is the first field of either request: five bytes of gRPC, then the tag and the text.
	id, n := protowire.ConsumeString(request.Body.Bytes()[6:])
	if n < 0 {
		panic("a request without an ID")
	}
	c.executions.note(id)
	var answer proto.Message = loginResponse(id)
	if request.Header.Get(":path") == "/goplt.auth.v1.AuthService/ValidateToken" {
		answer = validateResponse(id)
	}
	c.Answer(request.Stream, answer)
}
