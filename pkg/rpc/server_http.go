package rpc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"

	"github.com/0x1d/goplt/internal/jsoncodec"
)

// router finds the procedure of a request. It answers by itself what is none: in the words of the caller's protocol, or with a JSON
// error as Connect's and a fitting HTTP status.
type router struct {
	server     *Server
	procedures map[string]*route
	services   map[string]http.Handler // by "/package.Service/": what serves its unknown methods
	errors     *connecthttp.ErrorWriter
}

type route struct {
	handler     http.Handler
	stream      connect.StreamType
	json, proto string // the content types of Connect's requests
}

var (
	_ http.Handler         = (*router)(nil)
	_ connecthttp.ServeMux = (*router)(nil)
)

func newRouter(s *Server) *router {
	rt := &router{
		server: s, procedures: make(map[string]*route), services: make(map[string]http.Handler), errors: connecthttp.NewErrorWriter(),
	}
	for spec := range s.hosted.Specs() {
		found := &route{stream: spec.StreamType, json: "application/json", proto: "application/proto"}
		if spec.StreamType != connect.StreamTypeUnary {
			found.json, found.proto = "application/connect+json", "application/connect+proto"
		}
		rt.procedures[spec.Procedure] = found
	}
	connecthttp.Mount(rt, s.hosted,
		connecthttp.WithCodecs(connectproto.NewBinaryCodec(), jsoncodec.New()),
		connecthttp.WithReadMaxBytes(s.config.MaxReceiveBytes),
		connecthttp.WithSendMaxBytes(s.config.MaxSendBytes),
		connecthttp.WithCompressMinBytes(s.config.CompressMinBytes),
	)
	return rt
}

// Handle implements [connecthttp.ServeMux]: a pattern is a procedure, or "/package.Service/" for all else of a service.
func (rt *router) Handle(pattern string, handler http.Handler) {
	if known, ok := rt.procedures[pattern]; ok {
		known.handler = handler
	} else {
		rt.services[pattern] = handler
	}
}

func (rt *router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rt.server.calls.begin()
	defer rt.server.calls.end()
	if r.ProtoMajor == 1 && rt.server.draining.Load() {
		// HTTP/1.1 has no GOAWAY: a client that is told with an answer never loses a request to a connection closed under it.
		w.Header().Set("Connection", "close")
	}
	found, ok := rt.procedures[r.URL.Path]
	stream := connect.StreamTypeUnary
	if ok {
		stream = found.stream
	}
	r = rt.limit(w, r, stream)
	kind := r.Header.Get("Content-Type")
	switch {
	case isGRPC(r):
		w = &grpcWriter{ResponseWriter: w}
	case ok && kind != found.json && kind != found.proto && !strings.HasPrefix(kind, "application/grpc"):
		w = &typeWriter{w, r, found}
	}
	switch {
	case !ok:
		rt.serveUnknown(w, r)
	case r.Method != http.MethodPost:
		rt.refuseMethod(w, r)
	default:
		found.handler.ServeHTTP(w, r)
	}
}

var _ http.Flusher = (*typeWriter)(nil)

// typeWriter has a request whose content type connecthttp refuses answered in JSON, where connecthttp has but a status. Which types it takes is for
// connecthttp to say. Those of gRPC, to which JSON would say nothing, do not come here, nor do the usual ones.
type typeWriter struct {
	http.ResponseWriter

	request *http.Request
	route   *route
}

