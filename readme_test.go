package goplt_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/0x1d/goplt/config"
)

// snippet is a fenced block of README.md, and what the comment above it says of running it.
type snippet struct {
	language, run, text string
	line                int
}

var fence = regexp.MustCompile("(?s)(?:<!-- run: (\\w+) -->)?\n```(\\w+)\n(.*?\n)```\n")

func snippets(t *testing.T) []snippet {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var found []snippet
	for _, at := range fence.FindAllSubmatchIndex(readme, -1) {
		part := func(group int) string {
			if at[2*group] < 0 {
				return ""
			}
			return string(readme[at[2*group]:at[2*group+1]])
		}
		found = append(found, snippet{part(2), part(1), part(3), 1 + strings.Count(string(readme[:at[0]]), "\n")})
	}
	if len(found) < 10 {
		t.Fatalf("only %d snippets found in README.md", len(found))
	}
	return found
}

// TestREADMEGoSnippets checks that each Go snippet is code that is compiled and executed elsewhere.
func TestREADMEGoSnippets(t *testing.T) {
	files := map[string]string{"": "readme_snippets_test.go", "wireapp": "test/wireapp/wire.go", "options": "test/wireapp/options.go"}
	for _, s := range snippets(t) {
		if s.language != "go" {
			continue
		}
		code, err := os.ReadFile(files[s.run])
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(code), s.text) {
			t.Errorf("README.md line %d: the snippet is not in %s", s.line, files[s.run])
		}
	}
}

// TestREADMEConfiguration loads each configuration.
func TestREADMEConfiguration(t *testing.T) {
	for _, s := range snippets(t) {
		if s.language != "yaml" {
			continue
		}
		path := filepath.Join(t.TempDir(), "README.yaml")
		if err := os.WriteFile(path, []byte(s.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := config.Load(path, nil); err != nil {
			t.Errorf("README.md line %d: %v", s.line, err)
		}
	}
}

// TestREADMECommands executes the shell snippets, one after the other, beside a goplt serve on a port of its own.
func TestREADMECommands(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed; CI has it")
	}
	sh := newShell(t)
	sh.serve(t)
	for _, s := range snippets(t) {
		if s.language == "sh" && s.run == "" {
			sh.execute(t, s)
		}
	}
}

// shell executes lines of README.md with a goplt of this checkout.
type shell struct {
	bin     string // a directory with the command
	addr    string // where goplt serve listens, in place of README's port
	prelude string // what goes before each line
}

func newShell(t *testing.T) *shell {
	t.Helper()
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(bin, "goplt"), "./cmd/goplt")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return &shell{bin: bin}
}

func (sh *shell) command(ctx context.Context, line string) *exec.Cmd {
	if sh.addr != "" {
		line = strings.ReplaceAll(line, "127.0.0.1:8080", sh.addr)
	}
	line = strings.ReplaceAll(line, "go run ./cmd/goplt", "goplt")
	cmd := exec.CommandContext(ctx, "sh", "-c", sh.prelude+line)
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "GOPLT_") { // what configures goplt on this machine is not README's
			cmd.Env = append(cmd.Env, variable)
		}
	}
	cmd.Env = append(cmd.Env, "PATH="+sh.bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	return cmd
}

// serve starts the snippet that README has run in the background.
func (sh *shell) serve(t *testing.T) {
	t.Helper()
	for _, s := range snippets(t) {
		if s.run == "background" {
			sh.addr = sh.start(t, strings.Replace(strings.TrimSpace(s.text), "127.0.0.1:8080", "127.0.0.1:0", 1)).addr
			return
		}
	}
	t.Fatal("README.md has no snippet to run in the background")
}

// process is a goplt serve in the background.
type process struct {
	sh   *shell
	line string
	addr string // which it printed
	log  *awaited
	cmd  *exec.Cmd
}

// awaited is a log that is read for a text.
type awaited struct {
	text string
	seen chan struct{} // closed when the text has come

	mu  sync.Mutex
	log []byte
}

func (a *awaited) Write(data []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := bytes.Contains(a.log, []byte(a.text))
	a.log = append(a.log, data...)
	if !before && bytes.Contains(a.log, []byte(a.text)) {
		close(a.seen)
	}
	return len(data), nil
}

// start starts a goplt serve and waits until it listens. The process ends with the test.
func (sh *shell) start(t *testing.T, line string) *process {
	t.Helper()
	p := &process{sh: sh, line: line}
	t.Cleanup(func() { p.kill(t) })
	p.run(t)
	return p
}

func (p *process) run(t *testing.T) {
	t.Helper()
	p.cmd = p.sh.command(context.Background(), "exec "+p.line)
	p.log = &awaited{text: "registered=true", seen: make(chan struct{})}
	p.cmd.Stderr = p.log
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fscanf(stdout, "listening on %s\n", &p.addr); err != nil {
		t.Fatalf("%s: %v", p.line, err)
	}
	if _, _, err := net.SplitHostPort(p.addr); err != nil {
		t.Fatal(err)
	}
}

// awaitRegistered waits until the process has said that it is registered, as README has its reader do.
func (p *process) awaitRegistered(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	select {
	case <-p.log.seen:
	case <-ctx.Done():
		p.log.mu.Lock()
		defer p.log.mu.Unlock()
		t.Fatalf("%s has not said in a minute that it is registered:\n%s", p.line, p.log.log)
	}
}

// kill ends the process without a chance to do anything.
func (p *process) kill(t *testing.T) {
	t.Helper()
	if p.cmd == nil || p.cmd.Process == nil {
		return
	}
	if err := p.cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = p.cmd.Wait() // that it was killed
	p.cmd = nil
}

// execute runs the lines of a snippet. Each has to succeed.
func (sh *shell) execute(t *testing.T, s snippet) {
	t.Helper()
	for line := range strings.Lines(s.text) {
		line = strings.TrimSpace(line)
		// The test would call itself, and modules come from the network.
		if strings.HasPrefix(line, "go test") || strings.HasPrefix(line, "go get") || strings.HasPrefix(line, "go mod") ||
			strings.HasPrefix(line, "go install") {
			continue
		}
		out, err := sh.command(t.Context(), line).CombinedOutput()
		if err != nil || strings.Contains(string(out), `"code"`) {
			t.Errorf("README.md line %d: %s: %v\n%s", s.line, line, err, out)
		}
	}
}
