package servicestest

import (
	"iter"
	"slices"
	"strings"
	"sync"
)

// Fault is one way to fail, once it is added to [Faults] or to an [HTTPProxy].
//
// It strikes the calls whose procedure, which is the path of their requests, has its name, which is one of
//
//	auth.Login                           a method: the service's name without "Service", in lower case, and the method's
//	auth                                 a service: all its methods
//	/goplt.auth.v1.AuthService/Login     a procedure in full
//	*                                    everything
//
// A name that no call has strikes nothing: what [Start] starts knows its procedures and refuses others, but a proxy by itself does not, so that a
// test had better look at [Fault.Hits].
//
// Faults that strike the same call do so in the order in which they were added, those before its execution first, until one ends it.
type Fault struct {
	name     string
	when     moment
	rate     float64
	grpcOnly bool

	inServer serverEffect // of a fault of Faults
	inProxy  proxyEffect  // of a fault of an HTTPProxy

	set    *faultSet
	left   int     // Strikes left; negative for no end. Guarded by set.mu, as are due and hits.
	due    float64 // What the rate has added up to since the last strike.
	hits   int
	gone   chan struct{} // Closed when the fault is removed.
	remove func()
}

// moment is when a fault strikes.
type moment int

const (
	beforeExecution moment = iota
	afterExecution
)

// FaultOption says when a fault strikes.
type FaultOption func(*Fault)

// Times lets a fault strike the next n calls only. By default, it strikes until it is removed.
func Times(n int) FaultOption { return func(fault *Fault) { fault.left = max(n, 0) } }

// Rate lets a fault strike a share of the calls, spread evenly: at 0.25 the fourth, the eighth and so on. By default, it strikes all.
func Rate(share float64) FaultOption {
	return func(fault *Fault) { fault.rate = min(max(share, 0), 1) }
}

// GRPCOnly lets a fault strike calls by gRPC only, as a gateway does that knows nothing of it. By default, it strikes those by any
// protocol.
func GRPCOnly() FaultOption { return func(fault *Fault) { fault.grpcOnly = true } }

// AfterExecution lets the handler run before the fault strikes, so that the call had its effect and the answer, be it an error, is late or
// lost. By default, the fault strikes before the handler runs.
//
// Which calls it strikes is decided when they arrive. Their answers are held back to the end, headers included, and those of other calls are
// not: a stream whose client waits for something before it sends more gets no further, and ends by its deadline. [Fault.Hits] counts a
// call when its answer is struck. One that has none, because the client has gone or another fault ended it, leaves its strike to a later
// call; one that never ends keeps it.
func AfterExecution() FaultOption { return func(fault *Fault) { fault.when = afterExecution } }

// Hits returns how many calls the fault struck.
func (f *Fault) Hits() int {
	f.set.mu.Lock()
	defer f.set.mu.Unlock()
	return f.hits
}

// Remove ends the fault. Calls that it delays go on at once. It may be called more than once.
func (f *Fault) Remove() { f.remove() }

// struck is a call that a fault may strike.
type struck struct {
	procedure string
	grpc      bool
}

func (f *Fault) strikes(call struck) bool {
	return (call.grpc || !f.grpcOnly) && hasName(call.procedure, f.name)
}

// hasName reports whether a procedure, such as "/goplt.auth.v1.AuthService/Login", has a fault's name.
func hasName(procedure, name string) bool {
	if name == "*" || name == procedure {
		return true
	}
	service, method, ok := strings.Cut(strings.TrimPrefix(procedure, "/"), "/")
	if !ok {
		return false
	}
	short := strings.ToLower(strings.TrimSuffix(service[strings.LastIndexByte(service, '.')+1:], "Service"))
	return name == short || name == short+"."+method
}

// reserve reports whether the fault is to strike a call: whether a strike is due and left. It is no other call's until it is given back.
func (f *Fault) reserve() bool {
	f.set.mu.Lock()
	defer f.set.mu.Unlock()
	if f.left == 0 {
		return false
	}
	const rounding = 1e-9
	if f.due += f.rate; f.due < 1-rounding {
		return false
	}
	f.due--
	if f.left > 0 {
		f.left--
	}
	return true
}

// giveBack leaves a strike that was reserved to the next call.
func (f *Fault) giveBack() {
	f.set.mu.Lock()
	defer f.set.mu.Unlock()
	f.due++
	if f.left >= 0 {
		f.left++
	}
}

// hit counts a strike that was reserved, and reports false if the fault has been removed since.
func (f *Fault) hit() bool {
	f.set.mu.Lock()
	defer f.set.mu.Unlock()
	select {
	case <-f.gone:
		return false
	default:
		f.hits++
		return true
	}
}

// faultSet are faults in the order in which they were added.
type faultSet struct {
	procedures []string                          // that calls can have; nil if they are not known
	refuse     func(name string, known []string) // is told of names that none of the procedures has; may end the goroutine

	mu     sync.Mutex
	faults []*Fault
}

// add makes a fault complete and adds it.
func (s *faultSet) add(fault *Fault, opts []FaultOption) *Fault {
	if s.procedures != nil && !slices.ContainsFunc(s.procedures, func(known string) bool { return hasName(known, fault.name) }) {
		s.refuse(fault.name, s.procedures)
	}
	fault.set, fault.left, fault.rate, fault.gone = s, -1, 1, make(chan struct{})
	fault.remove = sync.OnceFunc(func() {
		close(fault.gone)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.faults = slices.DeleteFunc(s.faults, func(other *Fault) bool { return other == fault })
	})
	for _, opt := range opts {
		opt(fault)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, fault)
	return fault
}

// strike yields the faults that strike a call before its execution, each as it does.
func (s *faultSet) strike(call struck) iter.Seq[*Fault] {
	return func(yield func(*Fault) bool) {
		for _, fault := range s.matching(call, beforeExecution) {
			if fault.reserve() && fault.hit() && !yield(fault) {
				return
			}
		}
	}
}

// choose returns the faults that are to strike a call after its execution, which is about to begin: its answer has to be held back for them,
// and must not be if there are none.
func (s *faultSet) choose(call struck) *chosen {
	c := new(chosen)
	for _, fault := range s.matching(call, afterExecution) {
		if fault.reserve() {
			c.faults = append(c.faults, fault)
		}
	}
	return c
}

// matching returns the faults that may strike a call at a moment.
func (s *faultSet) matching(call struck, when moment) []*Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	var matching []*Fault
	for _, fault := range s.faults {
		if fault.when == when && fault.strikes(call) {
			matching = append(matching, fault)
		}
	}
	return matching
}

// chosen are faults that are to strike one call once it is executed. Release them when it is over, struck or not.
type chosen struct{ faults []*Fault }

func (c *chosen) none() bool { return len(c.faults) == 0 }

// strike yields the faults, each as it strikes.
func (c *chosen) strike() iter.Seq[*Fault] {
	return func(yield func(*Fault) bool) {
		for len(c.faults) > 0 {
			fault := c.faults[0]
			c.faults = c.faults[1:]
			if fault.hit() && !yield(fault) {
				return
			}
		}
	}
}

// release leaves to later calls what has not struck.
func (c *chosen) release() {
	for _, fault := range c.faults {
		fault.giveBack()
	}
	c.faults = nil
}

// clear removes all faults.
func (s *faultSet) clear() {
	s.mu.Lock()
	faults := slices.Clone(s.faults)
	s.mu.Unlock()
	for _, fault := range faults {
		fault.Remove()
	}
}
