// Package servicestest has in-memory versions of the four core services that really behave, for tests and for development, and what
// tests them and tests with them.
//
//	Platform    the in-memory services and the state that they share: users, sessions, tokens, grants, log
//	Start       a server on a real socket that hosts a Platform, and clients connected to it, for the life of a test
//	Faults      lateness, errors and lost connections, injected into that server or any other
//	RunSuite    what every implementation of the services, and every client of them, must do
//
// A [Platform] hashes passwords with argon2id, signs its access tokens and lets them expire, rotates refresh tokens and notices their
// reuse, sends single-use tokens to an outbox, resolves roles with wildcards, and pages through an append-only audit log. What it does
// not do is keep anything: its state ends with the process. Nor does it ask who is calling, which is the business of whoever exposes
// it.
package servicestest
