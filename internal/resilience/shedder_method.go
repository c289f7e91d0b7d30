package resilience

import "time"

// Method is what a [Shedder] knows of the calls of one method: how long the fastest that succeed take. The zero Method is one that was never called.
// It is for one Shedder.
type Method struct {
	fastest, before time.Duration // within a minute, and within the one before in which there were any; 0 if unknown
	until           time.Duration // when the minute is over
}

func (m *Method) succeeded(now, took time.Duration) {
	took = max(took, 1) // 0 would be unknown
	if now >= m.until {
		m.before, m.fastest, m.until = m.fastest, took, now+time.Minute
	}
	m.fastest = min(m.fastest, took)
}

func (m *Method) known() bool { return m.fastest > 0 }

// hopeless reports whether a call has so little time that the server could not have served it whatever its load.
func (m *Method) hopeless(allowed time.Duration) bool {
	if m.before > 0 {
		return allowed < min(m.fastest, m.before)
	}
	return allowed < m.fastest
}
