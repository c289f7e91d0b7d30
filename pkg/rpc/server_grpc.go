package rpc

import (
	"net/http"
	"strings"
)

// grpcWriter sends an error of gRPC that no message and no header goes before in one frame, "Trailers-Only", as gRPC's own servers do, where
// connecthttp sends a header and a trailer. Clients retry what their policy says, and heed a pushback, only then: with a header a call is theirs
// for good (https://github.com/grpc/proposal/blob/master/A6-client-retries.md#when-retries-are-valid).
//
// Each call has its own: a handler's goroutine that outlives the handler still holds it, and must not write into the answer to another.
type grpcWriter struct {
	http.ResponseWriter

	wrote bool // whether the header has gone
}

var _ http.Flusher = (*grpcWriter)(nil)

// isGRPC reports whether a request is one of gRPC proper, which needs HTTP/2's trailers.
func isGRPC(r *http.Request) bool {
	kind, ok := strings.CutPrefix(r.Header.Get("Content-Type"), "application/grpc")
	return ok && r.ProtoMajor == 2 && (kind == "" || kind[0] == '+' || kind[0] == ';')
}

// WriteHeader sends the header.
func (w *grpcWriter) WriteHeader(status int) {
	w.wrote = true
	w.ResponseWriter.WriteHeader(status)
}

// Write sends the header and part of a message.
func (w *grpcWriter) Write(p []byte) (int, error) {
	w.wrote = true
	return w.ResponseWriter.Write(p)
}

// Flush implements [http.Flusher]. A trailer alone is left for the end of the handler, which ends the stream with it.
func (w *grpcWriter) Flush() {
	if !w.wrote && trailersOnly(w.Header()) {
		return
	}
	w.wrote = true
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap serves [http.ResponseController].
func (w *grpcWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// trailersOnly turns the trailer of an answer into its header, if nothing of the handler's is in that, and reports whether it is so.
func trailersOnly(header http.Header) bool {
	if header.Get(http.TrailerPrefix+"Grpc-Status") == "" {
		return false
	}
	for name := range header {
		switch name {
		case "Content-Type", "Grpc-Accept-Encoding", "Grpc-Encoding":
		default:
			if !strings.HasPrefix(name, http.TrailerPrefix) {
				return false
			}
		}
	}
	for name, values := range header {
		if trailer, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			delete(header, name)
			header[trailer] = values
		}
	}
	header["Content-Length"] = nil // else net/http says that it is 0, which gRPC's servers do not
	return true
}
