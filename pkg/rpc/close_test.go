package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/wrapperspb"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/rpc"
)

// watched counts what a transport does with its registry.
type watched struct {
	*scripted

	watching, nexts atomic.Int64
}

func (w *watched) Watch(target registry.Target) (registry.Watcher, error) {
	inner, err := w.scripted.Watch(target)
	if err != nil {
		return nil, err
	}
	w.watching.Add(1)
	return &watchedWatcher{Watcher: inner, of: w}, nil
}

type watchedWatcher struct {
	registry.Watcher

	of   *watched
	once sync.Once
}

func (w *watchedWatcher) Next(ctx context.Context) ([]registry.Instance, error) {
	w.of.nexts.Add(1)
	return w.Watcher.Next(ctx)
}

func (w *watchedWatcher) Close() error {
	w.once.Do(func() { w.of.watching.Add(-1) })
	return w.Watcher.Close()
}

// TestConstructorsDoNoIO: a transport asks its registry, and dials, when it is first used, and not before.
func TestConstructorsDoNoIO(t *testing.T) {
	listener := listen(t)
	serveOn(t, listener, (&authHandler{}).mount(), http1And2)
	reg := &watched{scripted: newScripted(instanceAt(t, "one", listener.Addr().String()))}
	transport := newTransport(t, reg, nil)
	client := newAuthClient(transport)
	if _, err := transport.NewClientStream(t.Context(), specChat); err != nil {
		t.Fatal(err)
	}
	all, _, _ := listener.begins()
	if all != 0 || reg.nexts.Load() != 0 || reg.watching.Load() != 0 {
		t.Errorf("before the first call: %d connections, %d questions to the registry, %d watches", all, reg.nexts.Load(), reg.watching.Load())
	}
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() {
			if _, err := client.Login(t.Context(), &authv1.LoginRequest{}); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	expectCount(t, "watches after the first calls", &reg.watching, 1)
	if err := transport.Close(); err != nil {
		t.Error(err)
	}
	expectCount(t, "watches after Close", &reg.watching, 0)
}

func TestNewTransportErrors(t *testing.T) {
	config := func(adjust func(*rpc.ClientConfig)) rpc.Option {
		config := rpc.DefaultClientConfig()
		adjust(&config)
		return rpc.WithClientConfig(config)
	}
	missing := filepath.Join(t.TempDir(), "missing.pem")
	for _, row := range []struct {
		target string
		reg    registry.ServiceRegistry
		option rpc.Option
		want   string
	}{
		{"", newScripted(), nil, `registry: invalid target "": service name is empty`},
		{"scripted:///../kv", newScripted(), nil, `registry: invalid target "scripted:///../kv": `},
		{"other:///auth", newScripted(), nil, `registry: invalid target "other:///auth": scheme "other"`},
		{"auth", nil, nil, `transport to "auth": no registry`},
		{
			"auth", nil, config(func(c *rpc.ClientConfig) { c.Protocol = rpc.ProtocolInProcess }),
			`transport to "auth": protocol inprocess needs the server to call, see WithInProcess`,
		},
		{"auth", newScripted(), rpc.WithClientConfig(rpc.ClientConfig{Protocol: "soap"}), `transport to "auth": protocol: "soap" is not one of auto, grpc, http, inprocess` + "\n"},
		{"auth", newScripted(), config(func(c *rpc.ClientConfig) { c.Retry.MaxAttempts = 9 }), `transport to "auth": retry.max_attempts: 9 is not within 1 to 5`},
		{
			"auth", newScripted(), config(func(c *rpc.ClientConfig) { c.TLS = rpc.TLSConfig{Enabled: true, CAFile: missing} }),
			`transport to "auth": tls.ca_file: open ` + missing + `: no such file or directory`,
		},
		{"auth", newScripted(), config(func(c *rpc.ClientConfig) {
			c.TLS = rpc.TLSConfig{Enabled: true, CertFile: missing, KeyFile: missing}
		}), `transport to "auth": tls.cert_file: open ` + missing + `: no such file or directory`},
	} {
		var options []rpc.Option
		if row.option != nil {
			options = append(options, row.option)
		}
		transport, err := rpc.NewTransport(row.target, row.reg, options...)
		if transport != nil || err == nil || !strings.HasPrefix(err.Error(), row.want) {
			t.Errorf("%q: got %v\nwant %s", row.target, err, row.want)
		}
	}
}

func TestCallsAfterClose(t *testing.T) {
	for _, inProcess := range []bool{false, true} {
		_, handlers := newWords()
		config := rpc.DefaultClientConfig()
		if inProcess {
			config.Protocol = rpc.ProtocolInProcess
		}
		transport, err := rpc.NewTransport("auth", newScripted(), rpc.WithClientConfig(config), rpc.WithInProcess(handlers))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := transport.Close(); err != nil {
				t.Error(err)
			}
		}
		client := connect.NewClient(transport)
		_, err = callText(t.Context(), client, specEcho, "x")
		_, streamErr := client.CallServerStream(t.Context(), specSplit, wrapperspb.String("x"))
		for _, err := range []error{err, streamErr} {
			expectCode(t, err, connect.CodeUnavailable)
			if !errors.Is(err, rpc.ErrClosed) || err.Error() != "unavailable: transport is closed" {
				t.Errorf("in process %t: got %v", inProcess, err)
			}
		}
		if status := transport.Status(); status.Target != "auth" || len(status.Instances) != 0 {
			t.Errorf("status %+v", status)
		}
	}
}

