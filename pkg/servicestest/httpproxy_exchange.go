package servicestest

import (
	"bytes"
	"errors"
	"io"
	"iter"
	"maps"
	"net/http"
	"strings"
	"testing/iotest"
)

// exchange is a request on its way through the proxy, and its response.
//
// net/http/httputil has a proxy that would do, if it did not write from a goroutine of its own, which makes it unknown what a client has
// got when the response is to be cut off.
type exchange struct {
	proxy *HTTPProxy
	w     http.ResponseWriter
	r     *http.Request
	call  struck

	// What faults have made of it.
	answer                    http.Handler
	dropped, stripped, killed bool
	killAfter                 int
}

// ServeHTTP implements [http.Handler]. It is what the proxy does with a request, whatever connection it came over.
func (p *HTTPProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == "PRI" { // No request, but the preface of HTTP/2 (RFC 9113, section 3.4), which net/http passes on when it speaks HTTP/1.1 only.
		w.Header().Set("Connection", "close")
		http.Error(w, "this gateway speaks HTTP/1.1", http.StatusHTTPVersionNotSupported)
		return
	}
	if !p.begin(r.URL.Path) {
		panic(http.ErrAbortHandler)
	}
	defer p.exchanges.Done()
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	x := &exchange{proxy: p, w: w, r: r, call: struck{
		procedure: r.URL.Path, grpc: kind == "application/grpc" || strings.HasPrefix(kind, "application/grpc+"),
	}}
	if x.strike(p.faults.strike(x.call)) {
		return
	}
	after := p.faults.choose(x.call)
	defer after.release()
	// Requests and responses may stream at the same time. HTTP/2 has it so anyway, and says that it cannot be switched on.
	_ = http.NewResponseController(w).EnableFullDuplex()
	response, err := x.roundTrip()
	if err != nil {
		if r.Context().Err() != nil {
			panic(http.ErrAbortHandler)
		}
		http.Error(w, "the upstream cannot be reached: "+err.Error(), http.StatusBadGateway)
		return
	}
	defer response.Body.Close()
	if !after.none() {
		hold(response)
		if r.Context().Err() != nil {
			panic(http.ErrAbortHandler)
		}
		if x.strike(after.strike()) {
			return
		}
	}
	x.respond(response)
}

// strike has faults strike, and reports whether that was the end of the exchange.
func (x *exchange) strike(faults iter.Seq[*Fault]) bool {
	for fault := range faults {
		fault.inProxy(x.r.Context(), x, fault.gone)
		switch {
		case x.dropped:
			if r := x.proxy.relayFrom(x.r.RemoteAddr); r != nil {
				r.reset()
			}
			panic(http.ErrAbortHandler)
		case x.answer != nil:
			x.answer.ServeHTTP(x.w, x.r)
			return true
		}
	}
	return false
}

// roundTrip passes the request on.
func (x *exchange) roundTrip() (*http.Response, error) {
	out := x.r.Clone(x.r.Context())
	out.URL.Scheme, out.URL.Host, out.RequestURI, out.Close = x.proxy.upstream.Scheme, x.proxy.upstream.Host, "", false
	out.Trailer = x.r.Trailer // The map itself: it is filled at the body's end.
	if x.r.ContentLength == 0 {
		out.Body = nil // so that none is announced
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header.Set("User-Agent", "") // so that net/http adds none of its own
	}
	trailersWelcome := strings.Contains(strings.ToLower(strings.Join(out.Header["Te"], ",")), "trailers")
	dropHopHeaders(out.Header)
	if trailersWelcome {
		out.Header.Set("TE", "trailers")
	}
	if x.r.ProtoMajor == 2 {
		return x.proxy.http2.RoundTrip(out)
	}
	return x.proxy.http1.RoundTrip(out)
}

// dropHopHeaders removes the headers that are of one connection only (RFC 9110, section 7.6.1).
func dropHopHeaders(header http.Header) {
	for _, names := range header["Connection"] {
		for name := range strings.SplitSeq(names, ",") {
			header.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range []string{"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Transfer-Encoding", "Upgrade"} {
		header.Del(name)
	}
}

// hold reads a response to its end, at which the call has been executed. It ends again as it did, be it cut off.
func hold(response *http.Response) {
	if response.Body == http.NoBody {
		return
	}
	body, err := io.ReadAll(response.Body)
	held := io.Reader(bytes.NewReader(body))
	if err != nil {
		held = io.MultiReader(held, iotest.ErrReader(err))
	}
	response.Body = struct {
		io.Reader
		io.Closer
	}{held, response.Body}
}

// endsWithHeaders reports whether nothing comes after the headers, not even an empty piece of a body: so does gRPC send a status alone, and
// other ends it takes for no status at all.
func endsWithHeaders(response *http.Response) bool {
	if response.Body == http.NoBody {
		return true
	}
	if response.ContentLength != 0 {
		return false
	}
	_, err := response.Body.Read(make([]byte, 1)) // What HTTP/2 has there looks like any other body, and there may be trailers.
	return errors.Is(err, io.EOF) && len(response.Trailer) == 0
}

// respond passes the response on.
func (x *exchange) respond(response *http.Response) {
	dropHopHeaders(response.Header)
	maps.Copy(x.w.Header(), response.Header)
	if x.killed {
		x.kill(response)
	}
	x.w.WriteHeader(response.StatusCode)
	flush := http.NewResponseController(x.w).Flush
	if endsWithHeaders(response) || flush() != nil {
		return
	}
	buffer := make([]byte, 32<<10)
	for {
		n, err := response.Body.Read(buffer)
		if n > 0 {
			if _, err := x.w.Write(buffer[:n]); err != nil || flush() != nil {
				panic(http.ErrAbortHandler)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	}
	if x.stripped {
		return
	}
	for name, values := range response.Trailer {
		x.w.Header()[http.TrailerPrefix+name] = values
	}
}

// kill passes on the beginning of the response and closes the connection once that has left.
func (x *exchange) kill(response *http.Response) {
	conn := wireOf(x.r)
	headers, data, _ := conn.counts()
	flush := http.NewResponseController(x.w).Flush
	x.w.WriteHeader(response.StatusCode)
	_ = flush() // What fails ends below as well.
	buffer := make([]byte, 32<<10)
	sent := 0
	for sent < x.killAfter {
		n, err := response.Body.Read(buffer[:min(len(buffer), x.killAfter-sent)])
		if n > 0 {
			sent += n
			_, _ = x.w.Write(buffer[:n])
			_ = flush()
		}
		if err != nil {
			break
		}
	}
	if x.r.ProtoMajor == 2 {
		conn.await(x.r.Context(), headers+1, data+sent)
	}
	conn.closeWrite()
	if r := x.proxy.relayFrom(x.r.RemoteAddr); r != nil {
		select { // or net/http would close a connection that has not sent all
		case <-r.serverEnded:
		case <-r.done:
		}
	}
	panic(http.ErrAbortHandler)
}
