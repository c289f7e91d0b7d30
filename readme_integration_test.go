//go:build integration

package goplt_test

import (
	"strings"
	"testing"

	"github.com/0x1d/goplt/internal/consultest"
)

// TestREADMEWithConsul executes the snippet with three instances and a Consul agent, and goes on calling while one is killed.
func TestREADMEWithConsul(t *testing.T) {
	agent := consultest.Start(t)
	sh := newShell(t)
	for _, s := range snippets(t) {
		if s.run != "consul" {
			continue
		}
		for line := range strings.Lines(strings.ReplaceAll(s.text, "127.0.0.1:8500", agent.Address)) {
			line = strings.TrimSpace(line)
			if background, ok := strings.CutSuffix(line, " &"); ok {
				sh.start(t, background)
				continue
			}
			line = strings.ReplaceAll(line, "consul:///", "consul://"+agent.Address+"/")
			for {
				// The agent names an instance when its first check has passed.
				out, err := sh.command(t.Context(), line).CombinedOutput()
				if err == nil {
					t.Logf("%s\n%s", line, out)
					break
				}
				if !strings.Contains(string(out), "no instances") {
					t.Fatalf("%s: %v\n%s", line, err, out)
				}
			}
		}
	}
}

// TestREADMEWithTools executes the snippets that need the developer tools, against goplt serve.
func TestREADMEWithTools(t *testing.T) {
	sh := newShell(t)
	sh.serve(t)
	sh.prelude = "grpcurl() { go tool -modfile=tools/grpcurl/go.mod grpcurl \"$@\"; }; buf() { go tool -modfile=tools/go.mod buf \"$@\"; }; "
	for _, s := range snippets(t) {
		if s.run == "tools" {
			sh.execute(t, s)
		}
	}
}
