package rpc_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/pkg/rpc"
)

// doorman is a service whose validations say when they have begun and end when they may.
type doorman struct {
	authHandler

	begun chan struct{}
	end   chan struct{}
}

func startDoorman(t *testing.T) (*doorman, string) {
	t.Helper()
	d := &doorman{begun: make(chan struct{}, 100), end: make(chan struct{})}
	d.validate = func(ctx context.Context, _ *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
		d.begun <- struct{}{}
		select {
		case <-d.end:
		case <-ctx.Done():
		}
		return &authv1.ValidateTokenResponse{Claims: &authv1.TokenClaims{UserId: "u"}}, nil
	}
	return d, startHTTP(t, d.mount(), http1And2).Listener.Addr().String()
}

func admission(config rpc.AdmissionConfig) func(*rpc.ClientConfig) {
	return func(client *rpc.ClientConfig) { client.Admission = config }
}

// TestKeyAdmissionMaxConcurrentCalls: beyond the bound, calls fail at once, say why, and are not executed.
func TestKeyAdmissionMaxConcurrentCalls(t *testing.T) {
	for name, adaptive := range map[string]bool{"fixed": false, "adaptive": true} {
		t.Run(name, func(t *testing.T) {
			service, addr := startDoorman(t)
			transport, status := only(t, addr, admission(rpc.AdmissionConfig{MaxConcurrentCalls: 2, Adaptive: adaptive}))
			var calls sync.WaitGroup
			for range 2 {
				calls.Go(func() {
					if err := validate(t.Context(), transport); err != nil {
						t.Error(err)
					}
				})
				<-service.begun
			}
			if got := transport.Status(); got.UnderWay != 2 || got.Limit != 2 {
				t.Errorf("status says that %d are under way, of %d", got.UnderWay, got.Limit)
			}
			err := validate(t.Context(), transport)
			expectCode(t, err, connect.CodeResourceExhausted)
			const want = "resource_exhausted: too many calls are under way: admission.max_concurrent_calls of scripted:///auth lets 2 begin"
			if !errors.Is(err, rpc.ErrTooManyCalls) || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
			if attempts := callError(t, err).Attempts; len(attempts) != 0 {
				t.Errorf("attempts %v, want none", attempts)
			}
			close(service.end)
			calls.Wait()
			if err := validate(t.Context(), transport); err != nil {
				t.Errorf("with room again: %v", err)
			}
			expectCount(t, "executions", &service.validations, 3)
			expectAtRest(t, status(), rpc.ProtocolGRPC)
		})
	}
}

// TestKeyAdmissionMaxWait: who waits for room waits within the call's time, and gets in when another ends.
func TestKeyAdmissionMaxWait(t *testing.T) {
	service, addr := startDoorman(t)
	transport, _ := only(t, addr, admission(rpc.AdmissionConfig{MaxConcurrentCalls: 1, MaxWait: time.Minute}))
	var calls sync.WaitGroup
	calls.Go(func() {
		if err := validate(t.Context(), transport); err != nil {
			t.Error(err)
		}
	})
	<-service.begun
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	expectCode(t, validate(ctx, transport), connect.CodeDeadlineExceeded)
	cancelled, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Millisecond, cancel)
	expectCode(t, validate(cancelled, transport), connect.CodeCanceled)
	calls.Go(func() {
		if err := validate(t.Context(), transport); err != nil {
			t.Errorf("waited in vain: %v", err)
		}
	})
	close(service.end)
	calls.Wait()
	expectCount(t, "executions", &service.validations, 2)
}

// TestAdmissionEndsWithTheTransport: who waits for room is not kept waiting by a transport that is closed.
func TestAdmissionEndsWithTheTransport(t *testing.T) {
	service, addr := startDoorman(t)
	transport, _ := only(t, addr, func(config *rpc.ClientConfig) {
		config.Admission = rpc.AdmissionConfig{MaxConcurrentCalls: 1, MaxWait: time.Minute}
		config.Pool.DrainTimeout = 10 * time.Millisecond
	})
	var calls sync.WaitGroup
	for range 2 {
		calls.Go(func() {
			if err := validate(t.Context(), transport); !errors.Is(err, rpc.ErrClosed) {
				t.Errorf("got %v, want that the transport is closed", err)
			}
		})
	}
	<-service.begun
	if err := transport.Close(); err != nil {
		t.Error(err)
	}
	calls.Wait()
}

// TestAdmissionOfStreams: a stream counts from its opening to its end.
func TestAdmissionOfStreams(t *testing.T) {
	_, addr := wordsAt(t, nil, http1And2)
	for _, adaptive := range []bool{false, true} {
		transport, status := only(t, addr, admission(rpc.AdmissionConfig{MaxConcurrentCalls: 1, Adaptive: adaptive}))
		client := connect.NewClient(transport)
		for range 3 {
			stream, err := transport.NewClientStream(t.Context(), specChat)
			if err == nil {
				err = stream.SendHeaders()
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := callText(t.Context(), client, specEcho, "x"); !errors.Is(err, rpc.ErrTooManyCalls) {
				t.Errorf("got %v beside a stream, want that there is no room", err)
			}
			if err := stream.Close(); err != nil {
				t.Error(err)
			}
			if _, err := callText(t.Context(), client, specEcho, "x"); err != nil {
				t.Errorf("after the stream: %v", err)
			}
		}
		expectAtRest(t, status(), rpc.ProtocolGRPC)
	}
}

// TestAdmissionOfStreamsThatFailToOpen: they leave no place taken.
func TestAdmissionOfStreamsThatFailToOpen(t *testing.T) {
	down := nobody(t)
	transport, _ := only(t, down, admission(rpc.AdmissionConfig{MaxConcurrentCalls: 1}))
	for range 3 {
		stream, err := transport.NewClientStream(t.Context(), specChat)
		if err != nil {
			t.Fatal(err)
		}
		expectCode(t, stream.SendHeaders(), connect.CodeUnavailable)
	}
}
