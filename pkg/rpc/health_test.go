package rpc_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/0x1d/goplt/pkg/rpc"
)

// The messages of grpc.health.v1 have one field each, a string and an enum, so in binary protobuf's wrappers can stand in for them.
var (
	specCheck = connect.Spec{Procedure: "/grpc.health.v1.Health/Check"}
	specWatch = connect.Spec{Procedure: "/grpc.health.v1.Health/Watch", StreamType: connect.StreamTypeServer}
)

func TestHealthCheck(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	server := startServer(t, handlers, testConfig(), rpc.WithRegistration(&recordingRegistry{}, "words"))
	client := rpcClient(t, server, 2, connecthttp.WithGRPC())
	check := func(service string, want rpc.HealthStatus) {
		t.Helper()
		var reply wrapperspb.Int32Value
		err := client.CallUnary(t.Context(), specCheck, wrapperspb.String(service), &reply)
		if err != nil || rpc.HealthStatus(reply.GetValue()) != want {
			t.Errorf("%q: got %v, %v; want %v", service, rpc.HealthStatus(reply.GetValue()), err, want)
		}
	}
	for _, service := range []string{"", "test.v1.Words", "words"} {
		check(service, rpc.HealthServing)
	}
	server.Health().SetNotServing("test.v1.Words")
	check("test.v1.Words", rpc.HealthNotServing)
	check("", rpc.HealthServing)
	server.Health().SetServing("test.v1.Words")
	check("test.v1.Words", rpc.HealthServing)
	server.Health().SetNotServing("")
	check("", rpc.HealthNotServing)

	err := client.CallUnary(t.Context(), specCheck, wrapperspb.String("test.v1.Nothing"), new(wrapperspb.Int32Value))
	if want := `not_found: unknown service "test.v1.Nothing"`; err == nil || err.Error() != want {
		t.Errorf("unknown service: got %v, want %s", err, want)
	}
	server.Health().SetServing("test.v1.Nothing")
	check("test.v1.Nothing", rpc.HealthServing)
}

// TestHealthOfInstances: by its ID, a registry's check tells an instance from its successor at the same address, and follows its service.
func TestHealthOfInstances(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	reg := &recordingRegistry{}
	server := startServer(t, handlers, testConfig(), rpc.WithRegistration(reg, "words", "letters"))
	words, letters := reg.registered[0].ID, reg.registered[1].ID
	health, client := server.Health(), rpcClient(t, server, 2, connecthttp.WithGRPC())
	expect := func(when string, wantWords, wantLetters rpc.HealthStatus) {
		t.Helper()
		for id, want := range map[string]rpc.HealthStatus{words: wantWords, letters: wantLetters} {
			var reply wrapperspb.Int32Value
			err := client.CallUnary(t.Context(), specCheck, wrapperspb.String(id), &reply)
			if err != nil || rpc.HealthStatus(reply.GetValue()) != want {
				t.Errorf("%s, %s: got %v, %v; want %v", when, id, rpc.HealthStatus(reply.GetValue()), err, want)
			}
		}
	}
	const yes, no = rpc.HealthServing, rpc.HealthNotServing
	expect("at first", yes, yes)
	health.SetNotServing("words")
	expect("without words", no, yes)
	health.SetServing("words")
	expect("with words again", yes, yes)
	health.SetNotServing("")
	expect("without the server", no, no)
	health.SetServing("")
	health.SetNotServing(letters)
	expect("without one instance", yes, no)

	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := health.Status(words); got != no {
		t.Errorf("after stop: %v", got)
	}
	config := testConfig()
	config.Listen = server.Addr()
	successor := startServer(t, handlers, config, rpc.WithRegistration(reg, "words"))
	client = rpcClient(t, successor, 2, connecthttp.WithGRPC())
	err := client.CallUnary(t.Context(), specCheck, wrapperspb.String(words), new(wrapperspb.Int32Value))
	if want := fmt.Sprintf("not_found: unknown service %q", words); err == nil || err.Error() != want {
		t.Errorf("the successor says of %s: %v, want %s", words, err, want)
	}
}

