package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	conformancev1 "github.com/0x1d/goplt/test/conformance/gen/connectrpc/conformance/v1"
	"github.com/0x1d/goplt/test/conformance/gen/connectrpc/conformance/v1/conformancev1connect"
)

// invocation is one call that the suite asked for.
type invocation struct {
	client  conformancev1connect.ConformanceServiceClient
	request *conformancev1.ClientCompatRequest
	result  *conformancev1.ClientResponseResult
	cancel  context.CancelFunc
}

// invoke makes the call of a request and says what came of it. Its error is that the request makes no sense; that the call failed is a
// result.
func invoke(
	ctx context.Context, transport connect.Transport, request *conformancev1.ClientCompatRequest,
) (*conformancev1.ClientResponseResult, error) {
	if request.TimeoutMs != nil {
		bounded, cancel := context.WithTimeout(ctx, time.Duration(request.GetTimeoutMs())*time.Millisecond)
		defer cancel()
		ctx = bounded
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ctx, info := connect.NewClientContext(ctx)
	addHeaders(info.RequestHeader(), request.GetRequestHeaders())
	i := &invocation{
		client: conformancev1connect.NewConformanceServiceClient(connect.NewClient(transport)), request: request,
		result: new(conformancev1.ClientResponseResult), cancel: cancel,
	}
	if err := i.invoke(ctx); err != nil {
		return nil, err
	}
	i.result.ResponseHeaders, i.result.ResponseTrailers = headersOf(info.ResponseHeader()), headersOf(info.ResponseTrailer())
	return i.result, nil
}

func (i *invocation) invoke(ctx context.Context) error {
	switch method := i.request.GetMethod(); method {
	case "Unary":
		return unary(ctx, i, i.client.Unary)
	case "IdempotentUnary":
		return unary(ctx, i, i.client.IdempotentUnary)
	case "Unimplemented":
		return unary(ctx, i, i.client.Unimplemented)
	case "ServerStream":
		return i.serverStream(ctx)
	case "ClientStream":
		return i.clientStream(ctx)
	case "BidiStream":
		return i.bidiStream(ctx)
	default:
		return fmt.Errorf("%q is no method", method)
	}
}

// message is a pointer to a generated message.
type message[T any] interface {
	*T
	proto.Message
}

func unary[Req, Res any, ReqPointer message[Req]](ctx context.Context, i *invocation, method func(context.Context, *Req) (*Res, error)) error {
	request := new(Req)
	if err := i.only(ReqPointer(request)); err != nil {
		return err
	}
	defer i.cancelAfterSending()()
	response, err := method(ctx, request)
	i.received(response, err)
	return nil
}

func (i *invocation) serverStream(ctx context.Context) error {
	request := new(conformancev1.ServerStreamRequest)
	if err := i.only(request); err != nil {
		return err
	}
	stream, err := i.client.ServerStream(ctx, request)
	if err != nil {
		i.failed(err)
		return nil
	}
	i.pauseAndCancel(ctx)
	receiveAll(i, stream.Receive)
	i.failed(stream.Close())
	return nil
}

func (i *invocation) clientStream(ctx context.Context) error {
	stream, err := i.client.ClientStream(ctx)
	if err != nil {
		return err
	}
	for sent, packed := range i.request.GetRequestMessages() {
		request := new(conformancev1.ClientStreamRequest)
		if err := packed.UnmarshalTo(request); err != nil {
			return err
		}
		_ = pause(ctx, i.request.GetRequestDelayMs()) // where ctx is done, sending says so
		if err := stream.Send(request); err != nil {
			i.unsent(sent)
			break
		}
	}
	if i.cancelsBeforeClosing() {
		i.cancel()
	}
	defer i.cancelAfterSending()()
	response, err := stream.CloseAndReceive()
	i.received(response, err)
	return nil
}

func (i *invocation) bidiStream(ctx context.Context) error {
	stream, err := i.client.BidiStream(ctx)
	if err != nil {
		return err
	}
	defer func() { i.failed(stream.Close()) }()
	open := true // whether there may be more to receive
	for sent, packed := range i.request.GetRequestMessages() {
		request := new(conformancev1.BidiStreamRequest)
		if err := packed.UnmarshalTo(request); err != nil {
			return err
		}
		_ = pause(ctx, i.request.GetRequestDelayMs())
		if err := stream.Send(request); err != nil {
			i.unsent(sent)
			break
		}
		if i.request.GetStreamType() == conformancev1.StreamType_STREAM_TYPE_FULL_DUPLEX_BIDI_STREAM {
			response, err := stream.Receive()
			if open = i.received(response, err); !open {
				break
			}
		}
	}
	if i.cancelsBeforeClosing() {
		i.cancel()
	}
	if err := stream.CloseSend(); err != nil {
		i.failed(err)
	}
	i.pauseAndCancel(ctx)
	if open {
		receiveAll(i, stream.Receive)
	}
	return nil
}

// receiveAll receives to the end of a stream.
func receiveAll[Res any](i *invocation, receive func() (*Res, error)) {
	for {
		if response, err := receive(); !i.received(response, err) {
			return
		}
	}
}

// only unpacks the one message of a request.
func (i *invocation) only(into proto.Message) error {
	messages := i.request.GetRequestMessages()
	if len(messages) != 1 {
		return fmt.Errorf("%s takes one message, not %d", i.request.GetMethod(), len(messages))
	}
	return messages[0].UnmarshalTo(into)
}

// received notes a response, or why there is none, and reports whether another may follow.
func (i *invocation) received(response any, err error) bool {
	if err != nil {
		if !errors.Is(err, io.EOF) {
			i.failed(err)
		}
		return false
	}
	if echo, ok := response.(interface {
		GetPayload() *conformancev1.ConformancePayload
	}); ok {
		i.result.Payloads = append(i.result.Payloads, echo.GetPayload())
	}
	if after, ok := i.request.GetCancel().GetCancelTiming().(*conformancev1.ClientCompatRequest_Cancel_AfterNumResponses); ok &&
		len(i.result.GetPayloads()) == int(after.AfterNumResponses) {
		i.cancel()
	}
	return true
}

// failed notes why the call failed. The first reason is the one.
func (i *invocation) failed(err error) {
	if err != nil && i.result.GetError() == nil {
		i.result.Error = errorOf(err)
	}
}

// unsent notes that from one message on, none could be sent.
func (i *invocation) unsent(from int) {
	i.result.NumUnsentRequests = int32(len(i.request.GetRequestMessages()) - from)
}

// cancelAfterSending arranges for the call to be cancelled while its response is waited for, if the suite wants that. The function that
// it returns undoes it.
func (i *invocation) cancelAfterSending() func() {
	delay, ok := i.cancelsAfterSending()
	if !ok {
		return func() {}
	}
	timer := time.AfterFunc(time.Duration(delay)*time.Millisecond, i.cancel)
	return func() { timer.Stop() }
}

// pauseAndCancel cancels a stream of which all was sent, if the suite wants that.
func (i *invocation) pauseAndCancel(ctx context.Context) {
	if delay, ok := i.cancelsAfterSending(); ok {
		_ = pause(ctx, delay)
		i.cancel()
	}
}

func (i *invocation) cancelsAfterSending() (delay uint32, ok bool) {
	cancel := i.request.GetCancel()
	if cancel == nil {
		return 0, false
	}
	switch timing := cancel.GetCancelTiming().(type) {
	case *conformancev1.ClientCompatRequest_Cancel_AfterCloseSendMs:
		return timing.AfterCloseSendMs, true
	default:
		return 0, timing == nil // at once, if it does not say when
	}
}

func (i *invocation) cancelsBeforeClosing() bool {
	return i.request.GetCancel().GetBeforeCloseSend() != nil
}
