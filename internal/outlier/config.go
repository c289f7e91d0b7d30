package outlier

import "time"

// Config configures a [Detector]. The fields that A50 has mean what they mean there; the defaults of all are the caller's.
type Config struct {
	// Interval is the time between two looks at the rates; above 0.
	Interval time.Duration
	// BaseEjection is how long the first ejection lasts. The next lasts twice as long, and so on; each interval served takes one step back.
	// Above 0.
	BaseEjection time.Duration
	// MaxEjection bounds an ejection, if it is longer than BaseEjection.
	MaxEjection time.Duration
	// MaxEjectedPercent bounds the share of hosts that do not serve, those that await their probe included. One may always be ejected.
	MaxEjectedPercent int
	// PanicPercent is the share of hosts below which [Detector.Panic] says that ejections are to be ignored; 0 means never.
	PanicPercent int
	// ConsecutiveFailures ejects a host after this many calls, or probes, that failed in a row; 0 means never.
	ConsecutiveFailures int

	SuccessRate       SuccessRate
	FailurePercentage FailurePercentage
}

// SuccessRate configures the ejection of hosts whose success rate is far below the mean of all.
type SuccessRate struct {
	Enabled bool
	// StdevFactor is how many thousandths of the standard deviation below the mean a success rate must lie.
	StdevFactor int
	// EnforcementPercent is the chance that a host found to be an outlier is ejected.
	EnforcementPercent int
	// MinHosts is how many hosts must have RequestVolume calls for the mean to mean anything.
	MinHosts int
	// RequestVolume is how many calls in the interval a host needs to be looked at; 1 or more.
	RequestVolume int
}

// FailurePercentage configures the ejection of hosts whose failure percentage is above a threshold, whatever that of the others.
type FailurePercentage struct {
	Enabled bool
	// Threshold is the percentage of failed calls that must be exceeded.
	Threshold int
	// EnforcementPercent is the chance that a host above the threshold is ejected.
	EnforcementPercent int
	// MinHosts is how many hosts there must be, whatever their calls.
	MinHosts int
	// RequestVolume is how many calls in the interval a host needs to be looked at; 1 or more.
	RequestVolume int
}

// ejectionTime is how long the ejection lasts that made the multiplier what it is.
func (c *Config) ejectionTime(multiplier int) time.Duration {
	longest := max(c.BaseEjection, c.MaxEjection)
	if int64(multiplier) > int64(longest/c.BaseEjection) { // also where the product would overflow
		return longest
	}
	return c.BaseEjection * time.Duration(multiplier)
}

// probePause is how long after its failures-th failed probe in a row a host is probed again: a sixth of the base ejection at first, then
// twice as long each time, up to the base ejection. A host that restarts is back soon; one that is gone for days costs little.
func (c *Config) probePause(failures int) time.Duration {
	return max(1, min(c.BaseEjection/6<<min(failures-1, 3), c.BaseEjection))
}
