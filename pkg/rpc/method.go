package rpc

import (
	"maps"
	"strings"
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

// policies holds the policy of each configured method that was called. Safe for concurrent use; what is known is found without a lock.
type policies struct {
	config *ClientConfig
	// common are those of methods for which nothing is configured: of one that is not idempotent, and of one that is.
	common [2]*methodPolicy
	// methods are the configured ones by procedure, and services those by full name: a name may be either.
	methods, services map[string]MethodConfig

	known atomic.Pointer[map[policyKey]*methodPolicy]
	mu    sync.Mutex // held to add to known
}

// policyKey is what a policy depends on. Two callers may declare a procedure differently.
type policyKey struct {
	procedure   string
	idempotency connect.IdempotencyLevel
	stream      connect.StreamType
}

// maxPolicies bounds the policies that are remembered, for whoever forwards any procedure of a service. Those beyond learn nothing from call to call.
const maxPolicies = 1000

func newPolicies(config *ClientConfig) *policies {
	p := &policies{config: config, methods: make(map[string]MethodConfig), services: config.Methods}
	for at := range p.common {
		p.common[at] = &methodPolicy{timeout: config.Timeout, attemptTimeout: config.AttemptTimeout, idempotent: at == 1}
	}
	for name, method := range config.Methods {
		if at := strings.LastIndexByte(name, '.'); at >= 0 {
			p.methods["/"+name[:at]+"/"+name[at+1:]] = method
		}
	}
	p.known.Store(&map[policyKey]*methodPolicy{})
	return p
}

// of returns the policy of a method.
func (p *policies) of(spec connect.Spec) *methodPolicy {
	if len(p.services) == 0 {
		return p.commonOf(spec)
	}
	config, ok := p.methods[spec.Procedure]
	if !ok {
		service, _, _ := splitProcedure(spec.Procedure)
		if config, ok = p.services[service]; !ok {
			return p.commonOf(spec)
		}
	}
	key := policyKey{spec.Procedure, spec.IdempotencyLevel, spec.StreamType}
	if policy, ok := (*p.known.Load())[key]; ok {
		return policy
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	known := *p.known.Load()
	if policy, ok := known[key]; ok {
		return policy
	}
	policy := p.configured(spec, config)
	if len(known) < maxPolicies {
		known = maps.Clone(known)
		known[key] = policy
		p.known.Store(&known)
	}
	return policy
}

func (p *policies) commonOf(spec connect.Spec) *methodPolicy {
	if spec.IdempotencyLevel == connect.IdempotencyUnknown {
		return p.common[0]
	}
	return p.common[1]
}

// configured returns the policy that the configuration gives a method.
func (p *policies) configured(spec connect.Spec, config MethodConfig) *methodPolicy {
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
