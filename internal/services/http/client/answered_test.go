package client_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"go.uber.org/goleak"

	"github.com/0x1d/goplt/internal/services/http/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func zipped(text string) string {
	var buffer bytes.Buffer
	writer := gzip.NewWriter(&buffer)
	_, _ = writer.Write([]byte(text))
	_ = writer.Close()
	return buffer.String()
}

// TestAnswered: an answer is the service's if it has Connect's form, which of an error is more than that it is JSON. Nothing of it is lost.
func TestAnswered(t *testing.T) {
	const unimplemented = `{"code":"unimplemented","message":"no such method"}`
	details := `"details":[` + strings.Repeat(`{"type":"a.B","value":"AAAA"},`, 10_000) + `{"type":"a.B","value":"AAAA"}]`
	for _, row := range []struct {
		name        string
		status      int
		contentType string
		encoding    string
		body        string
		want        bool
	}{
		{"success", 200, "application/json", "", `{}`, true},
		{"success with a charset", 200, "application/json; charset=utf-8", "", `{}`, true},
		{"stream", 200, "application/connect+json", "", "\x02\x00\x00\x00\x02{}", true},
		{"page", 200, "text/html", "", `<html>`, false},
		{"page without a type", 200, "", "", `{}`, false},
		{"gRPC", 200, "application/grpc", "", "", false},
		{"another kind of JSON", 200, "application/jsonp", "", `{}`, false},
		{"error", 404, "application/json", "", unimplemented, true},
		{"error with a charset", 404, "application/json; charset=utf-8", "", unimplemented, true},
		{"error with another status", 502, "application/json", "", `{"code":"unauthenticated"}`, true},
		{"error with spaces", 500, "application/json", "", "\n {\n \"message\" : \"x\", \"code\" : \"data_loss\" }", true},
		{"code after the rest", 503, "application/json", "", `{"message":"{\"code\":1}","details":[{"code":2}],"code":"unavailable"}`, true},
		{"code before many details", 500, "application/json", "", `{"code":"internal",` + details + `}`, true},
		{"code after too many details", 500, "application/json", "", `{` + details + `,"code":"internal"}`, false},
		{"zipped error", 404, "application/json", "gzip", zipped(unimplemented), true},
		{"zipped error with many details", 500, "application/json", "gzip", zipped(`{"code":"internal",` + details + `}`), true},
		{"not zipped at all", 404, "application/json", "identity", unimplemented, true},
		{"not zipped, but said to be", 404, "application/json", "gzip", unimplemented, false},
		{"zipped in a way that nobody asked for", 404, "application/json", "br", unimplemented, false},
		{"gateway's message", 404, "application/json", "", `{"message":"no Route matched with those values"}`, false},
		{"gateway's message, zipped", 403, "application/json", "gzip", zipped(`{"message":"Forbidden"}`), false},
		{"gateway's error", 403, "application/json", "", `{"error":"forbidden"}`, false},
		{"gateway's error with a code inside", 404, "application/json", "", `{"error":{"code":"not_found","message":"x"}}`, false},
		{"gateway's status as a code", 404, "application/json", "", `{"code":404,"message":"x"}`, false},
		{"gRPC's number as a code", 404, "application/json", "", `{"code":"5","message":"x"}`, false},
		{"gRPC's name as a code", 404, "application/json", "", `{"code":"NOT_FOUND","message":"x"}`, false},
		{"a code that nobody knows", 404, "application/json", "", `{"code":"code_99","message":"x"}`, false},
		{"a code in capitals", 404, "application/json", "", `{"Code":"internal"}`, false},
		{"a code of another kind", 404, "application/json", "", `{"code":["internal"]}`, false},
		{"an object cut off", 502, "application/json", "", `{"message":"x`, false},
		{"an object cut off in its code", 502, "application/json", "", `{"code":"inter`, false},
		{"an object cut off before its code", 502, "application/json", "", `{"code"`, false},
		{"an object of another language", 502, "application/json", "", `{code:"internal"}`, false},
		{"no object", 502, "application/json", "", `["code","internal"]`, false},
		{"nothing", 502, "application/json", "", "", false},
		{"text", 502, "application/json", "", "bad gateway", false},
		{"error by another type", 404, "text/plain", "", unimplemented, false},
		{"error as a stream", 415, "application/connect+json", "", unimplemented, false},
		{"redirection", 302, "application/json", "", `{}`, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			body := &closing{Reader: strings.NewReader(row.body)}
			response := &http.Response{StatusCode: row.status, Body: body, Header: http.Header{
				"Content-Type": {row.contentType}, "Content-Encoding": {row.encoding},
			}}
			if got := client.Answered(response); got != row.want {
				t.Errorf("got %t, want %t", got, row.want)
			}
			if rest, err := io.ReadAll(response.Body); string(rest) != row.body || err != nil {
				t.Errorf("left %d bytes of %d, %v", len(rest), len(row.body), err)
			}
			if err := response.Body.Close(); err != nil || body.closed != 1 {
				t.Errorf("closed %d times: %v", body.closed, err)
			}
		})
	}
}

type closing struct {
	io.Reader

	closed int
}

func (c *closing) Close() error {
	c.closed++
	return nil
}

// TestAnsweredBroken: what keeps an error's body from being read is told to whoever reads it, after what came before.
func TestAnsweredBroken(t *testing.T) {
	for text, want := range map[string]bool{`{"code":"internal",`: true, `{"message":`: false} {
		once := iotest.TimeoutReader(io.MultiReader(strings.NewReader(text), strings.NewReader("more after the failure")))
		response := &http.Response{StatusCode: http.StatusInternalServerError, Body: io.NopCloser(once), Header: http.Header{"Content-Type": {"application/json"}}}
		if got := client.Answered(response); got != want {
			t.Errorf("%q: got %t, want %t", text, got, want)
		}
		for _, left := range []string{text, ""} {
			if rest, err := io.ReadAll(response.Body); string(rest) != left || !errors.Is(err, iotest.ErrTimeout) {
				t.Errorf("%q: read %q, %v", text, rest, err)
			}
		}
	}
}

// FuzzAnswered: whatever a peer sends, nothing panics, and nothing of it is lost.
func FuzzAnswered(f *testing.F) {
	f.Add(`{"code":"unimplemented","message":"x"}`, false)
	f.Add(`{"message":"x"}`, false)
	f.Add(zipped(`{"details":[{}],"code":"internal"}`), true)
	f.Fuzz(func(t *testing.T, body string, gzipped bool) {
		response := &http.Response{
			StatusCode: http.StatusNotFound, Body: io.NopCloser(strings.NewReader(body)), Header: http.Header{"Content-Type": {"application/json"}},
		}
		if gzipped {
			response.Header.Set("Content-Encoding", "gzip")
		}
		client.Answered(response)
		if rest, err := io.ReadAll(response.Body); string(rest) != body || err != nil {
			t.Errorf("left %q of %q, %v", rest, body, err)
		}
	})
}
