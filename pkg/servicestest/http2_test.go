package servicestest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/0x1d/goplt/pkg/servicestest"
)

// grpcPost makes a gRPC call by net/http and nothing else.
func grpcPost(t *testing.T, client *http.Client, url string) (*answered, error) {
	t.Helper()
	return post(t, client, url, grpcType)
}

// serveWell answers every request with the number of its connection and its stream.
func serveWell(conn *servicestest.HTTP2Conn) {
	for request, ok := conn.Next(); ok; request, ok = conn.Next() {
		conn.Answer(request.Stream, wrapperspb.String(fmt.Sprintf("%d/%d", conn.Number, request.Stream)))
	}
}

func TestHTTP2Answer(t *testing.T) {
	server := servicestest.StartHTTP2(t, func(conn *servicestest.HTTP2Conn) {
		if !conn.Greet() {
			return
		}
		for request, ok := conn.Next(); ok; request, ok = conn.Next() {
			if request.Path() != procedure || request.Header.Get("TE") != "trailers" || request.Body.String() != "a request" {
				conn.End(request.Stream, 13)
				continue
			}
			conn.Answer(request.Stream, wrapperspb.String("fine"))
		}
	})
	client := speaking(t, "HTTP/2.0")
	for range 2 {
		got, err := grpcPost(t, client, server.URL)
		if err != nil || got.err != nil {
			t.Fatal(got, err)
		}
		want := string(binary.BigEndian.AppendUint32([]byte{0}, 6)) + "\n\x04fine"
		if got.body != want || got.Trailer.Get("Grpc-Status") != "0" || got.Header.Get("Content-Type") != "application/grpc" {
			t.Errorf("got %q, trailers %v, headers %v", got.body, got.Trailer, got.Header)
		}
	}
	if accepted, open, requests := server.Accepted.Load(), server.Open.Load(), server.Requests.Load(); accepted != 1 || open != 1 || requests != 2 {
		t.Errorf("%d connections, %d open, %d requests, want 1, 1 and 2", accepted, open, requests)
	}
	client.CloseIdleConnections()
	awaitThat(t, "the connection to end", func() bool { return server.Open.Load() == 0 })
}

// TestHTTP2Refused: net/http sends again what was refused, and only that.
func TestHTTP2Refused(t *testing.T) {
	for code, again := range map[http2.ErrCode]bool{http2.ErrCodeRefusedStream: true, http2.ErrCodeInternal: false, http2.ErrCodeCancel: false} {
		t.Run(code.String(), func(t *testing.T) {
			server := servicestest.StartHTTP2(t, func(conn *servicestest.HTTP2Conn) {
				conn.Greet()
				if request, ok := conn.NextHeaders(); ok { // before net/http has sent the body, which it could not send again
					conn.Reset(request.Stream, code)
				}
				serveWell(conn)
			})
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+procedure, strings.NewReader("a request"))
			if err != nil {
				t.Fatal(err)
			}
			response, err := speaking(t, "HTTP/2.0").Do(request)
			if err == nil {
				response.Body.Close()
			}
			if (err == nil) != again || (err != nil && !strings.Contains(err.Error(), code.String())) {
				t.Errorf("got %v, want it to name the code, or none if the request is sent again", err)
			}
		})
	}
}

func TestHTTP2GoAway(t *testing.T) {
	server := servicestest.StartHTTP2(t, func(conn *servicestest.HTTP2Conn) {
		conn.Greet()
		request, ok := conn.Next()
		if !ok {
			return
		}
		conn.GoAway(request.Stream, http2.ErrCodeNo)
		conn.Answer(request.Stream, wrapperspb.String("last")) // which it may still be given
		conn.Drain()
	})
	client := speaking(t, "HTTP/2.0")
	for number := range int64(3) {
		if got, err := grpcPost(t, client, server.URL); err != nil || got.err != nil || got.Trailer.Get("Grpc-Status") != "0" {
			t.Fatal(got, err)
		}
		if accepted := server.Accepted.Load(); accepted != number+1 {
			t.Errorf("%d connections after %d calls, want one for each", accepted, number+1)
		}
		awaitThat(t, "the client to leave", func() bool { return server.Open.Load() == 0 })
	}
}

// TestHTTP2WithoutSettings: a server that says nothing is a matter of the client's patience.
func TestHTTP2WithoutSettings(t *testing.T) {
	server := servicestest.StartHTTP2(t, func(conn *servicestest.HTTP2Conn) { conn.Drain() })
	conn := dialLines(t, server.Addr)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	conn.expectNothing(t)
}

