package outlier_test

import (
	"slices"
	"testing"
	"time"

	"github.com/0x1d/goplt/internal/outlier"
)

// repeated is what many hosts do alike.
func repeated(count int, result [2]int, others ...[2]int) [][2]int {
	return append(slices.Repeat([][2]int{result}, count), others...)
}

// TestSuccessRate: the numbers are computed by hand. One outlier among n hosts that are otherwise alike lies √(n-1) standard deviations below
// the mean, k alike among n lie √((n-k)/k), whatever their rate.
func TestSuccessRate(t *testing.T) {
	t.Parallel()
	well := [2]int{100, 0}
	for _, row := range []struct {
		name    string
		adjust  func(*outlier.Config)
		results [][2]int
		want    []int
	}{
		{"all well", nil, repeated(5, well), nil},
		{"all alike", nil, repeated(6, [2]int{90, 10}), nil},
		// Mean 0.9, deviation √((4·0.1² + 0.4²)/5) = 0.2, threshold 0.9 - 1.9·0.2 = 0.52.
		{"1 of 5, two deviations below", nil, repeated(4, well, [2]int{50, 50}), []int{4}},
		{"the mildest outlier is one too", nil, repeated(4, well, [2]int{99, 1}), []int{4}},
		{"1 of 4, too few", nil, repeated(3, well, [2]int{50, 50}), nil},
		// √3 = 1.73 deviations, also if four were enough.
		{"1 of 4, min_hosts 4", func(c *outlier.Config) { c.SuccessRate.MinHosts = 4 }, repeated(3, well, [2]int{50, 50}), nil},
		{"1 of 4, min_hosts 4, factor 1730", func(c *outlier.Config) {
			c.SuccessRate.MinHosts, c.SuccessRate.StdevFactor = 4, 1730
		}, repeated(3, well, [2]int{50, 50}), []int{3}},
		{"1 of 4, min_hosts 4, factor 1735", func(c *outlier.Config) {
			c.SuccessRate.MinHosts, c.SuccessRate.StdevFactor = 4, 1735
		}, repeated(3, well, [2]int{50, 50}), nil},
		{"1 of 5, factor 1999", func(c *outlier.Config) { c.SuccessRate.StdevFactor = 1999 }, repeated(4, well, [2]int{50, 50}), []int{4}},
		{"1 of 5, factor 2001", func(c *outlier.Config) { c.SuccessRate.StdevFactor = 2001 }, repeated(4, well, [2]int{50, 50}), nil},
		// √(8/2) = 2 deviations, √(7/3) = 1.53 deviations.
		{"2 of 10", func(c *outlier.Config) { c.MaxEjectedPercent = 20 }, repeated(8, well, [2]int{50, 50}, [2]int{50, 50}), []int{8, 9}},
		{"3 of 10", func(c *outlier.Config) { c.MaxEjectedPercent = 30 }, repeated(7, well, repeated(3, [2]int{50, 50})...), nil},
		// Mean 0.8333, variance (4·0.0667² + 0.0333² + 0.2333²)/6 = 0.01222, deviation 0.1106, threshold 0.6233.
		{"rates that differ", nil, [][2]int{{90, 10}, {90, 10}, {80, 20}, {90, 10}, {60, 40}, {90, 10}}, []int{4}},
		// With 0.63 in its place: mean 0.8383, variance (4·0.0617² + 0.0383² + 0.2083²)/6 = 0.01002, deviation 0.1001, threshold 0.6481.
		{"rates that differ less", nil, [][2]int{{90, 10}, {90, 10}, {80, 20}, {90, 10}, {63, 37}, {90, 10}}, []int{4}},
		// With 0.70: mean 0.85, variance (4·0.05² + 0.05² + 0.15²)/6 = 0.005833, deviation 0.0764, threshold 0.7049.
		{"rates that differ little", nil, [][2]int{{90, 10}, {90, 10}, {80, 20}, {90, 10}, {70, 30}, {90, 10}}, []int{4}},
		// With 0.72: mean 0.8533, variance (4·0.0467² + 0.0533² + 0.1333²)/6 = 0.004889, deviation 0.0699, threshold 0.7205: an outlier by a hair.
		{"an outlier by a hair", nil, [][2]int{{90, 10}, {90, 10}, {80, 20}, {90, 10}, {72, 28}, {90, 10}}, []int{4}},
		// With 0.73: mean 0.855, variance (4·0.045² + 0.055² + 0.125²)/6 = 0.004458, deviation 0.0668, threshold 0.7281.
		{"none by a hair", nil, [][2]int{{90, 10}, {90, 10}, {80, 20}, {90, 10}, {73, 27}, {90, 10}}, nil},
		// Mean 0.75, deviation 0.25: exactly at the threshold is not below it.
		{"at the threshold", func(c *outlier.Config) {
			c.SuccessRate.MinHosts, c.SuccessRate.StdevFactor = 2, 1000
		}, [][2]int{{100, 0}, {50, 50}}, nil},
		{"just below the threshold", func(c *outlier.Config) {
			c.SuccessRate.MinHosts, c.SuccessRate.StdevFactor = 2, 999
		}, [][2]int{{100, 0}, {50, 50}}, []int{1}},
		// Eight eighths of 0.9 are more than 0.9 in binary.
		{"all alike but for rounding", func(c *outlier.Config) { c.SuccessRate.StdevFactor = 0 }, repeated(8, [2]int{90, 10}), nil},
		{"the outlier has too few calls", nil, repeated(5, well, [2]int{49, 50}), nil},
		{"one of the others has too few calls", nil, repeated(3, well, [2]int{99, 0}, [2]int{50, 50}), nil},
		{"another volume", func(c *outlier.Config) { c.SuccessRate.RequestVolume = 99 }, repeated(3, well, [2]int{99, 0}, [2]int{50, 50}), []int{4}},
		{"hosts without calls are in no mean", nil, repeated(4, [2]int{}, repeated(4, well, [2]int{50, 50})...), []int{8}},
		{"switched off", func(c *outlier.Config) { c.SuccessRate.Enabled = false }, repeated(4, well, [2]int{50, 50}), nil},
		{"chance", func(c *outlier.Config) { c.SuccessRate.EnforcementPercent = 51 }, repeated(4, well, [2]int{50, 50}), []int{4}},
		{"no chance", func(c *outlier.Config) { c.SuccessRate.EnforcementPercent = 50 }, repeated(4, well, [2]int{50, 50}), nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			config := defaults()
			if row.adjust != nil {
				row.adjust(&config)
			}
			f := newFleet(t, len(row.results), config)
			f.interval(row.results...)
			f.expectOut(row.want...)
			for _, at := range row.want {
				if got := f.hosts[at].State(); got.Cause != outlier.CauseSuccessRate {
					t.Errorf("host %d was ejected for %s", at, got.Reason)
				}
			}
		})
	}
}

