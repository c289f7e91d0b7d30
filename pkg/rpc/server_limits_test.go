package rpc_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"golang.org/x/net/http2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func TestServerMessageSizes(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	config := testConfig()
	config.MaxReceiveBytes, config.MaxSendBytes = 1000, 2000
	server := startServer(t, handlers, config)

	t.Run("JSON request", func(t *testing.T) {
		t.Parallel()
		url := baseURL(server, nil) + specEcho.Procedure
		status, body, _ := post(t, httpClient(t, 1, nil), http.MethodPost, url, "application/json", `"`+strings.Repeat("x", 998)+`"`)
		if status != http.StatusOK {
			t.Errorf("request of 1000 bytes: got %d %s", status, body)
		}
		status, body, _ = post(t, httpClient(t, 1, nil), http.MethodPost, url, "application/json", `"`+strings.Repeat("x", 999)+`"`)
		want := `{"code":"resource_exhausted","message":"message is larger than configured max 1000"}`
		if status != http.StatusTooManyRequests || body != want {
			t.Errorf("request of 1001 bytes: got %d %s, want 429 %s", status, body, want)
		}
	})
	for _, row := range []struct {
		name, text, want string
		option           connecthttp.Option
	}{
		{"gRPC request", strings.Repeat("x", 998), "message size 1001 is larger than configured max 1000", connecthttp.WithCompressors()},
		{"gRPC request that expands", strings.Repeat("x", 100_000), "message is larger than configured max 1000", connecthttp.WithSendGzip()},
		{"gRPC response", "grow 2000", "message size 2003 exceeds sendMaxBytes 2000", connecthttp.WithCompressors()},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			_, err := callText(t.Context(), rpcClient(t, server, 2, connecthttp.WithGRPC(), row.option), specEcho, row.text)
			if connect.CodeOf(err) != connect.CodeResourceExhausted || err.Error() != "resource_exhausted: "+row.want {
				t.Errorf("got %v\nwant resource_exhausted: %s", err, row.want)
			}
		})
	}
	t.Run("within the bounds", func(t *testing.T) {
		t.Parallel()
		answer, err := callText(t.Context(), rpcClient(t, server, 2, connecthttp.WithGRPC(), connecthttp.WithCompressors()), specEcho, "grow 1997")
		if err != nil || len(answer) != 1997 {
			t.Errorf("response of 2000 bytes: got %d, %v", len(answer), err)
		}
	})
}

// TestServerCompression: answers are compressed from CompressMinBytes on, for clients that accept it, and never below.
func TestServerCompression(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	byDefault := startServer(t, handlers, testConfig())
	config := testConfig()
	config.CompressMinBytes = 100
	early := startServer(t, handlers, config)

	for _, row := range []struct {
		name       string
		url        string
		text       string
		compressed bool
	}{
		{"1023 bytes", baseURL(byDefault, nil), "grow 1021", false},
		{"1024 bytes", baseURL(byDefault, nil), "grow 1022", true},
		{"99 bytes, from 100", baseURL(early, nil), "grow 97", false},
		{"100 bytes, from 100", baseURL(early, nil), "grow 98", true},
	} {
		t.Run("JSON "+row.name, func(t *testing.T) {
			t.Parallel()
			_, _, header := do(t, httpClient(t, 1, nil), row.url+specEcho.Procedure, strings.NewReader(`"`+row.text+`"`),
				"Content-Type", "application/json", "Accept-Encoding", "gzip")
			if got := header.Get("Content-Encoding") == "gzip"; got != row.compressed {
				t.Errorf("compressed: %t, want %t", got, row.compressed)
			}
		})
	}
	for _, row := range []struct {
		text       string
		compressed byte
	}{{"grow 1020", 0}, {"grow 1021", 1}} { // and 3 bytes of protobuf
		t.Run("gRPC "+row.text, func(t *testing.T) {
			t.Parallel()
			message, err := proto.Marshal(wrapperspb.String(row.text))
			if err != nil {
				t.Fatal(err)
			}
			frame := append([]byte{0}, binary.BigEndian.AppendUint32(nil, uint32(len(message)))...)
			_, answer, _ := do(t, httpClient(t, 2, nil), baseURL(byDefault, nil)+specEcho.Procedure, bytes.NewReader(append(frame, message...)),
				"Content-Type", "application/grpc", "Grpc-Accept-Encoding", "gzip", "Te", "trailers")
			if len(answer) < 5 || answer[0] != row.compressed {
				t.Errorf("frame: got % x…, want the flag %d", answer[:min(5, len(answer))], row.compressed)
			}
		})
	}
	t.Run("client that does not accept it", func(t *testing.T) {
		t.Parallel()
		_, _, header := do(t, httpClient(t, 1, nil), baseURL(byDefault, nil)+specEcho.Procedure, strings.NewReader(`"grow 5000"`),
			"Content-Type", "application/json")
		if got := header.Get("Content-Encoding"); got != "" {
			t.Errorf("Content-Encoding: got %q, want none", got)
		}
	})
}

func TestServerHeaderSize(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	server := startServer(t, handlers, testConfig())
	for _, version := range []int{1, 2} {
		for size, want := range map[int]int{32 << 10: http.StatusOK, 128 << 10: http.StatusRequestHeaderFieldsTooLarge} {
			client := httpClient(t, version, nil)
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, baseURL(server, nil)+specEcho.Procedure, strings.NewReader(`"x"`))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Content-Type", "application/json")
			request.Header.Set("Padding", strings.Repeat("x", size))
			response, err := client.Do(request)
			if version == 2 && want != http.StatusOK && err != nil {
				continue // Go's client refuses by the server's SETTINGS before it sends anything.
			}
			if err != nil {
				t.Fatalf("HTTP/%d, header of %d bytes: %v", version, size, err)
			}
			_ = response.Body.Close()
			if response.StatusCode != want {
				t.Errorf("HTTP/%d, header of %d bytes: got %d, want %d", version, size, response.StatusCode, want)
			}
		}
	}
}

// TestServerMaxConcurrentStreams reads the bound from the SETTINGS that the server opens each HTTP/2 connection with.
func TestServerMaxConcurrentStreams(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	config := testConfig()
	config.MaxConcurrentStreams = 7
	server := startServer(t, handlers, config)
	connection, err := new(net.Dialer).DialContext(t.Context(), "tcp", server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	framer := http2.NewFramer(connection, connection)
	_, err = io.WriteString(connection, http2.ClientPreface)
	if err := errors.Join(err, framer.WriteSettings()); err != nil {
		t.Fatal(err)
	}
	frame, err := framer.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	settings, ok := frame.(*http2.SettingsFrame)
	if !ok {
		t.Fatalf("first frame: got %v, want SETTINGS", frame)
	}
	if got, _ := settings.Value(http2.SettingMaxConcurrentStreams); got != 7 {
		t.Errorf("SETTINGS_MAX_CONCURRENT_STREAMS: got %d, want 7", got)
	}
}
