package consul

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
)

// tokens gives the ACL token for each request. A file is read each time: requests are few, and so neither a rotation nor a volume that is
// mounted late needs any notice.
type tokens struct {
	value  string // if there is no file
	file   string
	logger *slog.Logger

	mu     sync.Mutex
	last   string // the last good content of file
	failed bool   // the last reading failed, and was logged
}

// current returns the token to send, empty for none. While the file cannot be read the last good one stands; an error says that there is none.
func (t *tokens) current() (string, error) {
	if t.file == "" {
		return t.value, nil
	}
	token, err := readToken(t.file)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.last, t.failed = token, false
		return token, nil
	}
	if t.last == "" {
		return "", err
	}
	if !t.failed {
		t.failed = true
		t.logger.Warn("consul: the token file cannot be read; its last token stays in use", "error", err)
	}
	return t.last, nil
}

// rotates reports whether the token may become another one.
func (t *tokens) rotates() bool { return t.file != "" }

func readToken(file string) (string, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	token := strings.TrimSpace(string(content))
	switch {
	case token == "":
		return "", fmt.Errorf("token file %s is empty", file)
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", fmt.Errorf("token file %s holds more than a token of printable ASCII", file)
	}
	return token, nil
}
