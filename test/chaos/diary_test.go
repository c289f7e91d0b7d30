//go:build integration && linux

package chaos_test

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// diary is the file for all that happens, if there is one.
type diary struct {
	began time.Time

	mu   sync.Mutex
	file *os.File
}

func openDiary(t *testing.T, path string) *diary {
	t.Helper()
	d := &diary{began: time.Now()}
	if path == "" {
		return d
	}
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	d.file = file
	t.Cleanup(func() {
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// now returns the time since the beginning.
func (d *diary) now() time.Duration { return time.Since(d.began).Round(time.Millisecond) }

func (d *diary) write(line string) {
	if d.file == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintf(d.file, "%8v %s\n", d.now(), line)
}

// Write implements [io.Writer] for what is logged.
func (d *diary) Write(line []byte) (int, error) {
	d.write(strings.TrimSpace(string(line)))
	return len(line), nil
}

func (d *diary) logger(route string) *slog.Logger {
	if d.file == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(d, &slog.HandlerOptions{Level: slog.LevelDebug})).With("by", route)
}
