package balancer

import "time"

// Policy says how an instance is chosen among those that are usable.
type Policy string

// The policies. All of them honour weights, zones, the subset and slow start.
const (
	// P2C takes the better of two drawn by weight: latency times attempts in flight. It is the default.
	P2C Policy = "p2c"
	// RoundRobin takes each in turn, the heavy more often, spread evenly over the cycle.
	RoundRobin Policy = "round_robin"
	// Random draws one by weight.
	Random Policy = "random"
	// LeastRequest takes of two drawn by weight the one with fewer attempts in flight. Unlike P2C it knows nothing of latency: an instance
	// that fails at once, or is far away, is as good as any. It suits services whose calls differ much in cost by themselves.
	LeastRequest Policy = "least_request"
	// ConsistentHash takes the instance that owns the call's hash, or the next on the ring while the owner has much more in flight than
	// its share. A call without a hash is balanced like Random.
	ConsistentHash Policy = "consistent_hash"
)

// The defaults of [Config].
const (
	DefaultDecay       = 10 * time.Second
	DefaultHashBalance = 1.25
	DefaultZoneSpill   = 2.0
)

// Config says how to balance. The zero value is P2C among all members. Values are taken as they are: whoever reads them from a file
// validates them.
type Config struct {
	// Policy; empty means P2C.
	Policy Policy
	// LocalZone is the client's own zone, whose members are preferred. Empty, or the zone of no member: no preference.
	LocalZone string
	// ZoneSpill is how many times as slow as a remote member a local one may be before calls for it go to the remote one; at least 1,
	// 0 for 2. A remote member's way counts in its latency, so that only what is worth the way is sent on it. ConsistentHash sends away only
	// what no local member is usable for, as all policies do: see [Picker].
	ZoneSpill float64
	// SlowStart is the window over which the weight of a member that starts slowly grows from a tenth to all, linearly, as Envoy's
	// slow start does by default; 0 for none.
	SlowStart time.Duration
	// Decay is the time in which what was measured of a latency loses two thirds of its say, and after which P2C tries a member again that failed
	// several times in a row; 0 for 10 s, which is Finagle's.
	Decay time.Duration
	// SubsetSize bounds how many members a client uses while they are usable; 0 for all.
	SubsetSize int
	// SubsetKey tells this client from others, which get other subsets.
	SubsetKey string
	// HashBalance bounds for ConsistentHash what a member may have in flight, as a multiple of its share of all; more than 1, 0 for 1.25
	// (Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2018).
	HashBalance float64
}

// withDefaults returns the config with every zero that means a default replaced.
func (c Config) withDefaults() Config {
	if c.Policy == "" {
		c.Policy = P2C
	}
	if c.ZoneSpill == 0 {
		c.ZoneSpill = DefaultZoneSpill
	}
	if c.Decay == 0 {
		c.Decay = DefaultDecay
	}
	if c.HashBalance == 0 {
		c.HashBalance = DefaultHashBalance
	}
	return c
}

// Member is one instance as a [Picker] knows it.
type Member struct {
	// ID tells the instance from others, to all clients alike: subsets and the ring of ConsistentHash follow from it.
	ID string
	// Weight is the member's share of calls relative to the others, 0 to 65535. Members of weight 0 are picked only where all
	// usable ones have weight 0.
	Weight int
	// Zone the instance is in; empty if unknown, which is remote to every zone.
	Zone string
	// Stats of the instance, the same in every Picker that it is a member of. Not nil.
	Stats *Stats
}

// Call is what a pick depends on beside the members.
type Call struct {
	// Now is the present; zero to have it looked up.
	Now time.Time
	// Hash of the call, by [Hash] for example, if Hashed; for ConsistentHash only.
	Hash   uint64
	Hashed bool
	// Random is where the pick's chance comes from; 0 for math/rand/v2. A simulation sets it, to be repeatable.
	Random uint64
}
