//go:build unix

package main

import (
	"runtime"
	"syscall"
	"time"
)

// usage is what a process has consumed since it began.
type usage struct {
	CPU     time.Duration `json:"cpu"` // user and system
	Mallocs uint64        `json:"mallocs"`
	Bytes   uint64        `json:"bytes"` // allocated, whether or not freed
}

// currentUsage stops the world for a moment: call it before and after what is measured, not during.
func currentUsage() usage {
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	return usage{CPU: processTime(), Mallocs: memory.Mallocs, Bytes: memory.TotalAlloc}
}

// processTime returns for how long this process was on a CPU.
func processTime() time.Duration {
	var process syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &process); err == nil { // fails only on a bad address
		return time.Duration(process.Utime.Nano() + process.Stime.Nano())
	}
	return 0
}

func (u usage) since(earlier usage) usage {
	return usage{CPU: u.CPU - earlier.CPU, Mallocs: u.Mallocs - earlier.Mallocs, Bytes: u.Bytes - earlier.Bytes}
}
