package rpc

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
)

// methodPolicy is how a transport makes the calls of one method.
type methodPolicy struct {
	timeout        time.Duration // of a call; 0 if there is none
	attemptTimeout time.Duration // of an attempt; 0 if there is none
	idempotent     bool          // whether a call may be executed more than once
	hedge          *hedge        // nil if the method is not hedged
}

// policies holds the policy of each method that was called. Safe for concurrent use; what is known is found without a lock.
type policies struct {
	config *ClientConfig
	// common are those of methods for which nothing is configured: of one that is not idempotent, and of one that is.
	common [2]*methodPolicy

	known atomic.Pointer[map[string]*methodPolicy] // by procedure
	mu    sync.Mutex                               // held to add to known
}

func newPolicies(config *ClientConfig) *policies {
	p := &policies{config: config}
	for at := range p.common {
		p.common[at] = &methodPolicy{timeout: config.Timeout, attemptTimeout: config.AttemptTimeout, idempotent: at == 1}
	}
	p.known.Store(&map[string]*methodPolicy{})
	return p
}

// of returns the policy of a method.
func (p *policies) of(spec connect.Spec) *methodPolicy {
	if len(p.config.Methods) == 0 {
		return p.commonOf(spec)
	}
	if policy, ok := (*p.known.Load())[spec.Procedure]; ok {
		return policy
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	known := *p.known.Load()
	if policy, ok := known[spec.Procedure]; ok {
		return policy
	}
	policy := p.configured(spec)
	known = maps.Clone(known)
	known[spec.Procedure] = policy
	p.known.Store(&known)
	return policy
}

func (p *policies) commonOf(spec connect.Spec) *methodPolicy {
	if spec.IdempotencyLevel == connect.IdempotencyUnknown {
		return p.common[0]
	}
	return p.common[1]
}

// configured returns the policy that the configuration gives a method, by its name or by that of its service.
func (p *policies) configured(spec connect.Spec) *methodPolicy {
	service, method, _ := splitProcedure(spec.Procedure)
	config, ok := p.config.Methods[service+"."+method]
	if !ok {
		config, ok = p.config.Methods[service]
	}
	if !ok {
		return p.commonOf(spec)
	}
	policy := *p.commonOf(spec)
	if config.Timeout > 0 {
		policy.timeout = config.Timeout
	}
	if config.AttemptTimeout > 0 {
		policy.attemptTimeout = config.AttemptTimeout
	}
	if config.Idempotency != IdempotencyDeclared {
		policy.idempotent = config.Idempotency == IdempotencyIdempotent
	}
	if config.Hedge.enabled() && policy.idempotent && spec.StreamType == connect.StreamTypeUnary {
		policy.hedge = newHedge(config.Hedge)
	}
	return &policy
}
