// Package registry says where services are: [ServiceRegistry] resolves a [Target] to its complete, current set of [Instance] values by
// watching it, and registers instances so that others find them.
//
//	Target  "consul:///auth?tag=blue"     what to look for, and where
//	  └ ServiceRegistry.Watch ─ Watcher.Next ─▶ []Instance   complete sets, never deltas
//
// Three implementations keep one contract, which a shared suite checks: [github.com/0x1d/goplt/pkg/registry/memory] for tests and
// single processes, [github.com/0x1d/goplt/pkg/registry/static] for fixed addresses, [github.com/0x1d/goplt/pkg/registry/consul] for
// production. [NewMulti] combines them by the scheme of targets. There is no global registration of schemes: a program constructs the registry
// it wants and passes it on.
package registry
