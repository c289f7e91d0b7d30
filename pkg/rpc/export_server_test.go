package rpc

// For the tests of what depends on the machine, and of what the transport shares with the server.
var (
	OnlyAddress  = onlyAddress
	NewClientTLS = newClientTLS
)
