package pool_test

import "testing"

// BenchmarkAcquire is what a call pays to the pool when a connection is ready: no allocation.
func BenchmarkAcquire(b *testing.B) {
	for _, row := range kinds {
		b.Run(row.name, func(b *testing.B) {
			server := startServer(b, row.protocols, 1000, echoRemote)
			p := newPool(b, config(server.addr, row.kind))
			acquire(b, p).Release()
			b.ReportAllocs()
			for b.Loop() {
				conn, err := p.Acquire(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				conn.Release()
			}
		})
	}
}

// BenchmarkCall is a call with a connection ready, the server's part included.
func BenchmarkCall(b *testing.B) {
	for _, row := range kinds {
		b.Run(row.name, func(b *testing.B) {
			server := startServer(b, row.protocols, 1000, echoRemote)
			config := config(server.addr, row.kind)
			p := newPool(b, config)
			acquire(b, p).Release()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := call(b.Context(), acquire(b, p)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
