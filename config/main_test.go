package config_test

import (
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/0x1d/goplt/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inFile changes to a new directory with the file goplt.yaml, so that errors name it by that alone.
func inFile(t *testing.T, text string) (path string) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile("goplt.yaml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return "goplt.yaml"
}

// load is config.Load of a file with a text.
func load(t *testing.T, text string, environ ...string) *config.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "goplt.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	loaded, err := config.Load(path, environ)
	if err != nil {
		t.Fatalf("Load:\n%v\nof the file:\n%s\nand %q", err, text, environ)
	}
	return loaded
}
