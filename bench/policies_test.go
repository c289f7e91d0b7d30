package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestPoliciesMeasuresEverySetting(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), strings.Fields("policies -d 1ms -rounds 1 -calls 20 -json"), &stdout, &stderr); status != exitOK {
		t.Fatalf("exit status %d: %s", status, stderr.String())
	}
	var costs []policyCost
	if err := json.Unmarshal(stdout.Bytes(), &costs); err != nil {
		t.Fatalf("%v in %s", err, stdout.String())
	}
	if want := 2 * len(policySettings()); len(costs) != want {
		t.Errorf("%d costs, want %d", len(costs), want)
	}
	for _, cost := range costs {
		// The times of so few calls tell nothing. A call without policies allocates too, and with a deadline of its caller's more than with another.
		if cost.BareNanos <= 0 || cost.BareAllocs < 50 || cost.Allocs < -5 {
			t.Errorf("implausible cost: %+v", cost)
		}
		if cost.Aimed && cost.Allocs > mostPolicyAllocs+0.5 && !raceDetector {
			t.Errorf("%s, %s: %.1f allocations more than on the bare wire, want at most %d", cost.Setting, cost.Protocol, cost.Allocs, mostPolicyAllocs)
		}
	}
}

func TestPoliciesPrintsATable(t *testing.T) {
	var out bytes.Buffer
	err := writePolicies(&out, []policyCost{
		{Setting: "default", Protocol: "gRPC", Nanos: 1499.6, Allocs: 6.01, Bytes: 415.7, BareNanos: 20000, BareAllocs: 122, Aimed: true, Met: true},
		{Setting: "default", Protocol: "JSON", Nanos: 1600, Allocs: 5, BareNanos: 18000, BareAllocs: 98, Aimed: true},
		{Setting: "hedged", Protocol: "gRPC", Nanos: 2000, Allocs: 31, BareNanos: 20000, BareAllocs: 122},
		{Setting: "hedged", Protocol: "JSON", Nanos: -3, Allocs: 30, BareNanos: 18000, BareAllocs: 98},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\ndefault +1500 (+6, +416 B) 20000 (122) +1600 (+5, +0 B) 18000 (98)\n",
		"\nhedged +2000 (+31, +0 B) 20000 (122) -3 (+30, +0 B) 18000 (98)\n",
		"\naim: gRPC, default: 1500 ns, 6 allocations; at most 1500 ns, 6 allocations: met\n",
		"\naim: JSON, default: 1600 ns, 5 allocations; at most 1500 ns, 6 allocations: MISSED\n",
	} {
		var lines []string
		for line := range strings.Lines(out.String()) {
			lines = append(lines, strings.Join(strings.Fields(line), " ")+"\n")
		}
		if !strings.Contains(strings.Join(lines, ""), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Count(out.String(), "aim:") != 2 {
		t.Errorf("not two aims in\n%s", out.String())
	}
}

// TestMemoryPeersTakeWritesInAnyPieces: a connection in memory promises no more than one of the kernel's.
func TestMemoryPeersTakeWritesInAnyPieces(t *testing.T) {
	frame := func(kind, flags byte, stream uint32, payload string) string {
		var out bytes.Buffer
		writeFrame(&out, kind, flags, stream, []byte(payload))
		return out.String()
	}
	grpcAnswer := frame(frameHeaders, flagEndHeaders, 1, "\x88\x00\x0ccontent-type\x16application/grpc+proto") +
		frame(frameData, 0, 1, "\x00\x00\x00\x00\x02ok") + frame(frameHeaders, flagEndHeaders|flagEndStream, 1, "\x00\x0bgrpc-status\x010")
	for _, test := range []struct {
		name, asked, want string
		peer              func() memoryPeer
	}{
		{
			"HTTP/1.1", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nhello worldPOST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx",
			strings.Repeat("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok", 2),
			func() memoryPeer { return newHTTP1Peer("text/plain", []byte("ok")) },
		},
		{
			"HTTP/2",
			http2Preface + frame(frameSettings, 0, 0, "") + frame(frameHeaders, flagEndHeaders, 1, "header") + frame(framePing, 0, 0, "01234567") +
				frame(frameData, flagEndStream, 1, "message") + frame(frameSettings, flagAck, 0, ""),
			frame(frameSettings, 0, 0, "") + frame(frameWindowUpdate, 0, 0, "\x7f\xff\x00\x00") + frame(frameSettings, flagAck, 0, "") +
				frame(framePing, flagAck, 0, "01234567") + grpcAnswer,
			func() memoryPeer { return newGRPCPeer([]byte("ok")) },
		},
	} {
		for _, size := range []int{1, 7, len(test.asked)} {
			conn := newMemoryConn(test.peer())
			for rest := test.asked; rest != ""; {
				n := min(size, len(rest))
				if wrote, err := conn.Write([]byte(rest[:n])); wrote != n || err != nil {
					t.Fatalf("%s: wrote %d of %d: %v", test.name, wrote, n, err)
				}
				rest = rest[n:]
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
			var got bytes.Buffer
			if _, err := got.ReadFrom(conn); err != nil || got.String() != test.want {
				t.Errorf("%s, %d bytes at a time: answered %q, %v; want %q", test.name, size, got.String(), err, test.want)
			}
		}
	}
}
