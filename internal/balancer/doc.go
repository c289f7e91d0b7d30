// Package balancer chooses the instance that an attempt goes to.
//
//	Stats    what this client knows of one instance's load: Begin and End around each attempt; outlives sets
//	Picker   one set of members, made anew when the set changes: New, Pick
//	  tiers      local members, remote ones, stand-ins for a subset    picker.go
//	  subset     which members this client uses                        subset.go
//	  draw       by weight and slow start, in constant time            alias.go
//	  policy     p2c and least_request (cost.go), round_robin (roundrobin.go), consistent_hash (hash.go), random
//
// A pick takes no lock, allocates nothing, and looks at a few members, however many there are. It never fails while somebody is usable, and
// never picks who is not. Idle members that are alike get calls in proportion to their weights.
//
// Whose turn it is not, because its breaker is open for example, is for the caller to say, by the function that Pick is given:
//
//	at := picker.Pick(balancer.Call{Now: now}, func(at int) bool { return instances[at].mayServe() })
//	stats := members[at].Stats
//	stats.Begin()
//	err := call(instances[at])
//	stats.End(time.Now(), time.Since(now), outcomeOf(err))
package balancer
