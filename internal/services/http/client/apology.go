package client

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode"
)

// maxQuote is how many bytes of an apology are quoted, and apologyWait for how long they are waited for. They mostly come with the header.
const (
	maxQuote    = 200
	apologyWait = 50 * time.Millisecond
)

// Apology reads the first line of an error that is not the service's, if it is plain text: "no healthy upstream", or "Client sent an HTTP request to
// an HTTPS server.". A page is none. It is for a body that nobody else reads any more, and may close it.
func Apology(response *http.Response, body io.ReadCloser) string {
	contentType, _, _ := strings.Cut(response.Header.Get("Content-Type"), ";")
	if response.StatusCode == http.StatusOK || contentType != "" && contentType != "text/plain" || response.Header.Get("Content-Encoding") != "" {
		return ""
	}
	late := time.AfterFunc(apologyWait, func() { _ = body.Close() })
	defer late.Stop()
	text, _ := io.ReadAll(io.LimitReader(body, maxQuote)) // what came is as good without its end
	line, _, _ := bytes.Cut(bytes.TrimSpace(text), []byte("\n"))
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, string(line))
}
