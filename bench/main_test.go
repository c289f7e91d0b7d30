package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if role, ok := os.LookupEnv(roleVariable); ok { // the test binary is its own child, as the program is
		os.Exit(runChild(role, os.Stdin, os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m)
}

func TestPeersAnswerAlike(t *testing.T) {
	for _, peer := range peers() {
		t.Run(peer.name, func(t *testing.T) {
			serving, err := peer.serve()
			if err != nil {
				t.Fatal(err)
			}
			defer serving.stop()
			dialed, err := peer.dial(serving.addr, 4)
			if err != nil {
				t.Fatal(err)
			}
			defer dialed.stop()
			got, err := load(dialed.call, 4, 10*time.Millisecond, time.Minute) // each call checks its answer
			if err != nil {
				t.Fatal(err)
			}
			if got.Calls < 4 || got.P50 <= 0 || got.P99 < got.P50 || got.Usage.Mallocs == 0 || got.Usage.Bytes == 0 {
				t.Errorf("implausible sample: %+v", got)
			}
		})
	}
}

func TestRunMeasuresEveryPeerInProcessesOfItsOwn(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), []string{"-d", "20ms", "-rounds", "2", "-callers", "1,3", "-json"}, &stdout, &stderr); status != exitOK {
		t.Fatalf("exit status %d: %s", status, stderr.String())
	}
	var got struct {
		Cells []struct {
			Peer    string
			Callers int
			Median  map[string]float64
			Ratio   map[string]float64 `json:"ratio_to_grpc_go"`
			Rounds  []map[string]float64
		}
	}
	if err := json.Unmarshal(stdout.Bytes(), &got); err != nil {
		t.Fatalf("%v in %s", err, stdout.String())
	}
	if want := 2 * len(peers()); len(got.Cells) != want {
		t.Fatalf("%d cells, want %d", len(got.Cells), want)
	}
	for _, c := range got.Cells {
		if len(c.Rounds) != 2 || len(c.Ratio) != int(metricCount) {
			t.Errorf("%s, %d callers: %d rounds and %d ratios, want 2 and %d", c.Peer, c.Callers, len(c.Rounds), len(c.Ratio), metricCount)
		}
		for _, column := range columns {
			if column.key != "client_cpu_us_per_call" && column.key != "server_cpu_us_per_call" && c.Median[column.key] <= 0 {
				t.Errorf("%s, %d callers: %s is %v", c.Peer, c.Callers, column.key, c.Median[column.key])
			}
		}
	}
}

func TestRunPrintsTables(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), []string{"-d", "20ms", "-rounds", "1", "-callers", "1,2", "-only", "^grpc-go"}, &stdout, &stderr); status != exitOK {
		t.Fatalf("exit status %d: %s", status, stderr.String())
	}
	for _, want := range []string{"google.golang.org/grpc v", "1 caller ", "2 callers", grpcGoRetry, "(1.00)"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("no %q in\n%s", want, stdout.String())
		}
	}
}

