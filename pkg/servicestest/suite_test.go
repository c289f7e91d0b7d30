package servicestest_test

import (
	"testing"

	"github.com/0x1d/goplt/pkg/servicestest"
)

// newPlatform returns a platform with passwords that cost next to nothing.
func newPlatform(opts ...servicestest.Option) *servicestest.Platform {
	return servicestest.NewPlatform(append([]servicestest.Option{servicestest.WithPasswordCost(servicestest.TestPasswordCost())}, opts...)...)
}

func TestPlatformConforms(t *testing.T) {
	servicestest.RunSuite(t, func(*testing.T) servicestest.Services { return newPlatform().Services() })
}
