package main

import (
	"strings"
	"testing"
	"time"
)

// rates returns rounds of so many calls per second, with so many client allocations.
func rates(allocations float64, perSecond ...float64) []values {
	rounds := make([]values, len(perSecond))
	for i, rate := range perSecond {
		rounds[i][metricRate], rounds[i][metricClientAllocs] = rate, allocations
	}
	return rounds
}

func TestSummarize(t *testing.T) {
	p := plan{callers: []int{8}, rounds: 3, duration: time.Second}
	for _, name := range []string{grpcGo, connectGRPC, netHTTPJSON, gopltGRPC, gopltJSON} {
		p.peers = append(p.peers, peer{name: name})
	}
	// The machine is twice as fast in the second round, and ratios are none the wiser.
	got := summarize(p, measured{
		{grpcGo, 8}:      rates(100, 1000, 2000, 1000),
		{connectGRPC, 8}: rates(150, 500, 1000, 500),
		{netHTTPJSON, 8}: rates(85, 800, 1600, 800),
		{gopltGRPC, 8}:   rates(165, 450, 900, 450),
		{gopltJSON, 8}:   rates(180, 632, 1264, 800),
	})
	if rate, ratio := got.Cells[1].Median[metricRate], got.Cells[1].Ratio[metricRate]; rate != 500 || ratio != 0.5 {
		t.Errorf("%s: median rate %v, ratio %v, want 500, 0.5", got.Cells[1].Peer, rate, ratio)
	}
	var out strings.Builder
	if err := got.writeTable(&out); err != nil {
		t.Fatal(err)
	}
	_, targets, _ := strings.Cut(out.String(), "targets\n")
	want := `goplt grpc - connect-go grpc, client allocations per call  8 callers  15.00  at most 15.00  met
goplt grpc / connect-go grpc, calls per second             8 callers  0.90   at least 0.90  met
goplt json / net/http json, calls per second               8 callers  0.79   at least 0.80  MISSED
`
	if targets != want {
		t.Errorf("targets:\n%swant\n%s", targets, want)
	}
}

func TestSummarizeWithoutTheReference(t *testing.T) {
	p := plan{callers: []int{1}, rounds: 2, peers: []peer{{name: connectGRPC}}}
	got := summarize(p, measured{{connectGRPC, 1}: rates(150, 500, 700)})
	if c := got.Cells[0]; c.Ratio != nil || c.Median[metricRate] != 600 {
		t.Errorf("ratio %v, median %v, want none, 600", c.Ratio, c.Median[metricRate])
	}
	if len(got.Targets) != 0 {
		t.Errorf("targets without their peers: %v", got.Targets)
	}
}