func TestHTTP2CutOff(t *testing.T) {
	for name, cut := range map[string]func(conn *servicestest.HTTP2Conn, stream uint32){
		"within the message": func(conn *servicestest.HTTP2Conn, stream uint32) {
			conn.Data(stream, false, []byte{0, 0, 0, 0, 9, 'p', 'a'})
		},
		"reset": func(conn *servicestest.HTTP2Conn, _ uint32) { conn.Abort() },
		"not HTTP/2": func(conn *servicestest.HTTP2Conn, _ uint32) {
			_, _ = conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
		},
		"an invalid frame": func(conn *servicestest.HTTP2Conn, _ uint32) {
			_ = conn.Framer.WriteRawFrame(http2.FramePing, 0, 0, []byte("short"))
		},
		"no status": func(conn *servicestest.HTTP2Conn, stream uint32) { conn.Data(stream, true, []byte{0, 0, 0, 0, 0}) },
	} {
		t.Run(name, func(t *testing.T) {
			server := servicestest.StartHTTP2(t, func(conn *servicestest.HTTP2Conn) {
				conn.Greet()
				if request, ok := conn.Next(); ok {
					conn.Begin(request.Stream)
					cut(conn, request.Stream)
				}
			})
			got, err := grpcPost(t, speaking(t, "HTTP/2.0"), server.URL)
			switch {
			case name == "no status":
				if err != nil || got.err != nil || len(got.Trailer) > 0 {
					t.Errorf("got %v, %v, want an end without trailers", got, err)
				}
			case err == nil && got.err == nil:
				t.Errorf("got %v, want an error", got)
			case name == "within the message" && (err != nil || len(got.body) != 7):
				t.Errorf("got %v, %v, want 7 bytes", got, err)
			case name == "reset" && err != nil && !errors.Is(err, syscall.ECONNRESET):
				t.Errorf("got %v, want a reset", err)
			}
		})
	}
}

// TestHTTP2EarlyResponse: the response begins before the request has been sent, of which there is more than fits into a window.
func TestHTTP2EarlyResponse(t *testing.T) {
	const size = 1 << 20
	arrived := make(chan int, 1)
	server := servicestest.StartHTTP2(t, func(conn *servicestest.HTTP2Conn) {
		conn.Greet()
		early, ok := conn.NextHeaders()
		if !ok {
			return
		}
		conn.Headers(early.Stream, false, ":status", "200", "content-type", "text/plain")
		if whole, ok := conn.Next(); ok && whole == early {
			arrived <- whole.Body.Len()
		}
		conn.Data(early.Stream, true, bytes.Repeat([]byte("no"), 16<<10)) // in frames of 16 KiB
		conn.Drain()
	})
	out, in := io.Pipe()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	defer context.AfterFunc(ctx, func() { out.CloseWithError(ctx.Err()) })() // or a window that never opens would hold the test
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+procedure, out)
	if err != nil {
		t.Fatal(err)
	}
	response, err := speaking(t, "HTTP/2.0").Do(request) // begins before the first byte of the body was written
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if _, err := in.Write(make([]byte, size)); err != nil || in.Close() != nil {
		t.Fatal(err)
	}
	got := 0
	select {
	case got = <-arrived:
	case <-ctx.Done():
	}
	if got != size || response.StatusCode != http.StatusOK {
		t.Errorf("%d bytes arrived, status %s, want %d and 200", got, response.Status, size)
	}
	if body, err := io.ReadAll(response.Body); len(body) != 32<<10 || err != nil {
		t.Errorf("%d bytes of a response, %v, want 32 KiB", len(body), err)
	}
}

// TestHTTP2NextHeadersAgain: each call returns another request, though none was asked for as a whole in between.
func TestHTTP2NextHeadersAgain(t *testing.T) {
	server := servicestest.StartHTTP2(t, func(conn *servicestest.HTTP2Conn) {
		conn.Greet()
		for range 3 {
			if request, ok := conn.NextHeaders(); ok {
				conn.Answer(request.Stream, wrapperspb.String(fmt.Sprintf("%d/%d", conn.Number, request.Stream)))
			}
		}
		conn.Drain()
	})
	client := speaking(t, "HTTP/2.0")
	for _, want := range []string{"1/1", "1/3", "1/5"} {
		got, err := grpcPost(t, client, server.URL)
		if err != nil || got.err != nil || !strings.HasSuffix(got.body, want) {
			t.Fatalf("got %+v, %v, want the answer %s", got, err, want)
		}
	}
}

// TestHTTP2Frames: the server's SETTINGS are the script's, and a script that waits for requests answers pings.
func TestHTTP2Frames(t *testing.T) {
	server := servicestest.StartHTTP2(t, func(conn *servicestest.HTTP2Conn) {
		conn.Greet(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
		serveWell(conn)
	})
	conn := dialLines(t, server.Addr)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	if err := errors.Join(framer.WriteSettings(), framer.WriteData(7, true, []byte("of no request")), framer.WritePing(false, [8]byte{1})); err != nil {
		t.Fatal(err)
	}
	var limit uint32
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if value, ok := frame.Value(http2.SettingMaxConcurrentStreams); ok {
				limit = value
			}
		case *http2.PingFrame:
			if !frame.IsAck() || frame.Data != [8]byte{1} || limit != 1 {
				t.Errorf("got %v after a limit of %d streams, want its acknowledgement and 1", frame, limit)
			}
			return
		}
	}
}
