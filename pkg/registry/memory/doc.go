// Package memory is a [registry.ServiceRegistry] within one process: for tests, for demonstrations, and for programs that hold their services
// themselves. What is registered is found at once, unless it says of itself that it is critical; nothing else is checked, and nothing is kept when
// the process ends.
//
//	Register, Update, Deregister, Set ──▶ services ──▶ every Watcher of the service wakes and compares
//
// Targets are "memory:///auth" or "auth", with the parameter tag to select instances that have the tag.
package memory
