package consul

// Slots returns how many IDs the registry keeps a place for.
func (r *Registry) Slots() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.slots)
}
