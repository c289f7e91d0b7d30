package servicestest

// startSettings is what StartOptions set.
type startSettings struct {
	platform []Option
}