// hanging is a transport of each kind to a words service, and the service.
func hanging(t *testing.T, spoken rpc.Protocol, drain time.Duration) (*words, *rpc.Transport) {
	t.Helper()
	service, handlers := newWords()
	server, err := rpc.NewServer(handlers)
	if err != nil {
		t.Fatal(err)
	}
	config := rpc.DefaultClientConfig()
	config.Protocol, config.Pool.DrainTimeout = spoken, drain
	reg := newScripted(instanceAt(t, "one", startHTTP(t, server.Handler(), http1And2).Listener.Addr().String()))
	transport, err := rpc.NewTransport("scripted:///auth", reg, rpc.WithClientConfig(config), rpc.WithInProcess(handlers))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = transport.Close() })
	return service, transport
}

func TestCloseDrains(t *testing.T) {
	for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP, rpc.ProtocolInProcess} {
		t.Run(string(spoken), func(t *testing.T) {
			service, transport := hanging(t, spoken, time.Minute)
			client := connect.NewClient(transport)
			called := make(chan error, 1)
			go func() {
				_, err := callText(t.Context(), client, specHang, "x")
				called <- err
			}()
			<-service.entered
			stream, err := client.CallServerStream(t.Context(), specStay, wrapperspb.String("x"))
			if err != nil {
				t.Fatal(err)
			}
			read := make(chan error, 1)
			go func() {
				_, err := readAll(stream)
				read <- err
			}()
			<-service.entered
			closed := make(chan struct{}, 2)
			for range 2 {
				go func() {
					if err := transport.Close(); err != nil {
						t.Error(err)
					}
					closed <- struct{}{}
				}()
			}
			await(t, "new calls to be refused", func() bool {
				_, err := callText(t.Context(), client, specEcho, "x")
				return errors.Is(err, rpc.ErrClosed)
			})
			select {
			case <-closed:
				t.Error("Close returned before the calls under way ended")
			default:
			}
			close(service.release)
			if err := errors.Join(<-called, <-read); err != nil {
				t.Error(err)
			}
			<-closed
			<-closed
		})
	}
}

// TestKeyPoolDrainTimeout: what does not end in time is cut off, and says why it failed.
func TestKeyPoolDrainTimeout(t *testing.T) {
	for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP, rpc.ProtocolInProcess} {
		for _, drain := range []time.Duration{0, 30 * time.Millisecond} {
			t.Run(fmt.Sprintf("%s %v", spoken, drain), func(t *testing.T) {
				service, transport := hanging(t, spoken, drain)
				client := connect.NewClient(transport)
				failed := make(chan error, 3)
				go func() {
					_, err := callText(t.Context(), client, specHang, "x")
					failed <- err
				}()
				<-service.entered
				idempotent := specHang
				idempotent.IdempotencyLevel = connect.IdempotencyIdempotent
				go func() {
					_, err := callText(t.Context(), client, idempotent, "x")
					failed <- err
				}()
				<-service.entered
				stream, err := client.CallServerStream(t.Context(), specStay, wrapperspb.String("x"))
				if err != nil {
					t.Fatal(err)
				}
				go func() {
					_, err := readAll(stream)
					failed <- err
				}()
				<-service.entered
				began := time.Now()
				if err := transport.Close(); err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took < drain || took > drain+time.Second {
					t.Errorf("Close took %v", took)
				}
				for range cap(failed) {
					err := <-failed
					expectCode(t, err, connect.CodeUnavailable)
					if !errors.Is(err, rpc.ErrClosed) || !strings.HasPrefix(fmt.Sprint(err), "unavailable: transport is closed: cut off after the drain timeout: ") {
						t.Errorf("got %v", err)
					}
				}
			})
		}
	}
}

