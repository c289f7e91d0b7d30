//go:build integration && linux

package chaos_test

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/0x1d/goplt/pkg/rpc"
)

// visitor is the route of transports that come and go.
const visitor = "visitor"

const (
	// visitorCallers is how many callers a visitor has, for at most maxVisit.
	visitorCallers = 4
	maxVisit       = 3 * time.Second
)

// opener opens a transport for a protocol, which logs by a name.
type opener func(name string, protocol rpc.Protocol, adjust func(*rpc.ClientConfig)) (*rpc.Transport, error)

// visit opens transports, one after the other, and closes each with calls under way: those finish, and nothing of it is left. A visitor knows as little
// of the instances as a program that has just started, and bounds how many calls it has under way, so its calls do not count when it comes to how many
// succeed.
func (l *load) visit(open opener, random *rand.Rand) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	protocols := []rpc.Protocol{rpc.ProtocolAuto, rpc.ProtocolGRPC, rpc.ProtocolHTTP}
	admitting := func(cfg *rpc.ClientConfig) {
		cfg.Admission.Adaptive, cfg.Admission.MaxConcurrentCalls = random.IntN(2) == 0, 1+random.IntN(2*visitorCallers)
	}
	for {
		select {
		case <-l.ended:
			return
		case <-timer.C:
		}
		timer.Reset(time.Duration(random.Int64N(int64(2 * maxVisit))))
		transport, err := open(visitor, protocols[random.IntN(len(protocols))], admitting)
		if err != nil {
			l.results.wrong("a visitor: "+err.Error(), time.Now())
			return
		}
		l.stay(transport, time.Duration(random.Int64N(int64(maxVisit))), random.Uint64())
	}
}

// stay makes calls for a time, and closes the transport under them.
func (l *load) stay(transport *rpc.Transport, visit time.Duration, seed uint64) {
	closing := make(chan struct{})
	var calling sync.WaitGroup
	for caller := range uint64(visitorCallers) {
		calling.Go(func() {
			random := rand.New(rand.NewPCG(seed, caller))
			pause := time.NewTimer(0)
			defer pause.Stop()
			for {
				select {
				case <-closing:
					return
				case <-pause.C:
				}
				l.results.note(l.call(route{visitor, transport}, random))
				pause.Reset(time.Duration(random.Int64N(int64(maxPause))))
			}
		})
	}
	timer := time.NewTimer(visit)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.ended:
	}
	close(closing)
	if err := transport.Close(); err != nil {
		l.results.wrong("a visitor closes: "+err.Error(), time.Now())
	}
	calling.Wait()
}
