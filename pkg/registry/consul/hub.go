package consul

import "strings"

// chainKey tells chains apart.
type chainKey struct {
	first question
	rest  string // the other datacenters, in order
}

// source returns what a watcher of the questions listens to, and what ends that. The caller holds the mutex.
func (r *Registry) source(asked []question) (source, func(), error) { //nolint:ireturn // a feed or a chain
	if len(asked) == 1 {
		found, err := r.feed(asked[0])
		return found, func() { r.leaveFeeds(found) }, err
	}
	rest := make([]string, 0, len(asked)-1)
	for _, question := range asked[1:] {
		rest = append(rest, question.datacenter)
	}
	key := chainKey{first: asked[0], rest: strings.Join(rest, ",")}
	found, ok := r.chains[key]
	if !ok {
		feeds := make([]*feed, len(asked))
		for at, question := range asked {
			var err error
			if feeds[at], err = r.feed(question); err != nil { // all are of one agent: if so, the first
				return nil, nil, err
			}
		}
		found = newChain(feeds, r.logger)
		r.chains[key] = found
	}
	found.users++
	return found, func() { r.leaveChain(key, found) }, nil
}

// feed returns the feed of a question, which has one user more. The caller holds the mutex.
func (r *Registry) feed(asked question) (*feed, error) {
	by, err := r.agent(asked.agent)
	if err != nil {
		return nil, err
	}
	found, ok := r.feeds[asked]
	if !ok {
		found = newFeed(by, asked, &r.config, r.metrics, r.store)
		r.feeds[asked] = found
	}
	found.users++
	return found, nil
}

// leaveFeeds ends one use of feeds, and of each the last use ends it, which is waited for. Who asks the same from then on has a new one.
func (r *Registry) leaveFeeds(left ...*feed) {
	var unused []*feed
	r.mu.Lock()
	for _, feed := range left {
		feed.users--
		if feed.users == 0 {
			delete(r.feeds, feed.question)
			unused = append(unused, feed)
		}
	}
	r.mu.Unlock()
	for _, feed := range unused {
		feed.cancel() // all, before any is waited for
	}
	for _, feed := range unused {
		feed.end()
	}
}

// leaveChain ends one use of a chain, and the chain after the last.
func (r *Registry) leaveChain(key chainKey, left *chain) {
	r.mu.Lock()
	left.users--
	isLast := left.users == 0
	if isLast {
		delete(r.chains, key)
	}
	r.mu.Unlock()
	if isLast {
		left.end()
		r.leaveFeeds(left.feeds...)
	}
}
