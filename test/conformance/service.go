package main

import (
	"context"
	"errors"
	"io"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	conformancev1 "github.com/0x1d/goplt/test/conformance/gen/connectrpc/conformance/v1"
	"github.com/0x1d/goplt/test/conformance/gen/connectrpc/conformance/v1/conformancev1connect"
)

// service does what its requests define, and tells what it saw of them: the contract is in the suite's service.proto. Unimplemented is
// left to what it embeds, as the suite wants it.
type service struct {
	conformancev1connect.UnimplementedConformanceServiceHandler
}

var _ conformancev1connect.ConformanceServiceHandler = service{}

// Unary answers one message with one.
func (service) Unary(ctx context.Context, request *conformancev1.UnaryRequest) (*conformancev1.UnaryResponse, error) {
	payload, err := answer(ctx, request.GetResponseDefinition(), request)
	if err != nil {
		return nil, err
	}
	return &conformancev1.UnaryResponse{Payload: payload}, nil
}

// IdempotentUnary answers one message with one.
func (service) IdempotentUnary(
	ctx context.Context, request *conformancev1.IdempotentUnaryRequest,
) (*conformancev1.IdempotentUnaryResponse, error) {
	payload, err := answer(ctx, request.GetResponseDefinition(), request)
	if err != nil {
		return nil, err
	}
	return &conformancev1.IdempotentUnaryResponse{Payload: payload}, nil
}

// ClientStream answers all messages with one, as the first defines it.
func (service) ClientStream(
	ctx context.Context, stream conformancev1connect.ConformanceServiceClientStreamServerStream,
) (*conformancev1.ClientStreamResponse, error) {
	var requests []proto.Message
	var definition *conformancev1.UnaryResponseDefinition
	for {
		request, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		if len(requests) == 0 {
			definition = request.GetResponseDefinition()
		}
		requests = append(requests, request)
	}
	payload, err := answer(ctx, definition, requests...)
	if err != nil {
		return nil, err
	}
	return &conformancev1.ClientStreamResponse{Payload: payload}, nil
}

// ServerStream answers one message with those that it defines.
func (service) ServerStream(
	ctx context.Context, request *conformancev1.ServerStreamRequest, stream conformancev1connect.ConformanceServiceServerStreamServerStream,
) error {
	responses := responder{ctx: ctx, sendHeaders: stream.SendHeaders, send: func(payload *conformancev1.ConformancePayload) error {
		return stream.Send(&conformancev1.ServerStreamResponse{Payload: payload})
	}}
	if err := responses.begin(request.GetResponseDefinition(), true); err != nil {
		return err
	}
	if err := responses.see(request); err != nil {
		return err
	}
	return responses.finish()
}

// BidiStream answers with what the first message defines: each message with one, if it is to be full duplex, or all of them in the end.
func (service) BidiStream(ctx context.Context, stream conformancev1connect.ConformanceServiceBidiStreamServerStream) error {
	responses := responder{ctx: ctx, sendHeaders: stream.SendHeaders, send: func(payload *conformancev1.ConformancePayload) error {
		return stream.Send(&conformancev1.BidiStreamResponse{Payload: payload})
	}}
	fullDuplex, first := false, true
	for {
		request, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return responses.finish()
		} else if err != nil {
			return err
		}
		if first {
			fullDuplex, first = request.GetFullDuplex(), false
			if err := responses.begin(request.GetResponseDefinition(), fullDuplex); err != nil {
				return err
			}
		}
		if err := responses.see(request); err != nil {
			return err
		}
		if !fullDuplex {
			continue
		}
		if responses.left() == 0 {
			return responses.finish()
		}
		if err := responses.next(); err != nil {
			return err
		}
	}
}

// answer is the answer of the methods that have one.
func answer(
	ctx context.Context, definition *conformancev1.UnaryResponseDefinition, requests ...proto.Message,
) (*conformancev1.ConformancePayload, error) {
	seen, err := pack(requests)
	if err != nil {
		return nil, err
	}
	info, _ := connect.CallInfoForServerContext(ctx)
	requested := requestInfo(ctx, info, seen)
	addHeaders(info.ResponseHeader(), definition.GetResponseHeaders())
	addHeaders(info.ResponseTrailer(), definition.GetResponseTrailers())
	if err := pause(ctx, definition.GetResponseDelayMs()); err != nil {
		return nil, err
	}
	if failure := definition.GetError(); failure != nil {
		return nil, withDetail(failure, requested)
	}
	return &conformancev1.ConformancePayload{Data: definition.GetResponseData(), RequestInfo: requested}, nil
}

