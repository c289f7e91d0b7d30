package servicestest

import (
	"crypto/rand"
	"crypto/sha256"
	"time"
)

// secretHash is what is kept of a random token: enough to know it again, useless to whoever reads it. A plain hash does, since the
// tokens hold 260 random bits.
type secretHash [sha256.Size]byte

// firstSweep is how many tokens a store takes before it looks for expired ones the first time.
const firstSweep = 1024

// secretStore hands out random tokens and keeps what each stands for until it expires. It does no locking.
type secretStore[V any] struct {
	byHash map[secretHash]keptSecret[V]
	// sweepAt is the size at which expired tokens are looked for; it is twice what the last sweep left, so that sweeps are cheap on
	// average.
	sweepAt int
}

type keptSecret[V any] struct {
	value   V
	expires time.Time
}

func newSecretStore[V any]() secretStore[V] {
	return secretStore[V]{byHash: make(map[secretHash]keptSecret[V]), sweepAt: firstSweep}
}

// add returns a new token that stands for value for as long as ttl.
func (s *secretStore[V]) add(value V, now time.Time, ttl time.Duration) string {
	if len(s.byHash) >= s.sweepAt {
		for hash, kept := range s.byHash {
			if !now.Before(kept.expires) {
				delete(s.byHash, hash)
			}
		}
		s.sweepAt = max(firstSweep, 2*len(s.byHash))
	}
	token := rand.Text() + rand.Text()
	s.byHash[sha256.Sum256([]byte(token))] = keptSecret[V]{value: value, expires: now.Add(ttl)}
	return token
}

// find returns what a token stands for, if it is known and has not expired.
func (s *secretStore[V]) find(token string, now time.Time) (value V, ok bool) {
	kept, ok := s.byHash[sha256.Sum256([]byte(token))]
	if !ok || !now.Before(kept.expires) {
		return value, false
	}
	return kept.value, true
}

// forget makes the tokens useless whose value matches.
func (s *secretStore[V]) forget(match func(V) bool) {
	for hash, kept := range s.byHash {
		if match(kept.value) {
			delete(s.byHash, hash)
		}
	}
}
