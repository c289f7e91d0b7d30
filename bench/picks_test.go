package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestPicksMeasuresEverySetting(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), strings.Fields("picks -d 1ms -rounds 1 -instances 1,1000 -json"), &stdout, &stderr); status != exitOK {
		t.Fatalf("exit status %d: %s", status, stderr.String())
	}
	var cells []pickCell
	if err := json.Unmarshal(stdout.Bytes(), &cells); err != nil {
		t.Fatalf("%v in %s", err, stdout.String())
	}
	if want := 2 * len(pickSettings()); len(cells) != want {
		t.Errorf("%d cells, want %d", len(cells), want)
	}
	for _, cell := range cells {
		if cell.Nanos <= 0 || cell.Allocs != 0 {
			t.Errorf("%s among %d instances: %.0f ns, %d allocations", cell.Setting, cell.Instances, cell.Nanos, cell.Allocs)
		}
	}
}

func TestPicksPrintsATable(t *testing.T) {
	var out bytes.Buffer
	cells := []pickCell{
		{Setting: "p2c", Instances: 3, Nanos: 40},
		{Setting: "p2c", Instances: 1000, Nanos: 99.4},
		{Setting: "random", Instances: 3, Nanos: 20},
		{Setting: "random", Instances: 1000, Nanos: 30, Allocs: 2},
	}
	for _, test := range []struct {
		nanos float64
		want  string
	}{
		{99.4, "target: p2c at 1000 instances: 99 ns, 0 allocations; at most 100 ns, 0 allocations: met"},
		{100.6, "target: p2c at 1000 instances: 101 ns, 0 allocations; at most 100 ns, 0 allocations: MISSED"},
	} {
		out.Reset()
		cells[1].Nanos = test.nanos
		if err := writePicks(&out, cells, 1); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"random 20 (0) 30 (2)", test.want} {
			if !strings.Contains(strings.Join(strings.Fields(out.String()), " "), want) {
				t.Errorf("no %q in\n%s", want, out.String())
			}
		}
	}
}
