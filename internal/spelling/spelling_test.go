package spelling_test

import (
	"testing"

	"github.com/0x1d/goplt/internal/spelling"
)

func TestDistance(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"auth", "auth", 0},
		{"", "auth", 4},
		{"auth", "", 4},
		{"auth", "auht", 1},
		{"auth", "uath", 1},
		{"auth", "ath", 1},
		{"auth", "authz", 1},
		{"auth", "audit", 3},
		{"identity", "audit", 6},
		{"ab", "cd", 2},
	} {
		if got := spelling.Distance(row.a, row.b); got != row.want {
			t.Errorf("%q to %q: %d, want %d", row.a, row.b, got, row.want)
		}
		if got := spelling.Distance(row.b, row.a); got != row.want {
			t.Errorf("%q to %q: %d, want %d", row.b, row.a, got, row.want)
		}
	}
}
