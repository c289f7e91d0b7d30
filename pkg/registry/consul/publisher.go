package consul

import (
	"sync"

	"github.com/0x1d/goplt/pkg/registry"
)

// news is what is known of a target at a moment: the last good set, and the error of the last attempt if that failed. It is replaced, never changed.
type news struct {
	set  []registry.Instance // shared by all that hear of it; nil before the first
	sets uint64              // how many were published, so that a listener knows whether it has this one
	err  error               // nil while all is well
	errs uint64              // how many were published

	restored bool // set is a snapshot's: nobody answered yet
}

// listener is told the news. It must not block, nor ask the publisher.
type listener interface{ heard(latest news) }

// publisher keeps the latest news and tells its listeners. A listener that is slow skips what came in between, and one that comes late finds what
// is there: both read the same latest news. The zero value is ready.
type publisher struct {
	mu        sync.Mutex
	current   news
	listeners map[listener]struct{}
}

func (p *publisher) latest() news {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current
}

// listen adds a listener, which hears the latest news at once.
func (p *publisher) listen(l listener) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listeners == nil {
		p.listeners = make(map[listener]struct{})
	}
	p.listeners[l] = struct{}{}
	l.heard(p.current)
}

func (p *publisher) unlisten(l listener) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.listeners, l)
}

// publish changes the news, and tells of that. The lock is held while it tells: a listener that left hears nothing more.
func (p *publisher) publish(change func(*news)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.current)
	for l := range p.listeners {
		l.heard(p.current)
	}
}

// publishSet makes a set the current one. It shows that all is well.
func (p *publisher) publishSet(set []registry.Instance) {
	p.publish(func(n *news) { n.set, n.sets, n.err, n.restored = set, n.sets+1, nil, false })
}

// publishError makes an error the news beside the set, which stands.
func (p *publisher) publishError(err error) {
	p.publish(func(n *news) { n.err, n.errs = err, n.errs+1 })
}

// publishWell ends the last error, where the set stands.
func (p *publisher) publishWell() {
	if p.latest().err != nil {
		p.publish(func(n *news) { n.err = nil })
	}
}

// publishSame says that an answer brought the set that is there.
func (p *publisher) publishSame() {
	if now := p.latest(); now.err != nil || now.restored {
		p.publish(func(n *news) { n.err, n.restored = nil, false })
	}
}
