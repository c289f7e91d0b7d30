package rpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/0x1d/goplt/pkg/rpc"
)

// startFull starts a server that takes on one call, which it has, and returns what ends that.
func startFull(t *testing.T, handlers *connect.Server, words *words, opts ...rpc.ServerOption) (server *rpc.Server, release func()) {
	t.Helper()
	config := testConfig()
	config.MaxConcurrentCalls = 1
	server = startServer(t, handlers, config, opts...)
	ended := make(chan error, 1)
	client := rpcClient(t, server, 1, connecthttp.WithProtoJSON())
	go func() {
		_, err := callText(context.WithoutCancel(t.Context()), client, specHang, "x")
		ended <- err
	}()
	receive(t, "the first call", words.entered)
	return server, func() {
		t.Helper()
		words.release <- struct{}{}
		if err := receive(t, "the end of the first call", ended); err != nil {
			t.Errorf("the first call: %v", err)
		}
	}
}

const fullText = "the server sheds load: max_concurrent_calls is 1, and so many are in flight"

// TestServerMaxConcurrentCalls: a call beyond the bound is rejected in the words of its protocol, reaches neither interceptors nor handler, and its
// client is told when to try again.
func TestServerMaxConcurrentCalls(t *testing.T) {
	t.Parallel()
	options := dialects()
	options["gRPC-Web over HTTP/1"] = []connecthttp.Option{connecthttp.WithGRPCWeb()}
	for name, opts := range options {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var intercepted []string
			words, handlers := newWords(func(next connect.ServerFunc) connect.ServerFunc {
				return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
					intercepted = append(intercepted, spec.Procedure)
					return next(ctx, spec, stream)
				}
			})
			server, release := startFull(t, handlers, words)
			client := rpcClient(t, server, versionOf(name), opts...)
			for range 20 {
				ctx, info := connect.NewClientContext(t.Context())
				_, err := callText(ctx, client, specEcho, "x")
				if connect.CodeOf(err) != connect.CodeResourceExhausted || err.Error() != "resource_exhausted: "+fullText {
					t.Fatalf("got %v\nwant resource_exhausted: %s", err, fullText)
				}
				expectPushback(t, err, info.ResponseTrailer().Get("Grpc-Retry-Pushback-Ms"))
			}
			if got := server.Status(); got.InFlight < 1 || got.Limit != 0 || !got.Shedding || got.Rejected != 20 {
				t.Errorf("status %+v, want 20 calls rejected", got)
			}
			release()
			if answer, err := callText(t.Context(), client, specEcho, "x"); err != nil || answer != "x" {
				t.Errorf("after the first call has ended: got %q, %v", answer, err)
			}
			if len(intercepted) != 2 {
				t.Errorf("interceptors saw %q, want the first call and the last", intercepted)
			}
		})
	}
}

// expectPushback checks that an error and its trailer tell the same wait, within what the default pushback allows.
func expectPushback(t *testing.T, err error, trailer string) {
	t.Helper()
	milliseconds, parseErr := strconv.Atoi(trailer)
	if parseErr != nil || milliseconds < 250 || milliseconds > 750 {
		t.Errorf("grpc-retry-pushback-ms is %q, want 250 to 750", trailer)
	}
	rpcErr, ok := errors.AsType[*connect.Error](err)
	if !ok || len(rpcErr.Details()) != 1 || rpcErr.Details()[0].Type != "google.rpc.RetryInfo" {
		t.Fatalf("details of %v, want one RetryInfo", err)
	}
	// retry_delay, of less than a second, holds nothing but nanos, its second field.
	value := rpcErr.Details()[0].Value
	nanos, n := protowire.ConsumeVarint(value[min(3, len(value)):])
	if n < 1 || value[0] != 0x0a || value[2] != 0x10 || time.Duration(nanos) != time.Duration(milliseconds)*time.Millisecond {
		t.Errorf("RetryInfo is % x, want %d ms", value, milliseconds)
	}
}

// TestServerRejectsInHTTP: what a user with curl sees.
func TestServerRejectsInHTTP(t *testing.T) {
	t.Parallel()
	words, handlers := newWords()
	server, release := startFull(t, handlers, words)
	defer release()
	status, body, header := post(t, httpClient(t, 1, nil), http.MethodPost, "http://"+server.Addr()+specEcho.Procedure, "application/json", `"x"`)
	want := regexp.MustCompile(`^\{"code":"resource_exhausted","message":"` + regexp.QuoteMeta(fullText) +
		`","details":\[\{"type":"google.rpc.RetryInfo","value":"[\w+/]+","debug":\{"retryDelay":"0.\d{3}s"\}\}\]\}$`)
	if status != http.StatusTooManyRequests || !want.MatchString(body) || !json.Valid([]byte(body)) {
		t.Errorf("got %d %s\nwant 429 %s", status, body, want)
	}
	if got := header.Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After is %q, want 1", got)
	}
	status, body, header = post(t, httpClient(t, 2, nil), http.MethodPost, "http://"+server.Addr()+specSplit.Procedure, "application/connect+json", "")
	if got := header.Get("Retry-After"); status != http.StatusOK || got != "" || !strings.Contains(body, `"error":{"code":"resource_exhausted"`) {
		t.Errorf("a stream: got %d %q with Retry-After %q, want the error in it", status, body, got)
	}
}