// WriteHeader explains the status 415, and passes on others.
func (w *typeWriter) WriteHeader(status int) {
	if status != http.StatusUnsupportedMediaType {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	given := "no content type"
	if kind := w.request.Header.Get("Content-Type"); kind != "" {
		given = fmt.Sprintf("content type %.100q is not one that it takes", kind)
	}
	explanation, err := json.Marshal(map[string]string{
		"code": connect.CodeUnknown.String(), "message": fmt.Sprintf("POST %s: %s; want %s", w.request.URL.Path, given, w.route.json),
	})
	if err != nil {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	// Not the bare type of Connect's errors: whoever is answered so has not spoken Connect.
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.ResponseWriter.WriteHeader(status)
	_, _ = w.Write(explanation) // who has gone needs none
}

// Flush implements [http.Flusher], which streams need.
func (w *typeWriter) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// Unwrap serves [http.ResponseController].
func (w *typeWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// refuseMethod answers a request for a procedure that is no POST. The protocols have no word for it but the HTTP status, which their clients
// take for "unknown"; to gRPC, in either form, a body in JSON would say nothing.
func (rt *router) refuseMethod(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Allow", http.MethodPost)
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	err := connect.Errorf(connect.CodeUnknown, "%s %s: procedures are called by POST", r.Method, r.URL.Path)
	_ = rt.errors.Write(&statusWriter{w, http.StatusMethodNotAllowed}, r, err)
}

// limit adapts the time-outs that http.Server applies to every request to a kind of call: a stream has no bounds but for the one request
// message of a server stream, which is to arrive in time.
//
// It returns the request to serve, which may be a copy with another body. net/http's own request is never changed: after the handler,
// net/http asks the type of that request's body whether unread bytes force the connection closed, and with another body in its place
// would take them for the next request.
func (rt *router) limit(w http.ResponseWriter, r *http.Request, stream connect.StreamType) *http.Request {
	// Writers without deadlines, such as httptest's recorder, have none to lift: errors do not matter here.
	controller := http.NewResponseController(w)
	if stream&connect.StreamTypeClient != 0 && r.ProtoMajor == 1 {
		// Else net/http reads and throws away up to 256 KiB of what is still to come, as soon as the handler sends its headers.
		_ = controller.EnableFullDuplex()
	}
	timeout := rt.server.config.RequestTimeout
	if timeout == 0 {
		return r
	}
	if stream != connect.StreamTypeUnary {
		_ = controller.SetWriteDeadline(time.Time{})
	}
	switch {
	case stream&connect.StreamTypeClient != 0:
		_ = controller.SetReadDeadline(time.Time{})
	case r.ProtoMajor == 1 && r.Body != http.NoBody:
		// Not from when http.Server began to wait for the header, which for the first request is when the connection was opened. It lifts the
		// deadline itself when the body is complete.
		_ = controller.SetReadDeadline(time.Now().Add(timeout))
		limited := *r
		limited.Body = &timedBody{r.Body, timeout}
		return &limited
	}
	return r
}

// timedBody explains the error of a body that did not arrive in time, which else tells of addresses and sockets.
type timedBody struct {
	io.ReadCloser

	timeout time.Duration
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("the request did not arrive within %s: %w", b.timeout, os.ErrDeadlineExceeded)
	}
	return n, err
}

func (rt *router) serveUnknown(w http.ResponseWriter, r *http.Request) {
	w = &statusWriter{w, http.StatusNotFound}
	if service, _, ok := splitProcedure(r.URL.Path); ok && r.Method == http.MethodPost && rt.errors.IsSupported(r) {
		if handler := rt.services["/"+service+"/"]; handler != nil {
			handler.ServeHTTP(w, r) // ends in Server.dispatchUnknown
			return
		}
	}
	_ = rt.errors.Write(w, r, rt.server.unknownProcedure(r.URL.Path))
}

// unknownProcedure says that path is no procedure. For a service that is there it names the methods, unless the server keeps its API to
// itself.
func (s *Server) unknownProcedure(path string) error {
	service, _, ok := splitProcedure(path)
	if !ok {
		return connect.Errorf(connect.CodeUnimplemented, "%q is not a procedure; procedures are of the form /package.Service/Method", path)
	}
	var methods []string
	for spec := range s.hosted.Specs() {
		if of, method, _ := splitProcedure(spec.Procedure); of == service {
			methods = append(methods, method)
		}
	}
	switch {
	case !s.config.Reflection:
		return connect.Errorf(connect.CodeUnimplemented, "%q is not a procedure of this server", path)
	case len(methods) == 0:
		return connect.Errorf(connect.CodeUnimplemented, "%q is not a procedure of this server: it has no service %s", path, service)
	}
	slices.Sort(methods)
	return connect.Errorf(connect.CodeUnimplemented, "%q is not a procedure of this server: the methods of %s are %s",
		path, service, strings.Join(methods, ", "))
}

var _ http.Flusher = (*statusWriter)(nil)

// statusWriter replaces the HTTP status of errors. The protocols that put an error into a trailer have the status 200 and keep it.
type statusWriter struct {
	http.ResponseWriter

	status int
}

// WriteHeader replaces an error's status.
func (w *statusWriter) WriteHeader(status int) {
	if status >= http.StatusBadRequest {
		status = w.status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Flush implements [http.Flusher], which streams need.
func (w *statusWriter) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// Unwrap serves [http.ResponseController].
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
