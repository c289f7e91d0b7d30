//go:build unix

package testprocess_test

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/0x1d/goplt/internal/testprocess"
)

// What a child does, by the value of this variable.
const (
	variable = "GOPLT_TEST_PROCESS_CHILD"
	ends     = "ends"
	fails    = "fails"
	gone     = "is gone"
)

func TestMain(m *testing.M) {
	switch os.Getenv(variable) {
	case ends:
		fmt.Println("ready to go") //nolint:forbidigo // it is what a child is for
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	case fails:
		fmt.Println("first words\nready to go\nlast words") //nolint:forbidigo // as above
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	case gone:
		os.Exit(1)
	}
	files := testprocess.OpenFiles()
	status := m.Run()
	if err := testprocess.ExpectNothingLeft(files); err != nil && status == 0 {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

func TestChildEndsWhenAsked(t *testing.T) {
	for value, want := range map[string]string{ends: "", fails: "exit status 3"} {
		var said []string
		child, detail, ok := testprocess.StartChild(t, variable+"="+value, "ready", func(line string) { said = append(said, line) })
		if detail != " to go" || !ok {
			t.Errorf("%s: ready %q, %t", value, detail, ok)
		}
		child.Pause()
		child.Continue()
		got := ""
		if err := child.End(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: it ends with %q, want %q", value, got, want)
		}
		if told := strings.Join(said, " "); value == fails && told != "first words last words" {
			t.Errorf("it is told to have said %q", told)
		}
		child.Kill()
	}
}

func TestChildEndsBeforeItIsReady(t *testing.T) {
	child, _, ok := testprocess.StartChild(t, variable+"="+gone, "ready", func(string) {})
	if err := child.End(); err == nil || ok {
		t.Errorf("it is ready: %t, and ends with %v", ok, err)
	}
}

func TestChildIsKilledWhilePaused(t *testing.T) {
	var said []string
	child, _, _ := testprocess.StartChild(t, variable+"="+fails, "ready", func(line string) { said = append(said, line) })
	child.Pause()
	child.Kill()
	child.Kill()
	t.Logf("before, it said %q", said)
}
