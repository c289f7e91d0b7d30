package rpc

import "connectrpc.com/connect/v2"

// PolicyFinder returns what finds the policy of a method.
func PolicyFinder(config ClientConfig) func(connect.Spec) {
	policies := newPolicies(&config)
	return func(spec connect.Spec) { policies.of(spec) }
}
