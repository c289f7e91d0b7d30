package testprocess

import (
	"fmt"
	"os"
	"strings"
	"time"

	"go.uber.org/goleak"
)

// OpenFiles returns how many files and sockets the process has open, 0 where the system does not say. Those of the runtime's poller, which it opens
// when it first needs them, do not count.
func OpenFiles() int {
	const dir = "/proc/self/fd/"
	entries, _ := os.ReadDir(dir)
	open := 0
	for _, entry := range entries {
		if file, err := os.Readlink(dir + entry.Name()); err == nil && !strings.HasPrefix(file, "anon_inode:[event") { // else that of dir itself
			open++
		}
	}
	return open
}

// ExpectNothingLeft returns an error if goroutines, or more files than there were before the tests, are left when they are over.
func ExpectNothingLeft(files int) error {
	if err := goleak.Find(); err != nil {
		return fmt.Errorf("goroutines are left: %w", err)
	}
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(10 * time.Second); OpenFiles() > files; <-ticker.C { // a socket is gone some time after it was closed
		if time.Now().After(deadline) {
			return fmt.Errorf("%d files are open, %d were before the tests", OpenFiles(), files)
		}
	}
	return nil
}
