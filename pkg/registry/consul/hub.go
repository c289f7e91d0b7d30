package consul

// feed returns the feed of a question, which has one user more, and what ends that use. The caller holds the mutex.
func (r *Registry) feed(asked question) (*feed, func(), error) {
	by, err := r.agent(asked.agent)
	if err != nil {
		return nil, nil, err
	}
	found, ok := r.feeds[asked]
	if !ok {
		found = newFeed(by, asked, &r.config, r.metrics)
		r.feeds[asked] = found
	}
	found.users++
	return found, func() { r.leaveFeed(found) }, nil
}

// leaveFeed ends one use of a feed, and the feed after the last, for which it waits. Who asks the same from then on has a new one.
func (r *Registry) leaveFeed(left *feed) {
	r.mu.Lock()
	left.users--
	isLast := left.users == 0
	if isLast {
		delete(r.feeds, left.question)
	}
	r.mu.Unlock()
	if isLast {
		left.end()
	}
}
