package rpc

import "time"

// WithReprobe has gRPC probed again after interval where it was learned not to get through, and after longest at most.
func WithReprobe(interval, longest time.Duration) Option {
	return optionFunc(func(settings *clientSettings) { settings.pace.again, settings.pace.longest = interval, longest })
}
