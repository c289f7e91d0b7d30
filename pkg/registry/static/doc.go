// Package static is a [registry.ServiceRegistry] over fixed addresses: for services whose addresses never change while the program runs, or
// that stand behind an address of their own, such as a load balancer's.
//
//	auth, static:///auth                       the addresses of service auth in the table
//	static:///10.0.0.1:8080,[2001:db8::1]:80   the addresses of the target itself
//
// Each address is an instance of weight 1 whose ID is the address. Sets never change, so a watcher answers once. Nothing can be registered.
package static
