package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"

	"github.com/0x1d/goplt/internal/services/grpc/client"
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
		{"415", 415, "text/plain", nil, nil, blocked, none},
		{"464", 464, "", nil, nil, blocked, none},
		{"505", 505, "text/html", nil, nil, blocked, none},
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

func TestEvidenceOfErrors(t *testing.T) {
	for _, row := range []struct {
		err  error
		want client.Evidence
	}{
		{http2.StreamError{Code: http2.ErrCodeProtocol}, client.Doubtful},
		{fmt.Errorf("round trip: %w", http2.StreamError{Code: http2.ErrCodeHTTP11Required}), client.Doubtful},
		{http2.StreamError{Code: http2.ErrCodeRefusedStream}, client.None},
		{http2.StreamError{Code: http2.ErrCodeInternal}, client.None},
		{http2.StreamError{Code: http2.ErrCodeCancel}, client.None},
		{http2.StreamError{Code: http2.ErrCodeNo}, client.None},
		{errors.New("stream error: stream ID 1; PROTOCOL_ERROR; received from peer"), client.None}, // a text is no evidence
		{io.ErrUnexpectedEOF, client.None},
		{context.DeadlineExceeded, client.None},
	} {
		if got := client.Failed(row.err); got != row.want {
			t.Errorf("%v: %d, want %d", row.err, got, row.want)
		}
	}
}
