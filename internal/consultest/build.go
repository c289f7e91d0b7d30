package consultest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
)

// command returns the path of the consul command, which is built at the first call of a process if no earlier process did.
var command = sync.OnceValues(func() (string, error) {
	modFile, err := toolModule()
	if err != nil {
		return "", err
	}
	sums, err := os.ReadFile(strings.TrimSuffix(modFile, ".mod") + ".sum")
	if err != nil {
		return "", err
	}
	caches, err := os.UserCacheDir()
	if err != nil {
		caches = os.TempDir()
	}
	digest := sha256.Sum256(append(sums, runtime.Version()...))
	built := filepath.Join(caches, "goplt", "consul-"+hex.EncodeToString(digest[:8]))
	if _, err := os.Stat(built); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return built, err
	}
	if err := os.MkdirAll(filepath.Dir(built), 0o755); err != nil {
		return "", err
	}
	// Other test processes may be building too: each builds a file of its own, and the last rename wins.
	own, err := os.MkdirTemp(filepath.Dir(built), "build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(own)
	build := exec.CommandContext(context.Background(), "go", "build", "-C", filepath.Dir(modFile), "-o", filepath.Join(own, "consul"),
		"github.com/hashicorp/consul") // as Taskfile.yml builds it, so that the two share the build cache
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build consul: %w\n%s", err, output)
	}
	return built, os.Rename(filepath.Join(own, "consul"), built)
})

// toolModule returns the go.mod of the module that has consul as a tool, in the repository of the test that runs.
func toolModule() (string, error) {
	output, err := exec.CommandContext(context.Background(), "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	for root := filepath.Dir(strings.TrimSpace(string(output))); ; root = filepath.Dir(root) { // a test may be in a module within the repository
		modFile := filepath.Join(root, "tools", "consul", "go.mod")
		if _, err := os.Stat(modFile); err == nil {
			return modFile, nil
		}
		if root == filepath.Dir(root) {
			return "", fmt.Errorf("no tools/consul/go.mod at or above the module %s", strings.TrimSpace(string(output)))
		}
	}
}

func mustCommand(t T) string {
	t.Helper()
	path, err := command()
	if err != nil {
		t.Fatalf("a consul agent for the test: %v", err)
	}
	return path
}