// TestCloseWhileWaiting: calls that wait for instances, for a connection or for their next attempt end with the transport.
func TestCloseWhileWaiting(t *testing.T) {
	silentPeer := listen(t)
	serveOn(t, deaf{Listener: silentPeer, toAll: true}, nil, http1Only)
	down := nobody(t)
	for _, row := range []struct {
		name string
		reg  *scripted
	}{
		{"for the registry", silent()},
		{"for a connection", newScripted(instanceAt(t, "one", silentPeer.Addr().String()))},
		{"for the next attempt", newScripted(instanceAt(t, "one", down))},
	} {
		t.Run(row.name, func(t *testing.T) {
			config := rpc.DefaultClientConfig()
			config.Pool.DrainTimeout, config.Retry.InitialBackoff, config.Retry.MaxBackoff, config.Retry.MaxAttempts = 10*time.Millisecond, time.Second, time.Second, 5
			transport, err := rpc.NewTransport("scripted:///auth", row.reg, rpc.WithClientConfig(config))
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error)
			go func() { done <- login(t.Context(), transport) }()
			if row.name != "for the registry" {
				await(t, "an attempt to begin", func() bool {
					instances := transport.Status().Instances
					return len(instances) == 1 && instances[0].InFlight+int64(instances[0].Calls) > 0
				})
			}
			began := time.Now()
			if err := transport.Close(); err != nil {
				t.Error(err)
			}
			if err := <-done; !errors.Is(err, rpc.ErrClosed) {
				t.Errorf("got %v, want ErrClosed", err)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// TestCloseRacesCalls: calls that begin while the transport closes either succeed or say that it is closed.
func TestCloseRacesCalls(t *testing.T) {
	handler := &authHandler{}
	addr := startHTTP(t, handler.mount(), http1And2).Listener.Addr().String()
	for range 20 {
		transport := newTransport(t, newScripted(instanceAt(t, "one", addr)), nil)
		handler.logins.Store(0)
		var callers sync.WaitGroup
		var succeeded atomic.Int64
		for range 8 {
			callers.Go(func() {
				for {
					if err := login(t.Context(), transport); errors.Is(err, rpc.ErrClosed) {
						return
					} else if err != nil {
						t.Errorf("got %v, want success or ErrClosed", err)
						return
					}
					succeeded.Add(1)
				}
			})
		}
		await(t, "calls", func() bool { return handler.logins.Load() > 8 })
		if err := transport.Close(); err != nil {
			t.Error(err)
		}
		callers.Wait()
		if succeeded.Load() != handler.logins.Load() {
			t.Errorf("%d calls succeeded, %d were executed", succeeded.Load(), handler.logins.Load())
		}
	}
}

// TestCloseInABackoff: a closed transport keeps nobody waiting for a pushback.
func TestCloseInABackoff(t *testing.T) {
	handler := &authHandler{validate: func(ctx context.Context, _ *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
		info, _ := connect.CallInfoForServerContext(ctx)
		info.ResponseTrailer().Set("Grpc-Retry-Pushback-Ms", "5000")
		return nil, connect.NewError(connect.CodeUnavailable, "come back later")
	}}
	transport, status := only(t, startHTTP(t, handler.mount(), http1And2).Listener.Addr().String(), func(config *rpc.ClientConfig) {
		config.Pool.DrainTimeout = 10 * time.Millisecond
	})
	done := make(chan error, 1)
	go func() { done <- validate(t.Context(), transport) }()
	await(t, "the backoff", func() bool { return status().Calls == 1 })
	began := time.Now()
	if err := transport.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, rpc.ErrClosed) || time.Since(began) > 4*time.Second {
		t.Errorf("got %v after %v, want that the transport is closed before the pushback is over", err, time.Since(began))
	}
}
