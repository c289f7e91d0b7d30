package consultest

import (
	"context"
	"testing"
)

// T is what an agent needs of whom it belongs to: a test, or a program that is none and offers the same. Fatal and Fatalf do not return, and what
// Cleanup was given runs at the end, last first, after the context has ended.
type T interface {
	Context() context.Context
	TempDir() string
	Cleanup(end func())
	Failed() bool
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

var _ T = testing.TB(nil)
