// Package registrytest is the contract of [registry.ServiceRegistry] as a test suite. Every implementation runs it, also one of your own:
//
//	func TestContract(t *testing.T) {
//		registrytest.Run(t, func(t *testing.T) registrytest.Harness {
//			return registrytest.Harness{Registry: memory.New(), Scheme: "memory", Registers: true}
//		})
//	}
package registrytest
