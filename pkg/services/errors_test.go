package services_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/0x1d/goplt/pkg/services"
)

func sentinels() []error {
	return []error{
		services.ErrInvalidArgument, services.ErrUnauthenticated, services.ErrPermissionDenied, services.ErrNotFound,
		services.ErrAlreadyExists, services.ErrFailedPrecondition, services.ErrAborted, services.ErrOutOfRange,
		services.ErrResourceExhausted, services.ErrUnimplemented, services.ErrUnavailable, services.ErrDeadlineExceeded,
		services.ErrCanceled, services.ErrDataLoss, services.ErrInternal, services.ErrUnknown,
	}
}

func TestErrorfMatchesItsSentinelOnly(t *testing.T) {
	for _, sentinel := range sentinels() {
		err := fmt.Errorf("call: %w", services.Errorf(sentinel, "field %q of %d", "email", 3))
		for _, other := range sentinels() {
			if got, want := errors.Is(err, other), errors.Is(sentinel, other); got != want {
				t.Errorf("errors.Is(%v, %v) is %t", err, other, got)
			}
		}
		if got, want := err.Error(), "call: "+sentinel.Error()+`: field "email" of 3`; got != want {
			t.Errorf("got the text %q, want %q", got, want)
		}
	}
}

func TestPublicText(t *testing.T) {
	public := services.Errorf(services.ErrNotFound, "no user %d", 7)
	for _, test := range []struct {
		name   string
		err    error
		want   string
		wantOK bool
	}{
		{"made by Errorf", public, "no user 7", true},
		{"wrapped", fmt.Errorf("open /etc/secret: %w", public), "no user 7", true},
		{"joined", errors.Join(errors.New("disk full"), public), "no user 7", true},
		{"a bare sentinel", services.ErrNotFound, "", false},
		{"a wrapped sentinel", fmt.Errorf("row 7: %w", services.ErrNotFound), "", false},
		{"another error", errors.New("disk full"), "", false},
		{"nil", nil, "", false},
	} {
		got, ok := services.PublicText(test.err)
		if got != test.want || ok != test.wantOK {
			t.Errorf("%s: got %q, %t; want %q, %t", test.name, got, ok, test.want, test.wantOK)
		}
	}
}
