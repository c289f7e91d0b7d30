package consul

import (
	"slices"
	"sync"
	"time"

	"github.com/0x1d/goplt/internal/snapshot"
	"github.com/0x1d/goplt/pkg/registry"
)

const (
	// saveDelay gathers the changes of a deployment in one write.
	saveDelay = time.Second
	// saveAgain is how often a set that does not change is saved again, at least: its age is to be that of the last answer, give or take.
	saveAgain = time.Hour
)

// saver writes the good sets of a feed to its snapshot, a moment after they came, on a goroutine that is there for the write alone.
type saver struct {
	store *snapshot.Store // nil keeps nothing
	key   string
	again time.Duration // after which a set that did not change is saved again

	// What the feed gave, for the feed's goroutine.
	given   []registry.Instance
	givenAt time.Time

	writing sync.Mutex // held while a set is written, so that flush waits
	mu      sync.Mutex
	pending []registry.Instance // to be written; nil if there is none
	timer   *time.Timer         // until then
}

func newSaver(store *snapshot.Store, key string, maxAge time.Duration) saver {
	again := saveAgain
	if maxAge > 0 {
		again = min(again, maxAge/2)
	}
	return saver{store: store, key: key, again: again}
}

// keep saves a set that an answer brought, unless it was saved not long ago.
func (s *saver) keep(set []registry.Instance) {
	if s.store == nil || len(set) == 0 ||
		slices.EqualFunc(set, s.given, registry.Instance.Equal) && time.Since(s.givenAt) < s.again {
		return
	}
	s.given, s.givenAt = set, time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending = set; s.timer == nil {
		s.timer = time.AfterFunc(saveDelay, s.write)
	}
}

func (s *saver) write() {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	set := s.pending
	s.pending, s.timer = nil, nil
	s.mu.Unlock()
	if set != nil {
		s.store.Save(s.key, set)
	}
}

// flush writes what waits for it, and returns when it is written.
func (s *saver) flush() {
	s.mu.Lock()
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	s.write()
}

// restore makes the snapshot's instances the set, if the first attempt failed and there are none to stand. Consul's first answer takes their place;
// if that is that there are none, the grace after an outage holds: whoever was there may be about to register.
func (f *feed) restore() {
	if f.answered || f.triedSnapshot {
		return
	}
	f.triedSnapshot = true
	set, saved, ok := f.saver.store.Load(f.saver.key)
	if !ok || len(set) == 0 {
		return
	}
	f.logger.Warn("consul: the instances are those of a snapshot until Consul answers", "instances", len(set), "saved", saved)
	f.last, f.answered, f.restored, f.doubt = set, true, true, true
	f.publish(func(n *news) { n.set, n.sets, n.restored = set, n.sets+1, true })
}
