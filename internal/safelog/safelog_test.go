package safelog_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/0x1d/goplt/internal/safelog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// touchy is a handler that panics in the methods named.
type touchy struct {
	slog.Handler

	in string
}

func (h touchy) may(method string) {
	if strings.Contains(h.in, method) {
		panic("out of " + method)
	}
}

func (h touchy) Enabled(ctx context.Context, level slog.Level) bool {
	h.may("Enabled")
	return h.Handler.Enabled(ctx, level)
}

func (h touchy) Handle(ctx context.Context, record slog.Record) error {
	h.may("Handle")
	return h.Handler.Handle(ctx, record)
}

func (h touchy) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.may("WithAttrs")
	return touchy{h.Handler.WithAttrs(attrs), h.in}
}

func (h touchy) WithGroup(name string) slog.Handler {
	h.may("WithGroup")
	return touchy{h.Handler.WithGroup(name), h.in}
}

// TestPanics: what a handler cannot take is lost, and the rest is logged.
func TestPanics(t *testing.T) {
	for in, want := range map[string]string{
		"": "level=INFO msg=hello who=all group.what=x\n", "Enabled": "", "Handle": "",
		"WithAttrs": "level=INFO msg=hello group.what=x\n", "WithGroup": "level=INFO msg=hello who=all what=x\n",
	} {
		t.Run(in, func(t *testing.T) {
			var log strings.Builder
			withoutTime := &slog.HandlerOptions{ReplaceAttr: func(_ []string, attr slog.Attr) slog.Attr {
				if attr.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return attr
			}}
			said := stderr(t, func() {
				logger := safelog.New(slog.New(touchy{slog.NewTextHandler(&log, withoutTime), in}))
				for range 2 {
					logger.With("who", "all").WithGroup("group").Info("hello", "what", "x")
				}
			})
			if got := log.String(); got != strings.Repeat(want, 2) {
				t.Errorf("logged %q, want %q twice", got, want)
			}
			told := strings.Count(said, "goplt: a log handler panicked, and its record is lost: out of "+in)
			if in == "" && said != "" || in != "" && (told != 1 || !strings.Contains(said, "safelog_test.touchy."+in)) {
				t.Errorf("told on standard error:\n%s\nwant the first panic with its stack, once", said)
			}
		})
	}
}

// TestSafeAlready: a logger is not wrapped again and again, and what its handler returns is passed on.
func TestSafeAlready(t *testing.T) {
	logger := safelog.New(slog.New(slog.NewTextHandler(broken{}, nil)))
	if again := safelog.New(logger); again != logger {
		t.Error("a safe logger is made safe again")
	}
	if err := logger.Handler().Handle(t.Context(), slog.Record{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v, want the handler's own error", err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// stderr returns what is written to standard error meanwhile.
func stderr(t *testing.T, while func()) string {
	t.Helper()
	file, err := os.Create(t.TempDir() + "/stderr")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	before := os.Stderr
	os.Stderr = file
	defer func() { os.Stderr = before }()
	while()
	said, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(said)
}