// TestServerPushback: half as much to half as much again, in whole seconds where it must be; and none if there is to be none.
func TestServerPushback(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		pushback    time.Duration
		least, most int
	}{
		{10 * time.Second, 5000, 15000}, {time.Millisecond, 1, 2}, {1, 1, 1}, {0, 0, 0},
	} {
		t.Run(row.pushback.String(), func(t *testing.T) {
			t.Parallel()
			words, handlers := newWords()
			config := testConfig()
			config.MaxConcurrentCalls, config.Shedding.Pushback = 1, row.pushback
			server := startServer(t, handlers, config)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			client := rpcClient(t, server, 2)
			go func() { _, _ = callText(ctx, client, specHang, "x") }()
			receive(t, "the first call", words.entered)
			for range 20 {
				ctx, info := connect.NewClientContext(t.Context())
				_, err := callText(ctx, client, specEcho, "x")
				rpcErr, ok := errors.AsType[*connect.Error](err)
				if !ok || rpcErr.Code() != connect.CodeResourceExhausted {
					t.Fatalf("got %v, want it rejected", err)
				}
				trailer, after := info.ResponseTrailer().Get("Grpc-Retry-Pushback-Ms"), info.ResponseHeader().Get("Retry-After")
				if row.pushback == 0 {
					if trailer != "" || after != "" || len(rpcErr.Details()) > 0 {
						t.Errorf("told to wait: %q, %q, %v", trailer, after, rpcErr.Details())
					}
					continue
				}
				milliseconds, err := strconv.Atoi(trailer)
				if err != nil || milliseconds < row.least || milliseconds > row.most {
					t.Errorf("grpc-retry-pushback-ms is %q, want %d to %d", trailer, row.least, row.most)
				}
				if after != strconv.Itoa((milliseconds+999)/1000) {
					t.Errorf("Retry-After is %q for %d ms", after, milliseconds)
				}
			}
		})
	}
}

// TestServerNeverShedsHealth, nor reflection: a server that does all it can is not to be taken for one that does not work.
func TestServerNeverShedsHealth(t *testing.T) {
	t.Parallel()
	own := func(handlers *connect.Server) { // health and reflection of the caller's own, which the guard stands before
		for _, procedure := range []string{"/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"} {
			handlers.Register(unary(connect.Spec{Procedure: procedure}, func(context.Context, string) (string, error) { return "own", nil }))
		}
	}
	for name, register := range map[string]func(*connect.Server){"ours": func(*connect.Server) {}, "the caller's own": own} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			words, handlers := newWords()
			register(handlers)
			server, release := startFull(t, handlers, words)
			defer release()
			client := httpClient(t, 2, nil)
			if name == "ours" {
				status, body, _ := post(t, client, http.MethodPost, "http://"+server.Addr()+"/grpc.health.v1.Health/Check", "application/json", "{}")
				if status != http.StatusOK || body != `{"status":"SERVING"}` {
					t.Errorf("health: got %d %s", status, body)
				}
				status, body, _ = post(t, client, http.MethodPost, "http://"+server.Addr()+"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
					"application/connect+json", "\x00\x00\x00\x00\x14{\"listServices\":\"*\"}")
				if status != http.StatusOK || !strings.Contains(body, `{"name":"grpc.health.v1.Health"}`) {
					t.Errorf("reflection: got %d %s", status, body)
				}
				return
			}
			for _, procedure := range []string{"/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"} {
				status, body, _ := post(t, client, http.MethodPost, "http://"+server.Addr()+procedure, "application/json", `"x"`)
				if status != http.StatusOK || body != `"own"` {
					t.Errorf("%s: got %d %s", procedure, status, body)
				}
			}
		})
	}
}

// TestServerCountsStreams while they are open, however they end.
func TestServerCountsStreams(t *testing.T) {
	t.Parallel()
	for name, opts := range dialects() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			words, handlers := newWords()
			config := testConfig()
			config.MaxConcurrentCalls = 1
			server := startServer(t, handlers, config)
			client := rpcClient(t, server, versionOf(name), opts...)
			for _, end := range []string{"by the handler", "by the client"} {
				ctx, cancel := context.WithCancel(t.Context())
				stream, err := client.CallServerStream(ctx, specStay, wrapperspb.String("x"))
				if err != nil {
					t.Fatal(err)
				}
				receive(t, "the stream", words.entered)
				if _, err := callText(t.Context(), client, specEcho, "x"); connect.CodeOf(err) != connect.CodeResourceExhausted {
					t.Errorf("a call beside a stream: got %v, want it rejected", err)
				}
				second, err := client.CallServerStream(t.Context(), specSplit, wrapperspb.String("x"))
				if err == nil {
					err = second.Receive(&wrapperspb.StringValue{})
				}
				if connect.CodeOf(err) != connect.CodeResourceExhausted || err.Error() != "resource_exhausted: "+fullText {
					t.Errorf("a second stream: got %v, want it rejected", err)
				}
				if end == "by the handler" {
					words.release <- struct{}{}
					receiveAll(t, stream)
				}
				cancel()
				awaitAdmitted(t, client)
			}
		})
	}
}

