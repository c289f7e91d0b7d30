package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"

	"github.com/0x1d/goplt/internal/pool"
	grpcclient "github.com/0x1d/goplt/internal/services/grpc/client"
	httpclient "github.com/0x1d/goplt/internal/services/http/client"
)

// exchange is one HTTP exchange on a connection that was reserved for it, and what it showed. It travels as the request's context, so
// that one allocation serves for both. Fields that are not atomic belong to the goroutine that calls Do and reads the response's body.
type exchange struct {
	context.Context //nolint:containedctx // it is a context, with one more value

	limit   time.Time // of this attempt alone; zero if it has all the call's time
	bounds  bounds
	conn    *pool.Conn
	began   time.Time // when there was a connection
	written uint64    // bytes on the connection before this exchange; HTTP/1.1 only

	crowded    bool        // whether there was no connection in time because our own calls were on all of them
	dispatched atomic.Bool // whether the slot was used, by a request or by giving it back
	unused     bool        // whether it was given back without a request
	response   *http.Response
	byGRPC     bool
	answered   bool         // whether the response is the service's, not of something before it
	broken     bool         // whether the response's body could not be read to its end
	unary      bool         // whether the response belongs to the goroutine that made the request
	apology    string       // what a response that is not the service's says in plain text
	evidence   atomic.Int32 // of gRPC's getting through, a [grpcclient.Evidence]
	err        error        // of RoundTrip

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
	if e.conn != nil && !e.dispatched.Swap(true) {
		e.unused = true
		e.conn.Release()
	}
}

// sent reports whether any of the request's message was handed to the connection. If not, none ever will be: what remains of the
// request in net/http's hands can only fail from here on.
func (e *exchange) sent() bool { return e.dispatched.Load() && !e.unused && !e.requestBody.seal() }

// unsendable reports whether it was the request that net/http refused, for a header that is invalid or larger than the peer takes, and not
// the connection that failed. It is asked of an exchange whose message was not sent.
func (e *exchange) unsendable() bool {
	if e.err == nil || e.Err() != nil || !e.conn.Usable() {
		return false
	}
	return !isReset(e.err)
}

// isReset reports whether an error is the reset of one stream.
func isReset(err error) bool {
	_, reset := errors.AsType[http2.StreamError](err)
	return reset
}

// shown returns what the exchange showed of whether gRPC gets through.
func (e *exchange) shown() grpcclient.Evidence { return grpcclient.Evidence(e.evidence.Load()) }

func (e *exchange) show(evidence grpcclient.Evidence) { e.evidence.Store(int32(evidence)) }

// takeEvidence is shown, and has it told only once.
func (e *exchange) takeEvidence() grpcclient.Evidence {
	if e.shown() == grpcclient.None {
		return grpcclient.None
	}
	return grpcclient.Evidence(e.evidence.Swap(int32(grpcclient.None)))
}

// attributed has the error of something before the service not pass for the service's own: connecthttp takes any JSON for a Connect error, and makes
// up its code from the HTTP status. It adds what is said in plain text, which connecthttp does not look at.
func (e *exchange) attributed(err error) error {
	foreign, ok := errors.AsType[*connect.Error](err)
	switch {
	case !ok || e.answered:
		return unreadable(err)
	case foreign.IsRemote():
		text := e.response.Status
		if message := foreign.Message(); message != "" {
			text += ": " + message
		}
		return connect.NewError(foreign.Code(), text)
	case e.apology != "":
		return connect.NewError(foreign.Code(), foreign.Message()+": "+e.apology).WithCause(err)
	}
	return unreadable(err)
}

// unreadable gives the error of an answer that is no gzip, protobuf or JSON its code, which is internal
// (https://github.com/grpc/grpc/blob/master/doc/statuscodes.md). To connecthttp it is an invalid argument, as it would be in a request, which callers
// would take for a word on what they sent.
func unreadable(err error) error {
	local, ok := errors.AsType[*connect.Error](err)
	if !ok || local.IsRemote() || local.Code() != connect.CodeInvalidArgument {
		return err
	}
	return connect.NewError(connect.CodeInternal, "the answer cannot be read: "+local.Message()).WithCause(err)
}

// timeoutRounding is by how much a deadline may be shortened when it is written into a request's header, at least a millisecond in
// Connect-Timeout-Ms.
const timeoutRounding = 2 * time.Millisecond

// timedOut reports whether the attempt's own time ran out, of which the server may have taken notice first.
func (e *exchange) timedOut(err error) bool {
	return connect.CodeOf(err) == connect.CodeDeadlineExceeded && (e.Err() != nil || !e.limit.IsZero() && time.Until(e.limit) < timeoutRounding)
}

// httpDoer is the HTTP client below connecthttp: it sends each request on the connection reserved for its exchange, and notes what
// happens.
type httpDoer struct {
	answered func(*http.Response) bool
	// grpc has the exchange note what it shows of whether gRPC gets through.
	grpc bool
	// wholeMessages has the header and the message leave in one piece: HTTP/1.1, where the connection's count of bytes tells whether
	// anything left.
	wholeMessages bool
}

