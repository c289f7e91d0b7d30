package client

import (
	"bytes"
	"net/http"
	"strings"
	"unicode"
)

// maxQuote is how many bytes of an apology are quoted.
const maxQuote = 200

// Apology returns the first line of an error that is not the service's, if it is plain text: "no healthy upstream", or "Client sent an HTTP request
// to an HTTPS server.". A page is none, nor is a text of unknown length, which might have to be waited for, unless it ends with the connection as by
// HTTP/1.0. Whoever reads the response gets it all the same.
func Apology(response *http.Response) string {
	contentType, _, _ := strings.Cut(response.Header.Get("Content-Type"), ";")
	switch {
	case response.StatusCode == http.StatusOK, contentType != "" && contentType != "text/plain", response.Header.Get("Content-Encoding") != "",
		response.ContentLength > maxPeek, response.ContentLength < 0 && response.ProtoAtLeast(1, 1):
		return ""
	}
	line, _, _ := bytes.Cut(bytes.TrimSpace(peek(response)), []byte("\n"))
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, string(line[:min(len(line), maxQuote)]))
}