func TestFailurePercentage(t *testing.T) {
	t.Parallel()
	well := [2]int{50, 0}
	for _, row := range []struct {
		name    string
		adjust  func(*outlier.Config)
		results [][2]int
		want    []int
	}{
		{"86 of 100", nil, repeated(4, well, [2]int{14, 86}), []int{4}},
		{"85 of 100 is not above 85", nil, repeated(4, well, [2]int{15, 85}), nil},
		{"another threshold", func(c *outlier.Config) { c.FailurePercentage.Threshold = 84 }, repeated(4, well, [2]int{15, 85}), []int{4}},
		{"4 hosts are too few", nil, repeated(3, well, [2]int{1, 99}), nil},
		{"min_hosts 4", func(c *outlier.Config) { c.FailurePercentage.MinHosts = 4 }, repeated(3, well, [2]int{1, 99}), []int{3}},
		// A50 counts the addresses, not those with enough calls.
		{"the others have no calls", nil, repeated(4, [2]int{}, [2]int{5, 45}), []int{4}},
		{"49 calls are too few", nil, repeated(4, well, [2]int{4, 45}), nil},
		{"another volume", func(c *outlier.Config) { c.FailurePercentage.RequestVolume = 49 }, repeated(4, well, [2]int{4, 45}), []int{4}},
		{"switched off", func(c *outlier.Config) { c.FailurePercentage.Enabled = false }, repeated(4, well, [2]int{14, 86}), nil},
		{"chance", func(c *outlier.Config) { c.FailurePercentage.EnforcementPercent = 51 }, repeated(4, well, [2]int{14, 86}), []int{4}},
		{"no chance", func(c *outlier.Config) { c.FailurePercentage.EnforcementPercent = 50 }, repeated(4, well, [2]int{14, 86}), nil},
		{"all fail: one may always go", nil, repeated(5, [2]int{5, 45}), []int{0}},
		{"the worst goes", nil, [][2]int{{5, 45}, {5, 45}, {4, 46}, {5, 45}, {5, 45}}, []int{2}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			config := defaults()
			config.ConsecutiveFailures, config.SuccessRate.Enabled = 0, false
			if row.adjust != nil {
				row.adjust(&config)
			}
			f := newFleet(t, len(row.results), config)
			f.interval(row.results...)
			f.expectOut(row.want...)
			for _, at := range row.want {
				if got := f.hosts[at].State(); got.Cause != outlier.CauseFailurePercentage {
					t.Errorf("host %d was ejected for %s", at, got.Reason)
				}
			}
		})
	}
}