// Do implements connecthttp.HTTPClient.
func (d httpDoer) Do(request *http.Request) (*http.Response, error) {
	e, ok := request.Context().Value(exchangeKey{}).(*exchange)
	if !ok || e.dispatched.Swap(true) {
		return nil, errors.New("request without a connection reserved for it")
	}
	if err := d.prepare(e, request); err != nil {
		e.conn.Release()
		return nil, err
	}
	if alarm := e.bounds.alarm; alarm != nil && !d.wholeMessages {
		request.Cancel = alarm.rung //nolint:staticcheck // see bounds
	}
	response, err := e.conn.RoundTrip(request)
	if err != nil {
		e.err = err
		if d.grpc {
			e.show(grpcclient.Failed(err))
		}
		if d.wholeMessages && !validHeader(request.Header) {
			e.requestBody.state.Store(bodyUnread) // net/http refused it before it looked at the connection
		}
		return nil, wireError(e, err)
	}
	e.response = response
	e.answered = d.answered(response)
	if d.grpc {
		e.byGRPC = true
		e.show(grpcclient.Begun(response))
	}
	e.responseBody.ReadCloser, e.responseBody.exchange = response.Body, e
	if d.wholeMessages && request.ContentLength < 0 {
		e.responseBody.ReadCloser = readAhead(response.Body)
	}
	response.Body = &e.responseBody
	return response, nil
}

// prepare sees to it that the exchange tells whether the request's message left.
func (d httpDoer) prepare(e *exchange, request *http.Request) error {
	switch {
	case request.Body == nil || request.Body == http.NoBody:
		e.requestBody.state.Store(bodyRead) // without a body, nothing tells whether the request left
		return nil
	case d.wholeMessages && request.ContentLength > 0:
		// net/http writes the header alone, in case that the body keeps it waiting, unless it knows the body to be in memory. That would be
		// another system call here, and often another wake-up of the server.
		message := make([]byte, request.ContentLength)
		if _, err := io.ReadFull(request.Body, message); err != nil {
			return fmt.Errorf("read the request's message: %w", err)
		}
		e.requestBody.state.Store(bodyRead)
		request.Body = io.NopCloser(bytes.NewReader(message))
	default:
		e.requestBody.ReadCloser = request.Body
		request.Body = &e.requestBody
	}
	request.GetBody = nil // would let net/http send the message without our seeing it
	return nil
}

// validHeader reports whether net/http takes a header.
func validHeader(header http.Header) bool {
	for name, values := range header {
		if !httpguts.ValidHeaderFieldName(name) || slices.ContainsFunc(values, func(v string) bool { return !httpguts.ValidHeaderFieldValue(v) }) {
			return false
		}
	}
	return true
}

// requestBody notes when the request's message begins to leave. net/http reads it only after it has written the headers, from a goroutine
// of its own, which may outlive RoundTrip.
type requestBody struct {
	io.ReadCloser

	state atomic.Int32
}

const (
	bodyUnread int32 = iota
	bodyRead         // reading has begun
	bodySealed       // can not begin any more
)

// Read hands out the message, unless it is sealed.
func (b *requestBody) Read(buffer []byte) (int, error) {
	if !b.state.CompareAndSwap(bodyUnread, bodyRead) && b.state.Load() == bodySealed {
		return 0, errSealed
	}
	return b.ReadCloser.Read(buffer)
}

var errSealed = errors.New("request was given up before its message was read")

// seal reports whether nothing was read, and sees to it that this remains so.
func (b *requestBody) seal() bool {
	return b.state.CompareAndSwap(bodyUnread, bodySealed) || b.state.Load() == bodySealed
}

// responseBody gives failures to read their code, and notes what the end of a gRPC response shows.
type responseBody struct {
	io.ReadCloser

	exchange *exchange
	closed   atomic.Bool // by our side: what fails then says nothing of the peer
}

// Close implements [io.Closer]. connecthttp closes the body of an answer that it cannot make use of, and reads on for the trailers. Of one that is
// not the service's, what it says is taken down first.
func (b *responseBody) Close() error {
	if e := b.exchange; e.unary && !e.answered && !b.closed.Load() {
		e.apology = httpclient.Apology(e.response, b.ReadCloser)
	}
	b.closed.Store(true)
	return b.ReadCloser.Close()
}

func (b *responseBody) Read(buffer []byte) (int, error) {
	n, err := b.ReadCloser.Read(buffer)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		if b.exchange.byGRPC {
			b.exchange.show(grpcclient.Ended(b.exchange.response))
		}
	case b.closed.Load():
		err = wireError(b.exchange, err)
	default:
		b.exchange.broken = true
		if shown := grpcclient.Failed(err); b.exchange.byGRPC && shown != grpcclient.None { // later reads fail for another reason
			b.exchange.show(shown)
		}
		err = wireError(b.exchange, err)
	}
	return n, err
}

// wireError gives a failure of the connection its code. connecthttp would take a connection that was reset for a call that was
// cancelled; resets of a stream, though, it knows how to map.
func wireError(ctx context.Context, err error) error {
	if ctxErr := ctx.Err(); ctxErr != nil {
		return contextError(ctxErr)
	}
	if isReset(err) {
		return err
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return unavailable(err)
}

// readAhead reads the beginning of the answer to a client stream over HTTP/1.1. It may come before the stream was sent, its sender does not ask for
// it until then, and a peer that has answered reads no more and closes the connection, whereupon all that was not read is lost. At the answer's end,
// net/http gives up the rest of the request, which the sender is told. Nobody waits for this: connecthttp calls Do beside a client stream.
func readAhead(body io.ReadCloser) io.ReadCloser {
	const most = 64 << 10 // An answer that is larger was hardly meant to come early.
	var beginning bytes.Buffer
	_, _ = io.CopyN(&beginning, body, most) // What ends it short of that, the next read returns again.
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(&beginning, body), body}
}

func isDeadline(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || connect.CodeOf(err) == connect.CodeDeadlineExceeded
}
