//go:build integration

package faults_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	connectrpc "connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// The uploads service takes bytes, in one message or in many, and answers with what it has read of them.
var (
	specPut       = connectrpc.Spec{Procedure: "/test.v1.UploadsService/Put"}
	specPutStream = connectrpc.Spec{Procedure: "/test.v1.UploadsService/PutStream", StreamType: connectrpc.StreamTypeClient}
)

const (
	// pieces of pieceSize are what a stream uploads, and wholeSize what a message does.
	pieces, pieceSize = 32, 64 << 10
	wholeSize         = 1 << 20
	// tooMany are more pieces than a connection holds that nobody reads.
	tooMany = 1024
	// window is how much the service's side of a connection holds.
	window = 64 << 10
)

// material is what uploads are cut from.
var material = sync.OnceValue(func() []byte { return []byte(incompressible(wholeSize)) })

// piece is what is uploaded at a time. No two are alike.
func piece(number, size int) []byte {
	return binary.BigEndian.AppendUint64(slices.Clone(material()[:size-8]), uint64(number))
}

// manner is how an uploads service answers.
type manner string

const (
	atLast    manner = "at last"          // when it has read everything
	greeting  manner = "headers at first" // and the rest when it has read everything
	enough    manner = "early"            // when it has read the first piece
	refusing  manner = "early, refusing"  // the same, with an error
	unreading manner = "at once"          // with an error, before it has read anything
)

var errRefused = connectrpc.NewError(connectrpc.CodePermissionDenied, "nobody may upload that")

// startUploads starts an uploads service, and returns its address and the count of its executions.
func startUploads(t *testing.T, answers manner) (addr string, executions *servicestest.Executions) {
	t.Helper()
	executions = servicestest.NewExecutions()
	handlers := connectrpc.NewServer(executions.CountExecutions())
	serve := func(_ context.Context, spec connectrpc.Spec, stream connectrpc.ServerStream) error {
		if answers == unreading {
			return errRefused
		}
		if answers == greeting {
			if err := stream.SendHeaders(); err != nil {
				return err
			}
		}
		read := sha256.New()
		for {
			var message wrapperspb.BytesValue
			err := stream.Receive(&message)
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			_, _ = read.Write(message.GetValue())
			switch {
			case answers == refusing:
				return errRefused
			case answers == enough || err != nil || spec.StreamType == connectrpc.StreamTypeUnary:
				return stream.Send(wrapperspb.String(hex.EncodeToString(read.Sum(nil))))
			}
		}
	}
	handlers.Register(connectrpc.Method{Spec: specPut, Handler: serve}, connectrpc.Method{Spec: specPutStream, Handler: serve})
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := rpc.DefaultServerConfig()
	config.RequestTimeout = within
	quiet := rpc.WithServerLogger(slog.New(slog.DiscardHandler))
	server, err := rpc.NewServer(handlers, rpc.WithListener(narrowListener{listener}), rpc.WithServerConfig(config), quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { (&instance{Server: server}).halt(t) })
	return server.Addr(), executions
}

// narrowListener accepts connections whose buffers are small, so that what is not read soon keeps its sender waiting.
type narrowListener struct{ net.Listener }

// Accept implements [net.Listener].
func (l narrowListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if narrow, ok := conn.(*net.TCPConn); ok {
		_ = narrow.SetReadBuffer(window) // at worst, more fits
	}
	return conn, err
}

// lingering is for how long net/http's server, over HTTP/1.1, lets an answer be heard that it has given before it had read the request. Where the
// machine is busy with other things for longer, the answer is lost with the connection.
const lingering = 500 * time.Millisecond

// upload uploads a message, or so many. It does so in the manner of generated clients, which send until they are told that nobody listens any more,
// and then ask for the answer.
func upload(t *testing.T, transport *rpc.Transport, spec connectrpc.Spec, pieces int) (answer, id string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	ctx, info := connectrpc.NewClientContext(ctx)
	id = servicestest.NewCallID()
	info.RequestHeader().Set(servicestest.CallIDHeader, id)
	client := connectrpc.NewClient(transport)
	var response wrapperspb.StringValue
	if spec.StreamType == connectrpc.StreamTypeUnary {
		err = client.CallUnary(ctx, spec, wrapperspb.Bytes(piece(0, wholeSize)), &response)
		return response.GetValue(), id, err
	}
	stream, err := client.CallClientStream(ctx, spec)
	if err != nil {
		return "", id, err
	}
	defer func() { _ = stream.Close() }()
	for number := range pieces {
		if err := stream.Send(wrapperspb.Bytes(piece(number, pieceSize))); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return "", id, err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return "", id, err
	}
	err = stream.Receive(&response)
	return response.GetValue(), id, err
}