// responder answers a stream with as many messages as were defined.
type responder struct {
	ctx         context.Context // the handler's
	sendHeaders func() error
	send        func(*conformancev1.ConformancePayload) error

	definition *conformancev1.StreamResponseDefinition
	sent       int
	headers    bool         // whether they were sent
	requests   []*anypb.Any // that no response has told of
}

// begin takes over what is to be answered. The headers go out at once, if there is something to come and the client is ready to read.
func (r *responder) begin(definition *conformancev1.StreamResponseDefinition, ready bool) error { //nolint:revive // it is what the client does
	r.definition = definition
	info, _ := connect.CallInfoForServerContext(r.ctx)
	addHeaders(info.ResponseHeader(), definition.GetResponseHeaders())
	addHeaders(info.ResponseTrailer(), definition.GetResponseTrailers())
	if ready {
		return r.open()
	}
	return nil
}

// open sends the headers, if there is something to come.
func (r *responder) open() error {
	if r.headers || r.left() == 0 {
		return nil
	}
	r.headers = true
	return r.sendHeaders()
}

// see notes a request, to be told of with the next response.
func (r *responder) see(request proto.Message) error {
	seen, err := pack([]proto.Message{request})
	r.requests = append(r.requests, seen...)
	return err
}

// left says how many responses are still to be sent.
func (r *responder) left() int { return len(r.definition.GetResponseData()) - r.sent }

// next sends the next response. The first tells all that is known of the call, later ones of the requests since.
func (r *responder) next() error {
	payload := &conformancev1.ConformancePayload{Data: r.definition.GetResponseData()[r.sent]}
	switch {
	case r.sent == 0:
		info, _ := connect.CallInfoForServerContext(r.ctx)
		payload.RequestInfo = requestInfo(r.ctx, info, r.requests)
	case len(r.requests) > 0:
		payload.RequestInfo = &conformancev1.ConformancePayload_RequestInfo{Requests: r.requests}
	}
	if err := pause(r.ctx, r.definition.GetResponseDelayMs()); err != nil {
		return err
	}
	r.sent++
	r.requests = nil
	return r.send(payload)
}

// finish sends what is left to be sent, and returns the error to end with.
func (r *responder) finish() error {
	if err := r.open(); err != nil {
		return err
	}
	for r.left() > 0 {
		if err := r.next(); err != nil {
			return err
		}
	}
	failure := r.definition.GetError()
	switch {
	case failure == nil:
		return nil
	case r.sent > 0:
		return asError(failure)
	default:
		info, _ := connect.CallInfoForServerContext(r.ctx)
		return withDetail(failure, requestInfo(r.ctx, info, r.requests))
	}
}

// withDetail is an error that tells in a detail what no response could.
func withDetail(failure *conformancev1.Error, requested *conformancev1.ConformancePayload_RequestInfo) error {
	detail, err := anypb.New(requested)
	if err != nil {
		return err
	}
	failure.Details = append(failure.Details, detail)
	return asError(failure)
}

// requestInfo is what a handler sees of a call.
func requestInfo(ctx context.Context, info *connect.CallInfo, requests []*anypb.Any) *conformancev1.ConformancePayload_RequestInfo {
	seen := &conformancev1.ConformancePayload_RequestInfo{RequestHeaders: headersOf(info.RequestHeader()), Requests: requests}
	if deadline, ok := ctx.Deadline(); ok {
		if left := time.Until(deadline); left < requestTimeout/2 {
			seen.TimeoutMs = new(left.Milliseconds())
		}
	}
	return seen
}

func pack(messages []proto.Message) ([]*anypb.Any, error) {
	packed := make([]*anypb.Any, len(messages))
	for at, message := range messages {
		var err error
		if packed[at], err = anypb.New(message); err != nil {
			return nil, err
		}
	}
	return packed, nil
}