func TestWrongFlagsSayWhatIsRight(t *testing.T) {
	for _, test := range []struct{ arguments, want string }{
		{"-callers 0", `bench: -callers "0": "0" is not a number within 1 to 10000; want a list such as 1,16,128`},
		{"-callers 1,x", `bench: -callers "1,x": "x" is not a number within 1 to 10000; want a list such as 1,16,128`},
		{"-d 1ms", "bench: -d 1ms: want a duration of at least 10ms, such as 1s"},
		{"-d 3", `bench: invalid value "3" for flag -d: parse error`},
		{"-rounds 0", "bench: -rounds 0: want 1 or more, best an odd number"},
		{"-deadline -1s", "bench: -deadline -1s: want a duration such as 10s, or 0 for none"},
		{"-only (", "bench: -only \"(\": want a regular expression: error parsing regexp: missing closing ): `(`"},
		{"-only nothing", `bench: -only "nothing" matches no peer; there are grpc-go, grpc-go rr+retry, connect-go grpc, `},
		{"-d 1s everything", `bench: unexpected argument "everything": calls takes flags only, see bench -h`},
		{"everything", `bench: unexpected argument "everything": there are the measurements calls, picks, policies, discovery, simulate`},
		{"picks -instances 0", `bench: -instances "0": "0" is not a number within 1 to 1000000; want a list such as 3,1000`},
		{"picks -d 1us", "bench: -d 1µs: want a duration of at least 1ms, such as 200ms"},
		{"picks -rounds 0", "bench: -rounds 0: want 1 or more, best an odd number"},
		{"picks 3", `bench: unexpected argument "3": picks takes flags only, see bench picks -h`},
		{"policies -d 1us", "bench: -d 1µs: want a duration of at least 1ms, such as 200ms"},
		{"policies -rounds 0", "bench: -rounds 0: want 1 or more"},
		{"policies -calls 0", "bench: -calls 0: want 1 or more, such as 100"},
		{"policies -only nothing", `bench: -only "nothing" matches no setting; there are those that bench policies prints`},
		{"policies 3", `bench: unexpected argument "3": policies takes flags only, see bench policies -h`},
		{"discovery 3", `bench: unexpected argument "3": discovery takes flags only, see bench discovery -h`},
		{"discovery -changes -1", "bench: -changes -1: want 1 or more, or 0 for none"},
		{"discovery -services 0", "bench: -services 0: want 1 or more"},
		{"discovery -d 1ms", "bench: -d 1ms: want a duration of at least 100ms, such as 20s"},
		{"discovery -watches 0", `bench: -watches "0": "0" is not a number within 1 to 100000; want a list such as 100,1000`},
		{"discovery -only nothing", `bench: -only "nothing" matches no kind of watches; there are loop on the API, api/watch, goplt registry, `},
		{"simulate 3", `bench: unexpected argument "3": simulate takes flags only, see bench simulate -h`},
	} {
		var stdout, stderr bytes.Buffer
		status := run(t.Context(), strings.Fields(test.arguments), &stdout, &stderr)
		if status != exitUsage || !strings.HasPrefix(stderr.String(), test.want) || stdout.Len() > 0 {
			t.Errorf("%s: exit status %d, %q, want %d, %q", test.arguments, status, stderr.String(), exitUsage, test.want)
		}
	}
}

func TestHelpNamesThePeers(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), []string{"-h"}, &stdout, &stderr); status != exitOK {
		t.Errorf("exit status %d", status)
	}
	for _, peer := range peers() {
		if !strings.Contains(stderr.String(), peer.about) {
			t.Errorf("help does not say %q", peer.about)
		}
	}
	for _, measurement := range measurements() {
		if !strings.Contains(stderr.String(), measurement.about) {
			t.Errorf("help does not say %q", measurement.about)
		}
	}
}

func TestChildEndsWithItsInput(t *testing.T) {
	pair, err := startPair(t.Context(), plan{callers: []int{2}}, peers()[0], os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	// A run that would take an hour is under way when the parent goes.
	if err := pair.client.ask.Encode(command{Callers: 2, Duration: time.Hour}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := pair.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > answerGrace/2 {
		t.Errorf("the children ended after %v", took)
	}
}

func TestFailedCallsFailTheRun(t *testing.T) {
	pair, err := startPair(t.Context(), plan{callers: []int{1}}, peers()[0], os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.server.stop(); err != nil {
		t.Fatal(err)
	}
	_, err = pair.client.do(command{Callers: 1, Duration: time.Second, Deadline: time.Minute})
	if err == nil || !strings.HasPrefix(err.Error(), "grpc-go client: a call failed") {
		t.Errorf("calls to a stopped server: %v", err)
	}
	if err := pair.client.stop(); err != nil {
		t.Error(err)
	}
}
