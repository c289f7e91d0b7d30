package client

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"connectrpc.com/connect/v2"
)

// Answered reports whether a response is a Connect server's own, and not that of something on the way to it: a message or a stream in JSON, or a
// Connect error (https://connectrpc.com/docs/protocol#unary-response). That an error is JSON does not make it one, and neither does its HTTP status:
// gateways answer {"message":"no route"} with any status, and a Connect server may answer 404 with the code unimplemented. It has a code of Connect's
// (https://connectrpc.com/docs/protocol#error-end-stream), which is looked for in what it begins with. Whoever reads the response gets that all the
// same.
func Answered(response *http.Response) bool {
	contentType, _, _ := strings.Cut(response.Header.Get("Content-Type"), ";")
	if response.StatusCode == http.StatusOK {
		return contentType == "application/json" || contentType == "application/connect+json"
	}
	return contentType == "application/json" && hasCode(peek(response), response.Header.Get("Content-Encoding"))
}

// maxPeek bounds what is looked at of an error's body, before and after decompression. The code usually comes first, and details of any size may
// follow.
const maxPeek = 64 << 10

// peek returns what a response's body begins with, all of it if it is no longer than maxPeek, and leaves the body as if nothing had been read.
func peek(response *http.Response) []byte {
	body := response.Body
	beginning, err := io.ReadAll(io.LimitReader(body, maxPeek))
	rest := io.Reader(body)
	if err != nil {
		rest = failure{err}
	}
	response.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(beginning), rest), body}
	return beginning
}

// failure is what remains of a body that cannot be read.
type failure struct{ err error }

func (f failure) Read([]byte) (int, error) { return 0, f.err }

// hasCode reports whether a body, or what it begins with, is a JSON object that has a code of Connect's.
func hasCode(body []byte, encoding string) bool {
	text := io.Reader(bytes.NewReader(body))
	switch encoding {
	case "", connect.CompressionNameIdentity:
	case connect.CompressionNameGzip:
		unzipped, err := gzip.NewReader(text)
		if err != nil {
			return false
		}
		text = io.LimitReader(unzipped, maxPeek)
	default:
		return false // of which connecthttp makes no error of Connect's either
	}
	decoder := json.NewDecoder(text)
	if begin, err := decoder.Token(); err != nil || begin != json.Delim('{') {
		return false
	}
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return false
		}
		if name == "code" {
			value, _ := decoder.Token()
			code, ok := value.(string)
			return ok && isCode(code)
		}
		var other json.RawMessage
		if err := decoder.Decode(&other); err != nil {
			return false
		}
	}
	return false
}

// isCode reports whether a text names one of Connect's codes.
func isCode(text string) bool {
	var code connect.Code
	return code.UnmarshalText([]byte(text)) == nil && code >= connect.CodeCanceled && code <= connect.CodeUnauthenticated
}