// hashOf returns what a service answers that has read so many pieces.
func hashOf(pieces, size int) string {
	read := sha256.New()
	for number := range pieces {
		_, _ = read.Write(piece(number, size))
	}
	return hex.EncodeToString(read.Sum(nil))
}

// TestRow41Upload: large uploads, in a message and in a stream, to a service that answers when it has read everything, or before.
func TestRow41Upload(t *testing.T) {
	t.Parallel()
	for _, spoken := range byBoth {
		for _, spec := range []connectrpc.Spec{specPut, specPutStream} {
			for _, answers := range []manner{atLast, greeting, enough, refusing, unreading} {
				t.Run(strings.Join([]string{string(spokenBy(spoken)), spec.StreamType.String(), string(answers)}, " "), func(t *testing.T) {
					row(t)
					addr, executions := startUploads(t, answers)
					transport := reach(t, inMemory(speaking(spoken), unhurried), addr)
					heard, tries := 0, 0
					for ; heard < 2 && tries < 6; tries++ {
						if expectUpload(t, transport, executions, spec, answers) {
							heard++
						}
					}
					if heard < 2 {
						t.Errorf("%d of %d answers were heard", heard, tries)
					}
					if heard == tries {
						expectUntouched(t, transport, spokenBy(spoken))
					}
				})
			}
		}
	}
}

// expectUpload reports false if the machine was too busy for an early answer to be heard.
func expectUpload(t *testing.T, transport *rpc.Transport, executions *servicestest.Executions, spec connectrpc.Spec, answers manner) (heard bool) {
	t.Helper()
	began := time.Now()
	most := pieces
	if early := answers == enough || answers == refusing || answers == unreading; early {
		most = tooMany
	}
	answer, id, err := upload(t, transport, spec, most)
	if got := executions.Of(id); got != 1 {
		t.Errorf("executed %d times, want once", got)
	}
	want := hashOf(1, wholeSize)
	if spec.StreamType == connectrpc.StreamTypeClient {
		want = hashOf(map[bool]int{true: 1, false: pieces}[answers == enough], pieceSize)
	}
	failure, failed := errors.AsType[*connectrpc.Error](err)
	switch {
	case failed && answers != atLast && !failure.IsRemote() && failure.Code() == connectrpc.CodeUnavailable &&
		stalls.Between(began, time.Now()) > lingering:
		t.Logf("too busy a machine: %v", err)
		return false
	case answers == refusing || answers == unreading:
		if !failed || failure.Code() != errRefused.Code() || failure.Message() != errRefused.Message() {
			t.Errorf("got %v, want the service's word", err)
		}
	case err != nil:
		t.Error(err)
	case answer != want:
		t.Error("the service has read other bytes than were sent")
	}
	return true
}

// TestRow41Gateway: something before the service answers in its place, before it has read much of the upload.
func TestRow41Gateway(t *testing.T) {
	t.Parallel()
	for _, spoken := range byBoth {
		for _, spec := range []connectrpc.Spec{specPut, specPutStream} {
			t.Run(string(spokenBy(spoken))+" "+spec.StreamType.String(), func(t *testing.T) {
				row(t)
				addr, executions := startUploads(t, atLast)
				gateway := servicestest.StartHTTPProxy(t, addr)
				transport := reach(t, inMemory(speaking(spoken), unhurried), gateway.Addr)
				for range 2 {
					gateway.InjectStatus("uploads", http.StatusForbidden, servicestest.Times(1))
					_, id, err := upload(t, transport, spec, tooMany)
					if connectrpc.CodeOf(err) != connectrpc.CodePermissionDenied || executions.Of(id) != 0 {
						t.Errorf("executed %d times, got %v, want what the gateway said", executions.Of(id), err)
					}
					answer, id, err := upload(t, transport, spec, pieces)
					if err != nil || answer == "" || executions.Of(id) != 1 {
						t.Errorf("executed %d times, got %q, %v", executions.Of(id), answer, err)
					}
				}
				expectAtRest(t, transport)
			})
		}
	}
}
