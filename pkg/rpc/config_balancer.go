package rpc

import (
	"fmt"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/0x1d/goplt/internal/balancer"
)

// Balancer says how a client chooses the instance of an attempt.
type Balancer string

const (
	// BalancerP2C is the power of two choices: of two instances drawn by weight, the one with the lower cost, which is its latency (a
	// peak-sensitive moving average) times its attempts in flight, over its weight. The default.
	BalancerP2C Balancer = "p2c"
	// BalancerRoundRobin takes instances in turn, each as often as its weight says, and spread evenly.
	BalancerRoundRobin Balancer = "round_robin"
	// BalancerRandom draws by weight.
	BalancerRandom Balancer = "random"
	// BalancerLeastRequest takes the one with fewer attempts in flight, over its weight, of two instances drawn at random.
	BalancerLeastRequest Balancer = "least_request"
	// BalancerConsistentHash sends calls with the same key to the same instance as long as that is not overloaded; see [WithHashKey] and
	// [BalancerConfig.HashHeader]. Calls without a key are drawn by weight.
	BalancerConsistentHash Balancer = "consistent_hash"
)

// BalancerConfig says how the instance of each attempt is chosen, among those that neither their breaker nor their ejection keeps out.
type BalancerConfig struct {
	// Policy is how to choose. Default p2c.
	Policy Balancer `koanf:"policy"`
	// Zone is where this client runs, such as "eu-1a": instances of the same zone are preferred, and calls spill over to others where these
	// are too few or too loaded. Default none, which is no preference.
	Zone string `koanf:"zone"`
	// SlowStart is for how long an instance that joined, or was let in again after its ejection, gets less than its share: from a tenth of its
	// weight at first to all of it. So does one whose breaker opened, from then on. The instances of the first set are not held back. 0 means
	// none. Default 10s.
	SlowStart time.Duration `koanf:"slow_start"`
	// Decay is the time constant of the moving average of latencies: how soon what was measured of a slow instance fades. One that failed several
	// times in a row, and neither its breaker nor an ejection keeps out, is tried again after this time, by one call. Default 10s.
	Decay time.Duration `koanf:"decay"`
	// SubsetSize bounds how many instances this client uses, and so its connections, in a large fleet; which ones they are, rendezvous hashing of
	// SubsetKey decides: three quarters of them in Zone, if that is set, and at least one elsewhere to spill over to. If too few of them can
	// serve, the others are used all the same. 0 means all. Default 0.
	SubsetSize int `koanf:"subset_size"`
	// SubsetKey tells this client from the others of the service, so that their subsets differ: a host's or a pod's name. Default a random key for
	// each transport.
	SubsetKey string `koanf:"subset_key"`
	// HashHeader is the request header whose value is the key of consistent_hash for a call without [WithHashKey]. Default none.
	HashHeader string `koanf:"hash_header"`
	// HashBalance bounds the load that consistent_hash puts on an instance, as a multiple of the average: above it, the key's next instance is used
	// (Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2018). Default 1.25.
	HashBalance float64 `koanf:"hash_balance"`
}

func defaultBalancerConfig() BalancerConfig {
	return BalancerConfig{Policy: BalancerP2C, SlowStart: 10 * time.Second, Decay: 10 * time.Second, HashBalance: 1.25}
}

func (c BalancerConfig) validate(v *validation) {
	switch c.Policy {
	case BalancerP2C, BalancerRoundRobin, BalancerRandom, BalancerLeastRequest, BalancerConsistentHash:
	default:
		v.add("balancer.policy", fmt.Sprintf("%q", c.Policy), "one of p2c, round_robin, random, least_request, consistent_hash")
	}
	v.notNegative("balancer.slow_start", c.SlowStart)
	v.positiveDuration("balancer.decay", c.Decay)
	v.check("balancer.subset_size", c.SubsetSize >= 0, c.SubsetSize, "0 or more")
	named := c.HashHeader == "" || httpguts.ValidHeaderFieldName(c.HashHeader)
	v.check("balancer.hash_header", named, fmt.Sprintf("%q", c.HashHeader), "the name of a header")
	v.check("balancer.hash_balance", c.HashBalance > 1 && c.HashBalance <= 100, c.HashBalance, "above 1 and at most 100")
}

// internal returns the configuration in the balancer's own terms.
func (c BalancerConfig) internal() balancer.Config {
	return balancer.Config{
		Policy: balancer.Policy(c.Policy), LocalZone: c.Zone, SlowStart: c.SlowStart, Decay: c.Decay,
		SubsetSize: c.SubsetSize, SubsetKey: c.SubsetKey, HashBalance: c.HashBalance,
	}
}
