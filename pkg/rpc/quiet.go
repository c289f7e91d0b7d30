package rpc

import "sync"

// quietMutex is a mutex under which nothing is logged. A log's handler is the user's: it may be slow, and it may make a call by the very transport
// whose change it is told of, which takes the same mutexes. So what there is to log is put off until the mutex is free. That is no good below another
// mutex: what would log there returns what does.
type quietMutex struct {
	sync.Mutex

	putOff []func()
}

// later has something be done once the mutex, which is held, is free.
func (m *quietMutex) later(do ...func()) { m.putOff = append(m.putOff, do...) }

// Unlock frees the mutex and does what was put off, in order.
func (m *quietMutex) Unlock() {
	putOff := m.putOff
	m.putOff = nil
	m.Mutex.Unlock()
	for _, do := range putOff {
		do()
	}
}
