// Package faults has the rows of the fault matrix on discovery, balancing and connections as tests, named by row: TestRow01IndexBackwards and so on.
// They drive what a program drives, goplt.NewRegistry and goplt.NewTransport with generated clients, against rpc.Server, through real sockets and a
// real Consul agent; package script stands in where a real agent cannot be made to misbehave, and an HTTP/2 peer that writes the frames it is told to
// where net/http's server cannot.
//
// Besides what its row expects, each test checks that
//   - a call that is not idempotent was executed at most once, and exactly once if it succeeded, as counted by the servers;
//   - no call outlived its deadline by more than 50 ms;
//   - no goroutine that it started is left, and no file of the process after all tests.
//
// They need Linux and the build tag integration, and take some minutes under the race detector:
//
//	go test -race -tags=integration ./test/faults
//
// With -faults.long, outages are as long as the matrix has them instead of as long as it takes to see that they are survived.
package faults
