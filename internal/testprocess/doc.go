// Package testprocess has what tests need of processes: for how long their own was kept waiting, what it has left open, and children that they may
// pause and kill.
package testprocess
