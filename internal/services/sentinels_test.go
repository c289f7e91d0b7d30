package services

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectinprocess"
	"google.golang.org/protobuf/types/known/wrapperspb"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	"github.com/0x1d/goplt/pkg/services"
)

// TestSentinelsOfAnyService shows that a service that is none of the core ones can have errors like theirs.
func TestSentinelsOfAnyService(t *testing.T) {
	logged := &journal{}
	unary := connect.Spec{Procedure: "/shop.v1.Orders/Get"}
	stream := connect.Spec{Procedure: "/shop.v1.Orders/List", StreamType: connect.StreamTypeServer}
	fail := errors.New("")
	handler := func(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
		if err := stream.Receive(new(wrapperspb.StringValue)); err != nil {
			return err
		}
		if fail != nil {
			return fail
		}
		return stream.Send(wrapperspb.String("order"))
	}
	server := connect.NewServer(ServerErrors(logged.logger()))
	server.Register(connect.Method{Spec: unary, Handler: handler}, connect.Method{Spec: stream, Handler: handler})
	client := connect.NewClient(connectinprocess.New(server), ClientErrors())
	callUnary := func() error {
		return client.CallUnary(t.Context(), unary, wrapperspb.String("x"), new(wrapperspb.StringValue))
	}
	callStream := func() error {
		opened, err := client.CallServerStream(t.Context(), stream, wrapperspb.String("x"))
		if err != nil {
			return err
		}
		defer func() { _ = opened.Close() }()
		return opened.Receive(new(wrapperspb.StringValue))
	}
	for _, row := range []struct {
		fails    error
		sentinel error
		text     string
		logs     int
	}{
		{services.Errorf(services.ErrNotFound, "no order 7"), services.ErrNotFound, "shop.v1.Orders/Get: not found: no order 7", 0},
		{services.ErrPermissionDenied, services.ErrPermissionDenied, "shop.v1.Orders/Get: permission denied", 0},
		{errors.New("disk full at /var/secret"), services.ErrInternal, "shop.v1.Orders/Get: internal error", 1},
	} {
		fail = row.fails
		before := logged.lines()
		if err := callUnary(); !errors.Is(err, row.sentinel) || err.Error() != row.text {
			t.Errorf("unary: got %v, want %s", err, row.text)
		}
		if got := logged.lines() - before; got != row.logs {
			t.Errorf("%v: %d lines logged, want %d", row.fails, got, row.logs)
		}
		if err := callStream(); !errors.Is(err, row.sentinel) {
			t.Errorf("stream: got %v, want %v", err, row.sentinel)
		}
	}
	fail = nil
	if err := errors.Join(callUnary(), callStream()); err != nil {
		t.Error(err)
	}
	opened, err := client.CallServerStream(t.Context(), stream, wrapperspb.String("x"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		err = opened.Receive(new(wrapperspb.StringValue))
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("the end of a stream is %v, want io.EOF", err)
	}
}

// TestErrorIsReportedOnce has an error go through the adapter of a core service and then through ServerErrors, as README has them on one server.
func TestErrorIsReportedOnce(t *testing.T) {
	logged := &journal{}
	server := connect.NewServer(ServerErrors(logged.logger()))
	RegisterAuth(server, brokenAuth{}, logged.logger())
	client := authv1connect.NewAuthServiceClient(connect.NewClient(connectinprocess.New(server)))
	_, err := client.Login(t.Context(), &authv1.LoginRequest{Email: "a@example.com", Password: "x"})
	if status, ok := errors.AsType[*connect.Error](err); !ok || status.Code() != connect.CodeInternal || status.Message() != internalText {
		t.Errorf("got %v, want no more than that it is internal", err)
	}
	if logged.lines() != 1 || !strings.Contains(logged.String(), "db down") {
		t.Errorf("the log is %q, want the cause once", logged)
	}
}

type brokenAuth struct{ services.AuthServiceClient }

func (brokenAuth) Login(context.Context, string, string) (*services.TokenResponse, error) {
	return nil, errors.New("db down")
}