// TestMaximumShare: the percentage holds after an ejection, not before it, one may always be out, and the last one that serves never.
func TestMaximumShare(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ size, percent, want int }{
		{10, 10, 1},
		{10, 19, 1},
		{10, 20, 2},
		{10, 29, 2},
		{10, 0, 1},
		{10, 100, 9},
		{5, 10, 1},
		{3, 50, 1},
		{3, 67, 2},
		{2, 10, 1},
		{2, 100, 1},
		{1, 100, 0},
		{100, 10, 10},
		{0, 10, 0},
	} {
		config := defaults()
		config.MaxEjectedPercent = row.percent
		config.SuccessRate.Enabled, config.FailurePercentage.MinHosts, config.ConsecutiveFailures = false, 1, 0
		f := newFleet(t, row.size, config)
		f.interval(repeated(row.size, [2]int{0, 50})...)
		if got := len(f.out()); got != row.want {
			t.Errorf("%d hosts, at most %d %%: the percentage ejected %d, want %d", row.size, row.percent, got, row.want)
		}
		config.ConsecutiveFailures = 5
		f = newFleet(t, row.size, config)
		for at := range f.hosts {
			f.inARow(at)
		}
		if got := len(f.out()); got != row.want {
			t.Errorf("%d hosts, at most %d %%: failures in a row ejected %d, want %d", row.size, row.percent, got, row.want)
		}
	}
}

// TestOrderOfAlgorithms: success rates are looked at first, and all share one maximum.
func TestOrderOfAlgorithms(t *testing.T) {
	t.Parallel()
	// Host 9 is an outlier by both; host 8 fails too often as well, but the share is used up.
	results := repeated(8, [2]int{100, 0}, [2]int{14, 86}, [2]int{10, 90})
	config := defaults()
	config.ConsecutiveFailures = 0
	f := newFleet(t, 10, config)
	f.interval(results...)
	f.expectOut(9)
	got := f.hosts[9].State()
	want := outlier.State{
		Phase: outlier.Ejected, Cause: outlier.CauseSuccessRate, Since: f.now, Until: f.now.Add(30 * time.Second), Ejections: 1,
		// Mean (8·1 + 0.14 + 0.1)/10 = 0.824; variance (8·0.176² + 0.684² + 0.724²)/10 = 0.12398, deviation 0.3521, threshold 0.1550.
		Reason: "10.0% of 100 calls succeeded, below 15.5% (mean 82.4%, standard deviation 35.2%)",
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestFailurePercentageCountsAllHosts: A50 wants so many addresses, those included that are out.
func TestFailurePercentageCountsAllHosts(t *testing.T) {
	t.Parallel()
	config := defaults()
	config.MaxEjectedPercent, config.FailurePercentage.Threshold = 50, 40
	f := newFleet(t, 5, config)
	f.inARow(0)
	f.interval([2]int{}, [2]int{50, 50})
	f.expectOut(0, 1)
}

// TestEjectedHostsAreInNoMean: what they do in a panic neither shifts the mean nor ejects them again.
func TestEjectedHostsAreInNoMean(t *testing.T) {
	t.Parallel()
	config := defaults()
	config.MaxEjectedPercent = 50
	f := newFleet(t, 6, config)
	f.inARow(0)
	f.interval(append([][2]int{{0, 100}}, repeated(4, [2]int{100, 0}, [2]int{99, 1})...)...)
	f.expectOut(0, 5) // the mean of the five others is 0.998
	if got := f.hosts[0].State(); got.Ejections != 1 || got.Until != start.Add(30*time.Second) {
		t.Errorf("ejected %d times, until %v", got.Ejections, got.Until)
	}
}
