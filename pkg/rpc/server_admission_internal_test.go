package rpc

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
)

// TestAdmissionAllocations: to count calls costs no allocation, and a server that takes on all calls does not count.
func TestAdmissionAllocations(t *testing.T) {
	config := DefaultServerConfig()
	if newAdmission(config, slog.Default()) != nil {
		t.Error("a server without bounds counts its calls")
	}
	config.MaxConcurrentCalls, config.Shedding.Enabled = 1, true
	served := 0
	guarded := newAdmission(config, slog.Default()).guard(func(context.Context, connect.Spec, connect.ServerStream) error {
		served++
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	stream := &timelyStream{ctx: ctx, arrived: true}
	if n := testing.AllocsPerRun(1000, func() {
		if err := guarded(ctx, connect.Spec{}, stream); err != nil {
			t.Fatal(err)
		}
	}); n > 0 || served != 1001 {
		t.Errorf("%v allocations for a call, %d served", n, served)
	}
}
