package rpc

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"

	"connectrpc.com/connect/v2"
	"golang.org/x/net/http2"

	"github.com/0x1d/goplt/internal/pool"
)

// exchange is one HTTP exchange on a connection that was reserved for it, and what it showed. It travels as the request's context, so
// that one allocation serves for both.
type exchange struct {
	context.Context //nolint:containedctx // it is a context, with one more value

	conn    *pool.Conn
	written uint64 // bytes on the connection before this exchange; HTTP/1.1 only

	dispatched atomic.Bool // whether the slot was used
	sent       atomic.Bool // whether any of the request's body was read for sending
	response   *http.Response
	answered   bool // whether the response is the service's, not of something before it
	blocked    bool // whether the response proves that gRPC does not get through
	err        error

	requestBody  requestBody
	responseBody responseBody
}

type exchangeKey struct{}

// Value returns the exchange itself for its key, so that the wire finds it behind the contexts in between.
func (e *exchange) Value(key any) any {
	if key == (exchangeKey{}) {
		return e
	}
	return e.Context.Value(key)
}

// finish gives an unused slot back.
func (e *exchange) finish() {
	if !e.dispatched.Swap(true) {
		e.conn.Release()
	}
}

// httpDoer is the HTTP client below connecthttp: it sends each request on the connection reserved for its exchange, and notes what
// happens.
type httpDoer struct {
	answered func(*http.Response) bool
	blocked  func(*http.Response) bool // nil where nothing can be in the way
}

// Do implements connecthttp.HTTPClient.
func (d httpDoer) Do(request *http.Request) (*http.Response, error) {
	e, ok := request.Context().Value(exchangeKey{}).(*exchange)
	if !ok || e.dispatched.Swap(true) {
		return nil, errors.New("request without a connection reserved for it")
	}
	if request.Body == nil || request.Body == http.NoBody {
		e.sent.Store(true) // without a body, nothing tells whether the request left
	} else {
		e.requestBody = requestBody{ReadCloser: request.Body, sent: &e.sent}
		request.Body = &e.requestBody
	}
	response, err := e.conn.RoundTrip(request)
	if err != nil {
		e.err = err
		return nil, wireError(request.Context(), err)
	}
	e.response = response
	e.answered = d.answered(response)
	e.blocked = d.blocked != nil && d.blocked(response)
	e.responseBody = responseBody{ReadCloser: response.Body, ctx: request.Context()}
	response.Body = &e.responseBody
	return response, nil
}

// requestBody notes when the request's message begins to leave. net/http reads it only after it has written the headers.
type requestBody struct {
	io.ReadCloser

	sent *atomic.Bool
}

func (b *requestBody) Read(buffer []byte) (int, error) {
	b.sent.Store(true)
	return b.ReadCloser.Read(buffer)
}

// responseBody gives failures to read their code.
type responseBody struct {
	io.ReadCloser

	ctx context.Context //nolint:containedctx // the exchange's, to tell a cancelled read from a broken connection
}

func (b *responseBody) Read(buffer []byte) (int, error) {
	n, err := b.ReadCloser.Read(buffer)
	if err != nil && !errors.Is(err, io.EOF) {
		err = wireError(b.ctx, err)
	}
	return n, err
}

// wireError gives a failure of the connection its code. connecthttp would take a connection that was reset for a call that was
// cancelled; resets of a stream, though, it knows how to map.
func wireError(ctx context.Context, err error) error {
	if ctxErr := ctx.Err(); ctxErr != nil {
		return contextError(ctxErr)
	}
	if _, ok := errors.AsType[http2.StreamError](err); ok {
		return err
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return unavailable(err)
}

func isDeadline(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || connect.CodeOf(err) == connect.CodeDeadlineExceeded
}
