package rpc_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// TestServerTrailersOnly: an error of gRPC without anything before it is one frame, with the trailer's metadata; and what a handler has put into
// the header, or sent, goes before the trailer as ever.
func TestServerTrailersOnly(t *testing.T) {
	t.Parallel()
	handlers := connect.NewServer()
	serve := func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
		var request wrapperspb.StringValue
		if err := stream.Receive(&request); err != nil {
			return err
		}
		info, _ := connect.CallInfoForServerContext(ctx)
		for step := range strings.FieldsSeq(request.GetValue()) {
			switch step {
			case "header":
				info.ResponseHeader().Set("Colour", "blue")
			case "trailer":
				info.ResponseTrailer().Set("Size", "small")
			case "flush":
				_ = stream.SendHeaders()
			case "send":
				_ = stream.Send(&request)
			case "fail":
				return connect.Errorf(connect.CodeNotFound, "no word %q", "é")
			}
		}
		return nil
	}
	handlers.Register(connect.Method{Spec: specEcho, Handler: serve}, connect.Method{Spec: specSplit, Handler: serve})
	server := startServer(t, handlers, testConfig())
	for _, row := range []struct {
		stream    connect.StreamType
		steps     string
		oneFrame  bool
		messages  int
		wantState string
	}{
		{connect.StreamTypeUnary, "fail", true, 0, "5"},
		{connect.StreamTypeUnary, "trailer fail", true, 0, "5"},
		{connect.StreamTypeUnary, "header fail", false, 0, "5"},
		{connect.StreamTypeUnary, "header trailer fail", false, 0, "5"},
		{connect.StreamTypeUnary, "header trailer send", false, 1, "0"},
		{connect.StreamTypeServer, "trailer fail", true, 0, "5"},
		{connect.StreamTypeServer, "trailer", true, 0, "0"}, // a stream without messages
		{connect.StreamTypeServer, "flush fail", false, 0, "5"},
		{connect.StreamTypeServer, "header trailer send send fail", false, 2, "5"},
		{connect.StreamTypeServer, "trailer send", false, 1, "0"},
	} {
		t.Run(fmt.Sprintf("%s %s", row.stream, row.steps), func(t *testing.T) {
			t.Parallel()
			procedure := specEcho
			if row.stream == connect.StreamTypeServer {
				procedure = specSplit
			}
			message := "\x0a" + string(rune(len(row.steps))) + row.steps
			response, body := postGRPC(t, "http://"+server.Addr()+procedure.Procedure, "\x00\x00\x00\x00"+string(rune(len(message)))+message)
			status := response.Trailer
			if row.oneFrame {
				status = response.Header
				if len(response.Trailer) > 0 || response.Header.Get("Content-Length") != "" || body != "" {
					t.Errorf("trailer %v, Content-Length %q, body %q, want none", response.Trailer, response.Header.Get("Content-Length"), body)
				}
			} else if response.Header.Get("Grpc-Status") != "" {
				t.Errorf("header %v, want the status in the trailer", response.Header)
			}
			if got := status.Get("Grpc-Status"); got != row.wantState || strings.Count(body, row.steps) != row.messages {
				t.Errorf("status %q and %q, want %s and %d messages", got, body, row.wantState, row.messages)
			}
			if strings.Contains(row.steps, "fail") && status.Get("Grpc-Message") != "no word \"%C3%A9\"" {
				t.Errorf("message %q", status.Get("Grpc-Message"))
			}
			if got := response.Header.Get("Colour") != ""; got != strings.Contains(row.steps, "header") {
				t.Errorf("header %v", response.Header)
			}
			if got := status.Get("Size") != ""; got != strings.Contains(row.steps, "trailer") {
				t.Errorf("trailer %v of %v", status, response.Header)
			}
			if got := response.Header.Get("Content-Type"); got != "application/grpc" || response.StatusCode != http.StatusOK {
				t.Errorf("%d %s", response.StatusCode, got)
			}
			if row.stream != connect.StreamTypeUnary {
				return
			}
			client := rpcClient(t, server, 2, connecthttp.WithGRPC())
			if _, err := callText(t.Context(), client, specEcho, row.steps); strings.HasSuffix(row.steps, "fail") && connect.CodeOf(err) != connect.CodeNotFound {
				t.Errorf("a client: got %v, want not_found", err)
			}
		})
	}
}

// TestServerTrailersOnlyOfUnknown: the error of a method that its service does not have is one frame too.
func TestServerTrailersOnlyOfUnknown(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	response, body := postGRPC(t, "http://"+startServer(t, handlers, testConfig()).Addr()+"/test.v1.Words/Nothing", "\x00\x00\x00\x00\x00")
	if got := response.Header.Get("Grpc-Status"); got != "12" || len(response.Trailer) > 0 || body != "" {
		t.Errorf("status %q in the header %v, trailer %v, body %q; want 12 and nothing else", got, response.Header, response.Trailer, body)
	}
}

// TestServerStreamOutlivesItsHandler: what a goroutine of a handler sends after the handler has returned gets into nobody's answer.
func TestServerStreamOutlivesItsHandler(t *testing.T) {
	t.Parallel()
	const calls = 20
	streams := make(chan connect.ServerStream, calls)
	begun, sent := make(chan struct{}), make(chan struct{})
	handlers := connect.NewServer()
	handlers.Register(connect.Method{Spec: specStay, Handler: func(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
		streams <- stream
		return stream.Send(wrapperspb.String("alice's"))
	}}, connect.Method{Spec: specSplit, Handler: func(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
		close(begun)
		<-sent
		return stream.Send(wrapperspb.String("bob's"))
	}})
	client := rpcClient(t, startServer(t, handlers, testConfig()), 2, connecthttp.WithGRPC())
	for range calls {
		stream, err := client.CallServerStream(t.Context(), specStay, wrapperspb.String("x"))
		if err != nil {
			t.Fatal(err)
		}
		receiveAll(t, stream)
	}
	bobs := make(chan []string)
	go func() {
		defer close(bobs)
		stream, err := client.CallServerStream(t.Context(), specSplit, wrapperspb.String("x"))
		if err != nil {
			t.Error(err)
			return
		}
		bobs <- receiveAll(t, stream)
	}()
	<-begun
	for range calls {
		func() {
			defer func() { _ = recover() }() // net/http says that this is a mistake
			_ = (<-streams).Send(wrapperspb.String("alice's secret"))
		}()
	}
	close(sent)
	if got := <-bobs; !slices.Equal(got, []string{"bob's"}) {
		t.Errorf("bob's client got %q", got)
	}
}

// postGRPC sends a message in its frame by hand, and returns the answer, all of which has been read.
func postGRPC(t *testing.T, url, frame string) (response *http.Response, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(frame))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/grpc")
	if response, err = httpClient(t, 2, nil).Do(request); err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	read, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(read)
}
