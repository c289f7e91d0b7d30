package script

import (
	"bytes"
	"net/http"
	"strconv"
	"sync/atomic"
)

// Answer answers one query in place of the agent.
type Answer func(w http.ResponseWriter, r *http.Request)

// Status answers with an HTTP status and a text that says so.
func Status(code int) Answer {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, http.StatusText(code), code) }
}

// Body answers 200 with a body, such as "null" or "[]", and whatever headers are given, each a name and a value.
func Body(body string, headers ...[2]string) Answer {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Consul-Index", "1000")
		for _, header := range headers {
			w.Header().Set(header[0], header[1])
		}
		_, _ = w.Write([]byte(body)) // to who may have gone away
	}
}

// Filtered is the header by which Consul says that access control left instances out.
var Filtered = [2]string{"X-Consul-Results-Filtered-By-Acls", "true"}

// Truncated announces a body and breaks the connection in the middle of it, as an agent that dies does.
func Truncated() Answer {
	return func(w http.ResponseWriter, _ *http.Request) {
		body := []byte(`[{"Node":{"Node":"node-1","Address":"127.0.0.1"},"Service":{"ID":"auth-1","Po`)
		w.Header().Set("X-Consul-Index", "1000")
		w.Header().Set("Content-Length", strconv.Itoa(2*len(body)))
		_, _ = w.Write(body) // to who may have gone away
		panic(http.ErrAbortHandler)
	}
}

// Large answers with a well-formed list, of a size in bytes that no header announces, and counts in sent what the client took of it, with what the
// sockets hold.
func Large(size int64, sent *atomic.Int64) Answer {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Consul-Index", "1000")
		write := func(data []byte) bool {
			n, err := w.Write(data)
			sent.Add(int64(n))
			return err == nil
		}
		blank := bytes.Repeat([]byte(" "), 1<<20)
		for ok, left := write([]byte("[")), size; ok && left > 0; left -= int64(len(blank)) {
			ok = write(blank)
		}
		write([]byte("]"))
	}
}
