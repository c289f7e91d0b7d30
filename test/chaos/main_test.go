//go:build integration && linux

package chaos_test

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/0x1d/goplt/internal/testprocess"
)

var (
	seedFlag   = flag.Uint64("chaos.seed", 1, "seed of what breaks, when, and for how long; 0 for one at random, which is said")
	lengthFlag = flag.Duration("chaos.for", 20*time.Second, "how long things break")
	logFlag    = flag.String("chaos.log", "", "file for all that happens")
)

// stalls tells of any call's lateness whether the machine is to blame.
var stalls testprocess.Stalls

func TestMain(m *testing.M) {
	if described := os.Getenv(placeVariable); described != "" {
		if err := serve(described); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	before := testprocess.OpenFiles()
	endWatch := stalls.Watch()
	status := m.Run()
	endWatch()
	if status == 0 {
		if err := testprocess.ExpectNothingLeft(before); err != nil {
			fmt.Fprintf(os.Stderr, "seed %d: %v\n", *seedFlag, err)
			status = 1
		}
	}
	os.Exit(status)
}