// awaitAdmitted waits until the server has noticed the end of whatever it was at, and takes on another call.
func awaitAdmitted(t *testing.T, client *connect.Client) {
	t.Helper()
	began := time.Now()
	for {
		_, err := callText(t.Context(), client, specEcho, "x")
		if err == nil {
			return
		}
		if connect.CodeOf(err) != connect.CodeResourceExhausted || time.Since(began) > patience {
			t.Fatalf("got %v, want the call admitted", err)
		}
	}
}

// TestRow37PanicReturnsThePermit: however a call ends, the server takes on the next one.
func TestRow37PanicReturnsThePermit(t *testing.T) {
	t.Parallel()
	for name, opts := range dialects() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			words, handlers := newWords()
			config := testConfig()
			config.MaxConcurrentCalls, config.Shedding.Enabled = 1, true
			server := startServer(t, handlers, config)
			client := rpcClient(t, server, versionOf(name), opts...)
			for range 50 {
				if _, err := callText(t.Context(), client, specPanic, "luck"); connect.CodeOf(err) != connect.CodeInternal {
					t.Fatalf("a panic: got %v, want internal", err)
				}
			}
			if _, err := callText(t.Context(), client, specFail, "x"); connect.CodeOf(err) != connect.CodeNotFound {
				t.Errorf("an error: got %v, want not_found", err)
			}
			if _, err := callText(t.Context(), client, specPanic, "abort"); err == nil {
				t.Error("an aborted call succeeded")
			}
			awaitAdmitted(t, client)
			ctx, cancel := context.WithCancel(t.Context())
			given := make(chan error, 1)
			go func() {
				_, err := callText(ctx, client, specHang, "x")
				given <- err
			}()
			receive(t, "the call", words.entered)
			cancel()
			if err := receive(t, "its end", given); connect.CodeOf(err) != connect.CodeCanceled {
				t.Errorf("a call given up: got %v, want canceled", err)
			}
			awaitAdmitted(t, client)
			awaitStatus(t, server, func(status rpc.ServerStatus) bool { return status.InFlight == 0 && status.Limit == 0 })
		})
	}
}

// awaitStatus waits until the server's status is as wanted.
func awaitStatus(t *testing.T, server *rpc.Server, wanted func(rpc.ServerStatus) bool) {
	t.Helper()
	for began := time.Now(); !wanted(server.Status()); elapse(t, time.Millisecond) {
		if time.Since(began) > patience {
			t.Fatalf("status %+v", server.Status())
		}
	}
}

// TestServerRejectsBeforeTheMessage: a client that has sent no more than its header hears already.
func TestServerRejectsBeforeTheMessage(t *testing.T) {
	t.Parallel()
	words, handlers := newWords()
	server, release := startFull(t, handlers, words)
	defer release()
	body, unsent := io.Pipe()
	defer unsent.Close()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+server.Addr()+specEcho.Procedure, body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/grpc")
	answered := make(chan string, 1)
	client := httpClient(t, 2, nil)
	go func() {
		response, err := client.Do(request)
		if err != nil {
			answered <- err.Error()
			return
		}
		defer response.Body.Close()
		_, _ = io.Copy(io.Discard, response.Body)
		answered <- fmt.Sprint(response.Trailer.Get("Grpc-Status"), response.Header.Get("Grpc-Status"))
	}()
	if got := receive(t, "the answer", answered); got != "8" {
		t.Errorf("grpc-status %s, want 8", got)
	}
}

// TestServerStopsWhileFull: to be full does not keep a server from stopping, nor a call in flight from finishing.
func TestServerStopsWhileFull(t *testing.T) {
	t.Parallel()
	words, handlers := newWords()
	server, release := startFull(t, handlers, words)
	if _, err := callText(t.Context(), rpcClient(t, server, 2), specEcho, "x"); connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("got %v, want it rejected", err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- server.Stop(context.Background()) }()
	awaitStatus(t, server, func(rpc.ServerStatus) bool { return server.Health().Status("") == rpc.HealthNotServing })
	release()
	if err := receive(t, "the end of the server", stopped); err != nil {
		t.Errorf("stop: %v", err)
	}
	if got := server.Status(); got.InFlight != 0 || got.Shedding || got.Rejected != 1 {
		t.Errorf("status %+v after the end", got)
	}
}
