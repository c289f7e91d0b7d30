package outlier

// SetRandom replaces chance.
func (d *Detector) SetRandom(random func(n int) int) { d.random = random }

// Multiplier returns the host's multiplier of the ejection time.
func (h *Host) Multiplier() int {
	h.detector.mu.Lock()
	defer h.detector.mu.Unlock()
	return h.multiplier
}
