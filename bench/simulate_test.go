package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestSimulatePrintsTheTablesOfTests(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), strings.Fields("simulate -only Subsets"), &stdout, &stderr); status != exitOK {
		t.Fatalf("exit status %d: %s%s", status, stdout.String(), stderr.String())
	}
	if got := stdout.String(); !strings.HasPrefix(got, "Subsets of 100 clients among 1000 instances") || strings.Contains(got, "PASS") {
		t.Errorf("printed\n%s", got)
	}
	stdout.Reset()
	if status := run(t.Context(), strings.Fields("simulate -only Nothing"), &stdout, &stderr); status != exitUsage || stdout.Len() > 0 {
		t.Errorf("a name of no simulation: exit status %d, %s", status, stdout.String())
	}
}

func TestOnlyWhatTestsWroteIsPrinted(t *testing.T) {
	var out bytes.Buffer
	written, err := writeTestOutput(&out, strings.NewReader("=== RUN   TestA\n    one\n      two\n--- PASS: TestA\n=== RUN   TestB\n    three\nPASS\nok\n"))
	if err != nil || written != 3 || out.String() != "one\n  two\n\nthree\n" {
		t.Errorf("%d lines, %v: %q", written, err, out.String())
	}
}
