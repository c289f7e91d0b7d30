package testprocess

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

// Stalls tells how long things had to wait for a processor, on a machine that has other things to do or does not get to run itself: a call could not
// have ended in that time. On an idle machine it is nothing, and the deadlines are what they say. The zero value is ready to [Stalls.Watch]. Safe for
// concurrent use.
type Stalls struct {
	mu      sync.Mutex
	late    time.Duration // by which the log was written late, in all
	halted  time.Duration // the part of it that came in pieces of at least minHalt
	entries []stallEntry
}

const (
	// stallTick is how often the log is written, and stallsKept how many entries are kept at least.
	stallTick  = 5 * time.Millisecond
	stallsKept = int(15 * time.Minute / stallTick)
	// minHalt is how long nothing of this process must have run for that to be a halt, and not the usual wait for one's turn.
	minHalt = 50 * time.Millisecond
)

// stallEntry keeps how long there was waiting until when.
type stallEntry struct {
	at             time.Time
	waited, halted time.Duration
}

// Watch keeps the log until the function returned is called.
func (s *Stalls) Watch() (end func()) {
	stop := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		ticker := time.NewTicker(stallTick)
		defer ticker.Stop()
		for {
			s.write()
			select {
			case <-stop:
				return
			case <-ticker.C:
			}
		}
	})
	return func() {
		close(stop)
		watching.Wait()
	}
}

func (s *Stalls) write() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if last := len(s.entries) - 1; last >= 0 {
		late := max(0, now.Sub(s.entries[last].at)-stallTick)
		if s.late += late; late >= minHalt {
			s.halted += late
		}
	}
	if len(s.entries) == 2*stallsKept {
		s.entries = append(s.entries[:0], s.entries[stallsKept:]...)
	}
	s.entries = append(s.entries, stallEntry{now, s.late + pressure(), s.halted})
}

// pressure returns the time in which some process had to wait for a processor since the machine started, 0 where the system does not say.
func pressure() time.Duration {
	said, _ := os.ReadFile("/proc/pressure/cpu")
	var recent [3]float64
	var micros int64
	_, _ = fmt.Sscanf(string(said), "some avg10=%f avg60=%f avg300=%f total=%d", &recent[0], &recent[1], &recent[2], &micros) // 0 if it says nothing
	return time.Duration(micros) * time.Microsecond
}

// Between returns how long there was waiting within a time that is over, by whichever process.
func (s *Stalls) Between(from, to time.Time) time.Duration {
	first, last := s.ends(from, to)
	return max(0, last.waited-first.waited)
}

// Halted returns for how long nothing of this process ran within a time that is over, not counting what is usual on a busy machine.
func (s *Stalls) Halted(from, to time.Time) time.Duration {
	first, last := s.ends(from, to)
	return max(0, last.halted-first.halted)
}

// ends returns what the log has of the beginning and the end of a time.
func (s *Stalls) ends(from, to time.Time) (first, last stallEntry) {
	s.write()
	s.mu.Lock()
	defer s.mu.Unlock()
	at := func(when time.Time) int {
		found, _ := slices.BinarySearchFunc(s.entries, when, func(entry stallEntry, when time.Time) int { return entry.at.Compare(when) })
		return found
	}
	return s.entries[max(0, at(from)-1)], s.entries[min(at(to), len(s.entries)-1)]
}
