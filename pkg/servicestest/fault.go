package servicestest

import (
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

// AfterExecution lets the handler run before the fault strikes, so that the call had its effect and the answer is late or lost. By
// default, the fault strikes before the handler runs.
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

// take counts a strike, if one is due and left.
func (f *Fault) take() bool {
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
	f.hits++
	return true
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

// striking returns the faults that may strike a call at a moment.
func (s *faultSet) striking(call struck, when moment) []*Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	var striking []*Fault
	for _, fault := range s.faults {
		if fault.when == when && fault.left != 0 && fault.strikes(call) {
			striking = append(striking, fault)
		}
	}
	return striking
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
