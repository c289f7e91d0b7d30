package main

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"

	conformancev1 "github.com/0x1d/goplt/test/conformance/gen/connectrpc/conformance/v1"
)

// addHeaders adds what the suite wants in a header.
func addHeaders(to *connect.Header, headers []*conformancev1.Header) {
	for _, header := range headers {
		for _, value := range header.GetValue() {
			to.Add(header.GetName(), value)
		}
	}
}

// headersOf says what is in a header.
func headersOf(from *connect.Header) []*conformancev1.Header {
	headers := make([]*conformancev1.Header, 0, from.Len())
	for name, values := range from.All() {
		headers = append(headers, &conformancev1.Header{Name: name, Value: values})
	}
	return headers
}

// errorOf says what a call failed by, as a program sees it that looks for the *connect.Error: nil if it did not fail.
func errorOf(err error) *conformancev1.Error {
	if err == nil {
		return nil
	}
	failure, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return &conformancev1.Error{Code: conformancev1.Code_CODE_UNKNOWN, Message: new(err.Error())}
	}
	said := &conformancev1.Error{Code: conformancev1.Code(failure.Code()), Message: new(failure.Message())}
	for _, detail := range failure.Details() {
		said.Details = append(said.Details, connectproto.ErrorDetailToAny(detail))
	}
	return said
}

// asError makes the error that the suite wants a handler to return.
func asError(wanted *conformancev1.Error) error {
	failure := connect.NewError(connect.Code(wanted.GetCode()), wanted.GetMessage())
	for _, message := range wanted.GetDetails() {
		detail, err := connectproto.NewErrorDetail(message)
		if err != nil {
			return err
		}
		failure = failure.WithDetail(detail)
	}
	return failure
}

// pause waits for a number of milliseconds, or until ctx is done, of which it returns the error.
func pause(ctx context.Context, milliseconds uint32) error {
	timer := time.NewTimer(time.Duration(milliseconds) * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}
