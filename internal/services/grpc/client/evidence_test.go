package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"

	"github.com/0x1d/goplt/internal/services/grpc/client"
	"github.com/0x1d/goplt/pkg/servicestest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEvidenceOfResponses(t *testing.T) {
	const none, works, blocked, doubtful = client.None, client.Works, client.Blocked, client.Doubtful
	status := http.Header{"Grpc-Status": {"13"}}
	for _, row := range []struct {
		name            string
		code            int
		contentType     string
		header, trailer http.Header
		begun, ended    client.Evidence
	}{
		{"trailers", 200, "application/grpc", nil, status, none, works},
		{"trailers, with a codec", 200, "application/grpc+proto", nil, status, none, works},
		{"trailers only", 200, "application/grpc", status, nil, works, works},
		{"a status of 0 is one", 200, "application/grpc", nil, http.Header{"Grpc-Status": {"0"}}, none, works},
		{"no trailers", 200, "application/grpc", nil, nil, none, doubtful},
		{"other trailers", 200, "application/grpc;charset=utf-8", nil, http.Header{"X": {"y"}}, none, doubtful},
		{"a page", 200, "text/html", nil, nil, doubtful, doubtful},
		{"gRPC-Web", 200, "application/grpc-web+proto", nil, nil, doubtful, doubtful},
		{"no content type", 200, "", nil, nil, doubtful, doubtful},
		{"a page with a status", 200, "text/html", status, nil, works, works},
		{"415", 415, "text/plain", nil, nil, blocked, blocked},
		{"464", 464, "", nil, nil, blocked, blocked},
		{"505", 505, "text/html", nil, nil, blocked, blocked},
		{"415 with a status in the end", 415, "text/html", nil, status, blocked, works},
		{"415 with a status", 415, "text/html", status, nil, works, works},
		{"415 by gRPC", 415, "application/grpc", nil, nil, none, none},
		{"204", 204, "", nil, nil, none, none},
		{"401", 401, "text/html", nil, nil, none, none},
		{"404", 404, "text/html", nil, nil, none, none},
		{"429", 429, "text/html", nil, nil, none, none},
		{"502", 502, "text/html", nil, nil, none, none},
		{"502 with a status", 502, "text/html", status, nil, works, works},
		{"503 by gRPC", 503, "application/grpc", nil, nil, none, none},
		{"504", 504, "text/html", nil, nil, none, none},
	} {
		t.Run(row.name, func(t *testing.T) {
			response := &http.Response{StatusCode: row.code, Header: http.Header{"Content-Type": {row.contentType}}, Trailer: row.trailer}
			maps.Copy(response.Header, row.header)
			if got := client.Begun(response); got != row.begun {
				t.Errorf("begun: %d, want %d", got, row.begun)
			}
			if got := client.Ended(response); got != row.ended {
				t.Errorf("ended: %d, want %d", got, row.ended)
			}
		})
	}
}

// TestEvidenceOfErrors: only what the peer says of a stream is evidence. TestEvidenceOfStreams provokes it.
func TestEvidenceOfErrors(t *testing.T) {
	byPeer := errors.New("received from peer")
	for _, row := range []struct {
		err  error
		want client.Evidence
	}{
		{http2.StreamError{Code: http2.ErrCodeProtocol, Cause: byPeer}, client.Doubtful},
		{fmt.Errorf("round trip: %w", http2.StreamError{Code: http2.ErrCodeHTTP11Required, Cause: byPeer}), client.Doubtful},
		{http2.StreamError{Code: http2.ErrCodeRefusedStream, Cause: byPeer}, client.None},
		{http2.StreamError{Code: http2.ErrCodeInternal, Cause: byPeer}, client.None},
		{http2.StreamError{Code: http2.ErrCodeCancel, Cause: byPeer}, client.None},
		{http2.StreamError{Code: http2.ErrCodeNo, Cause: byPeer}, client.None},
		{http2.StreamError{Code: http2.ErrCodeProtocol}, client.None},
		{http2.StreamError{Code: http2.ErrCodeProtocol, Cause: errors.New("header list too large")}, client.None},
		{errors.New("stream error: stream ID 1; PROTOCOL_ERROR; received from peer"), client.None}, // a text is no evidence
		{io.ErrUnexpectedEOF, client.None},
		{context.DeadlineExceeded, client.None},
	} {
		if got := client.Failed(row.err); got != row.want {
			t.Errorf("%v: %d, want %d", row.err, got, row.want)
		}
	}
}

// TestEvidenceOfStreams: net/http ends a stream with one and the same error, be it that the peer reset it, or that its answer is not fit to be taken.
func TestEvidenceOfStreams(t *testing.T) {
	const limit = 1 << 10 // of a response's headers
	for _, row := range []struct {
		name   string
		answer func(conn *servicestest.HTTP2Conn, stream uint32)
		want   client.Evidence
	}{
		{"PROTOCOL_ERROR", func(conn *servicestest.HTTP2Conn, stream uint32) { conn.Reset(stream, http2.ErrCodeProtocol) }, client.Doubtful},
		{"HTTP_1_1_REQUIRED", func(conn *servicestest.HTTP2Conn, stream uint32) { conn.Reset(stream, http2.ErrCodeHTTP11Required) }, client.Doubtful},
		{"headers too large", func(conn *servicestest.HTTP2Conn, stream uint32) {
			half := strings.Repeat("x", limit/2) // a single field too large ends the connection
			conn.Headers(stream, true, ":status", "200", "content-type", "application/grpc", "a", half, "b", half, "c", half)
		}, client.None},
		{"no status", func(conn *servicestest.HTTP2Conn, stream uint32) { conn.Headers(stream, true, "x", "y") }, client.None},
		{"a header that is none", func(conn *servicestest.HTTP2Conn, stream uint32) {
			conn.Headers(stream, true, ":status", "200", "x y", "z")
		}, client.None},
		{"a body without headers", func(conn *servicestest.HTTP2Conn, stream uint32) { conn.Data(stream, true, []byte("x")) }, client.None},
	} {
		t.Run(row.name, func(t *testing.T) {
			server := servicestest.StartHTTP2(t, func(conn *servicestest.HTTP2Conn) {
				conn.Greet()
				for request, ok := conn.Next(); ok; request, ok = conn.Next() {
					row.answer(conn, request.Stream)
				}
			})
			transport := &http.Transport{Protocols: new(http.Protocols), MaxResponseHeaderBytes: limit}
			transport.Protocols.SetUnencryptedHTTP2(true)
			conn, err := transport.NewClientConn(t.Context(), "http", server.Addr) // the transport itself would try again
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, strings.NewReader("request"))
			if err != nil {
				t.Fatal(err)
			}
			response, err := conn.RoundTrip(request)
			if err == nil {
				_ = response.Body.Close()
				t.Fatalf("got the answer %s, want none", response.Status)
			}
			if reset, ok := errors.AsType[http2.StreamError](err); !ok || reset.Code != http2.ErrCodeProtocol && reset.Code != http2.ErrCodeHTTP11Required {
				t.Errorf("got %v, want a stream that was reset", err)
			}
			if got := client.Failed(err); got != row.want {
				t.Errorf("%v: %d, want %d", err, got, row.want)
			}
		})
	}
}
