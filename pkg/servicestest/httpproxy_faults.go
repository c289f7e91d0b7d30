package servicestest

import (
	"context"
	"net/http"
	"time"
)

// proxyEffect is what a fault does to an exchange. gone is closed when the fault is removed.
type proxyEffect func(ctx context.Context, x *exchange, gone <-chan struct{})

// HTTP1Only lets the proxy speak HTTP/1.1 only on connections that are made from now on, until restore: one that begins HTTP/2 in the
// clear is answered by HTTP/1.1, and by TLS there is no h2 in ALPN. Connections that are open stay as they are, unless
// [Proxy.DropConnections] ends them.
func (p *HTTPProxy) HTTP1Only() (restore func()) {
	p.mustBe()
	p.mu.Lock()
	p.demoted++
	p.mu.Unlock()
	return p.impede(&impediment{harmless: true}, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.demoted--
	})
}

// InjectStatus answers calls with an HTTP status and a text in place of the server, which gets no request, or, with [AfterExecution], has
// executed it: 415 with [GRPCOnly] is a gateway that does not know gRPC, 502 one that has lost its server.
func (p *HTTPProxy) InjectStatus(name string, status int, opts ...FaultOption) *Fault {
	return p.Respond(name, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "injected fault", status)
	}), opts...)
}

// Respond answers calls by a handler in place of the server: InjectStatus with headers, a body, or a mind of its own.
func (p *HTTPProxy) Respond(name string, with http.Handler, opts ...FaultOption) *Fault {
	return p.add(name, opts, func(_ context.Context, x *exchange, _ <-chan struct{}) { x.answer = with })
}

// StripTrailers passes on responses without their trailers, as proxies do that do not know what for they are: gRPC keeps its status there,
// unless there is no message before it.
func (p *HTTPProxy) StripTrailers(name string, opts ...FaultOption) *Fault {
	return p.add(name, opts, func(_ context.Context, x *exchange, _ <-chan struct{}) { x.stripped = true })
}

// Delay makes calls wait for d before they go on; with [AfterExecution], their answers.
func (p *HTTPProxy) Delay(name string, d time.Duration, opts ...FaultOption) *Fault {
	return p.add(name, opts, func(ctx context.Context, _ *exchange, gone <-chan struct{}) {
		_ = delay(ctx, d, gone) // Who has given up needs no answer.
	})
}

// KillMidResponse passes on the headers of responses and so many bytes of their bodies, and then closes the connection, as when a process
// dies: other calls on it die along. A response that has no more bytes than that is cut off before its end, without trailers. In a gRPC
// response the message begins with the sixth byte.
func (p *HTTPProxy) KillMidResponse(name string, after int, opts ...FaultOption) *Fault {
	return p.add(name, opts, func(_ context.Context, x *exchange, _ <-chan struct{}) { x.killed, x.killAfter = true, max(after, 0) })
}

// Drop resets the connection that a call came over (RST) instead of passing it on, or, with [AfterExecution], instead of answering. Other
// calls on it are lost along.
func (p *HTTPProxy) Drop(name string, opts ...FaultOption) *Fault {
	return p.add(name, opts, func(_ context.Context, x *exchange, _ <-chan struct{}) { x.dropped = true })
}

func (p *HTTPProxy) add(name string, opts []FaultOption, effect proxyEffect) *Fault {
	p.mustBe()
	return p.faults.add(&Fault{name: name, inProxy: effect}, opts)
}

// mustBe says what is missing where there is no proxy.
func (p *HTTPProxy) mustBe() {
	if p == nil {
		panic("servicestest: there is no proxy; Start with WithProxy()")
	}
}