// TestHealthJSON: in JSON the status has the standard's names.
func TestHealthJSON(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	server := startServer(t, handlers, testConfig())
	server.Health().SetNotServing("test.v1.Words")
	for _, row := range []struct {
		request string
		status  int
		want    string
	}{
		{`{}`, http.StatusOK, `{"status":"SERVING"}`},
		{`{"service":"test.v1.Words"}`, http.StatusOK, `{"status":"NOT_SERVING"}`},
		{`{"service":"x"}`, http.StatusNotFound, `{"code":"not_found","message":"unknown service \"x\""}`},
	} {
		status, body, _ := post(t, httpClient(t, 1, nil), http.MethodPost, baseURL(server, nil)+specCheck.Procedure, "application/json", row.request)
		if status != row.status || body != row.want {
			t.Errorf("%s: got %d %s, want %d %s", row.request, status, body, row.status, row.want)
		}
	}
}

func TestHealthWatch(t *testing.T) {
	t.Parallel()
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprintf("HTTP/%d", version), func(t *testing.T) {
			t.Parallel()
			_, handlers := newWords()
			server := startServer(t, handlers, testConfig())
			stream, err := rpcClient(t, server, version).CallServerStream(t.Context(), specWatch, wrapperspb.String("test.v1.Later"))
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Close()
			expect := func(want rpc.HealthStatus) {
				t.Helper()
				var reply wrapperspb.Int32Value
				if err := stream.Receive(&reply); err != nil || rpc.HealthStatus(reply.GetValue()) != want {
					t.Fatalf("got %v, %v; want %v", rpc.HealthStatus(reply.GetValue()), err, want)
				}
			}
			expect(rpc.HealthServiceUnknown)
			server.Health().SetServing("test.v1.Later")
			expect(rpc.HealthServing)
			server.Health().SetServing("test.v1.Later") // is no change, so not sent
			server.Health().SetNotServing("test.v1.Other")
			server.Health().SetNotServing("test.v1.Later")
			expect(rpc.HealthNotServing)
			server.Health().SetServing("test.v1.Later")
			expect(rpc.HealthServing)

			stopped := make(chan error, 1)
			go func() { stopped <- server.Stop(t.Context()) }()
			expect(rpc.HealthNotServing)
			err = stream.Receive(new(wrapperspb.Int32Value))
			if want := "unavailable: the server is stopping"; err == nil || err.Error() != want {
				t.Errorf("end of the watch: got %v, want %s", err, want)
			}
			if err := <-stopped; err != nil {
				t.Errorf("stop: %v", err)
			}
			server.Health().SetServing("test.v1.Later")
			if got := server.Health().Status("test.v1.Later"); got != rpc.HealthNotServing {
				t.Errorf("set serving after stop: got %v, want not serving", got)
			}
		})
	}
}

func TestHealthStatus(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	server, err := rpc.NewServer(handlers)
	if err != nil {
		t.Fatal(err)
	}
	for service, want := range map[string]rpc.HealthStatus{"": rpc.HealthServing, "test.v1.Words": rpc.HealthServing, "x": rpc.HealthServiceUnknown} {
		if got := server.Health().Status(service); got != want {
			t.Errorf("%q: got %v, want %v", service, got, want)
		}
	}
}

// TestHealthOfTheCaller: a server that has its own health keeps it.
func TestHealthOfTheCaller(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	handlers.Register(unary(specCheck, func(context.Context, string) (string, error) {
		return "", connect.NewError(connect.CodeDataLoss, "my own")
	}))
	server := startServer(t, handlers, testConfig())
	err := rpcClient(t, server, 2, connecthttp.WithGRPC()).CallUnary(t.Context(), specCheck, new(wrapperspb.StringValue), new(wrapperspb.Int32Value))
	if want := "data_loss: my own"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
