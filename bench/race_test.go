//go:build race

package main

// raceDetector says that sync.Pool forgets some of what it is given, so that there are more allocations.
const raceDetector = true
