package rpc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectinprocess"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/0x1d/goplt/internal/balancer"
	"github.com/0x1d/goplt/internal/resilience"
	"github.com/0x1d/goplt/internal/safelog"
	"github.com/0x1d/goplt/pkg/registry"
)

// Transport is a [connect.Transport] to one target: it watches the target's instances, balances over them, keeps their connections, and
// retries what is safe to send again. Make one per service and share it: it is safe for concurrent use, and its connections, breakers
// and budget are its own.
type Transport struct {
	config    ClientConfig
	target    registry.Target
	name      string // the target's text form
	registry  registry.ServiceRegistry
	inProcess connect.Transport // nil unless the protocol is inprocess
	opening   opening
	logger    *slog.Logger
	policies  *policies
	admission *resilience.Limiter // nil if there is no bound
	retrier   *resilience.Retrier
	budget    *resilience.Budget
	alarms    alarms

	balancing balancer.Config
	prober    *prober         // nil if there is no ejection
	fallbacks *fallbackProbes // nil unless the protocol is auto
	changes   changes
	view      atomic.Pointer[view]
	mu        quietMutex
	changed   chan struct{} // closed and replaced with each new view
	known     map[instanceKey]*instance
	retired   map[instanceKey]*instance // that the registry no longer names, until they expire

	start    sync.Once
	watching sync.WaitGroup
	ctx      context.Context //nolint:containedctx // the lifetime of the watch, which no single call bounds
	cancel   context.CancelFunc

	active    atomic.Int64 // calls under way
	closed    atomic.Bool
	idle      chan struct{} // told when the last call of a closed transport ends
	closeOnce sync.Once
}

var _ connect.Transport = (*Transport)(nil)

// view is what the watch knows at one time. It is immutable.
type view struct {
	instances []*instance
	picker    *balancer.Picker // of the instances, by index
	updated   time.Time        // of the last set; zero if there was none
	err       error            // of the last try to get one, nil if it succeeded
}

// NewTransport returns a transport to target, the text form of a [registry.Target] such as "consul:///orders" or "orders", as found by
// reg. It does no I/O: the target is watched from the first call on. Impossible targets and configurations are errors here.
//
// reg stays the caller's to close, after the transport. It may be nil for the protocol inprocess.
func NewTransport(target string, reg registry.ServiceRegistry, options ...Option) (*Transport, error) {
	settings := clientSettings{config: DefaultClientConfig(), logger: slog.New(slog.DiscardHandler), pace: defaultFallbackPace()}
	for _, option := range options {
		option.applyClient(&settings)
	}
	if err := errors.Join(settings.config.Validate(), checkMethods(settings.config.Methods, protoregistry.GlobalFiles)); err != nil {
		return nil, fmt.Errorf("transport to %q: %w", target, err)
	}
	parsed, err := registry.ParseTarget(target)
	if err != nil {
		return nil, err
	}
	t := &Transport{
		config: settings.config, target: parsed, name: parsed.String(), registry: reg,
		logger:  safelog.New(settings.logger).With("target", parsed.String()),
		changed: make(chan struct{}), known: make(map[instanceKey]*instance), retired: make(map[instanceKey]*instance), idle: make(chan struct{}, 1),
		budget: resilience.NewBudget(settings.config.Retry.BudgetTokens, settings.config.Retry.BudgetRatio),
		retrier: resilience.NewRetrier(resilience.RetryConfig{
			MaxAttempts: settings.config.Retry.MaxAttempts, InitialBackoff: settings.config.Retry.InitialBackoff,
			MaxBackoff: settings.config.Retry.MaxBackoff, Multiplier: settings.config.Retry.BackoffMultiplier,
		}),
	}
	t.policies = newPolicies(&t.config)
	if admission := t.config.Admission; admission.MaxConcurrentCalls > 0 {
		t.admission = resilience.NewLimiter(resilience.LimiterConfig{
			Most: admission.MaxConcurrentCalls, MaxWait: admission.MaxWait, Adaptive: admission.Adaptive,
		})
	}
	t.changes.logger = t.logger
	t.balancing = t.config.Balancer.internal()
	if t.balancing.SubsetKey == "" {
		t.balancing.SubsetKey = rand.Text()
	}
	if t.config.Outlier.Enabled {
		t.prober = newProber(t.config.Outlier, t.config.Protocol, t.probeTargets)
	}
	if t.config.Protocol == ProtocolAuto {
		t.fallbacks = newFallbackProbes(settings.pace)
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.view.Store(&view{picker: balancer.New(t.balancing, nil, nil)})
	switch {
	case settings.config.Protocol == ProtocolInProcess && settings.server == nil:
		return nil, fmt.Errorf("transport to %q: protocol inprocess needs the server to call, see WithInProcess", target)
	case settings.config.Protocol == ProtocolInProcess:
		t.inProcess = connectinprocess.New(settings.server)
	case reg == nil:
		return nil, fmt.Errorf("transport to %q: no registry", target)
	default:
		t.opening.dial = settings.dial
		if t.opening.tls, err = newClientTLS(settings.config.TLS); err != nil {
			return nil, fmt.Errorf("transport to %q: %w", target, err)
		}
		// Watching does no I/O until asked for its first set: this only has the registry check the target.
		watcher, err := reg.Watch(parsed)
		if err != nil {
			return nil, err
		}
		if err := watcher.Close(); err != nil {
			return nil, fmt.Errorf("transport to %q: %w", target, err)
		}
	}
	return t, nil
}

// Option configures [NewTransport].
type Option interface{ applyClient(*clientSettings) }

type clientSettings struct {
	config ClientConfig
	server *connect.Server
	logger *slog.Logger
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	pace   fallbackPace
}

type optionFunc func(*clientSettings)

func (f optionFunc) applyClient(settings *clientSettings) { f(settings) }

// WithClientConfig replaces [DefaultClientConfig].
func WithClientConfig(config ClientConfig) Option {
	return optionFunc(func(settings *clientSettings) { settings.config = config })
}

// WithInProcess gives the protocol inprocess the server that it dispatches to.
func WithInProcess(server *connect.Server) Option {
	return optionFunc(func(settings *clientSettings) { settings.server = server })
}

// WithLogger has changes of state logged: instances that come and go, and their health, at the level debug; what else the registry changes of
// one, and ejections that end, at info; failures of the registry, breakers, ejections and fallbacks at warn. By default nothing is logged.
func WithLogger(logger *slog.Logger) Option {
	return optionFunc(func(settings *clientSettings) { settings.logger = logger })
}

// WithDialer has dial open the connections to instances, in place of TCP: to a server that serves a listener of its own ([WithListener]), such as
// one in memory, on which tests run on the clock of testing/synctest, or by another way, such as a Unix socket, a proxy or a tunnel. dial is given
// the network "tcp" and the instance's host:port as the registry has it, be the host a name or an address. It has to return when its context ends,
// and may be called concurrently. TLS is spoken on what it returns, as configured. Whether a peer that vanished is noticed is up to the connection,
// or to [PoolConfig.PingInterval].
func WithDialer(dial func(ctx context.Context, network, addr string) (net.Conn, error)) Option {
	return optionFunc(func(settings *clientSettings) { settings.dial = dial })
}

// NewClientStream implements [connect.Transport]. Errors that concern the instances come from the stream's first Receive.
func (t *Transport) NewClientStream(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
	switch {
	case t.inProcess != nil:
		return t.newInProcessStream(ctx, spec)
	case spec.StreamType == connect.StreamTypeUnary:
		return &call{transport: t, ctx: ctx, spec: spec, policy: t.policies.of(spec)}, nil
	default:
		return newStream(ctx, t, spec), nil
	}
}

// begin counts a call in, and reports false if the transport is closed.
func (t *Transport) begin() bool {
	t.active.Add(1)
	if t.closed.Load() {
		t.end()
		return false
	}
	return true
}

func (t *Transport) end() {
	if t.active.Add(-1) == 0 && t.closed.Load() {
		select {
		case t.idle <- struct{}{}:
		default:
		}
	}
}

// Close refuses further calls, lets those under way finish for up to the drain timeout, then cuts them off, ends the watch and closes all
// connections. It may be called more than once; later calls wait for the first.
func (t *Transport) Close() error {
	t.closeOnce.Do(func() {
		t.closed.Store(true)
		if t.active.Load() > 0 {
			drain := time.NewTimer(t.config.Pool.DrainTimeout)
			defer drain.Stop()
			for waiting := true; waiting && t.active.Load() > 0; {
				select {
				case <-t.idle:
				case <-drain.C:
					waiting = false
				}
			}
		}
		t.start.Do(func() {}) // from here on, nothing can start the watch
		t.cancel()
		t.watching.Wait()
		if t.prober != nil {
			t.prober.close()
		}
		if t.fallbacks != nil {
			t.fallbacks.close()
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, known := range t.known {
			known.close()
		}
		for _, retired := range t.retired {
			retired.expiry.Stop()
			retired.close()
		}
	})
	return nil
}

// pick chooses an instance for an attempt and counts the attempt in; permit says what its breaker is to be told of the outcome.
// Instances already tried are avoided while there are others, and open breakers and ejections honoured while any instance is left, and
// ejections only while enough are: serving from any beats serving from none.
func (t *Transport) pick(
	ctx context.Context, deadline time.Time, balanced balancer.Call, tried []*instance,
) (chosen *instance, permit permit, err error) {
	t.start.Do(t.watch)
	for {
		if t.ctx.Err() != nil {
			return nil, permitNone, unavailable(ErrClosed)
		}
		current := t.view.Load()
		if len(current.instances) == 0 {
			if current, err = t.awaitInstances(ctx, deadline); err != nil {
				return nil, permitNone, err
			}
		}
		chosen, permit = current.choose(balanced, tried, t.heedsEjection())
		if chosen.enter() {
			return chosen, permit, nil
		}
		chosen.record(permit, outcomeNone)
		if ctx.Err() != nil {
			return nil, permitNone, contextError(ctx.Err())
		}
	}
}

// another picks an instance for an attempt beside others, as pick does, but only one that serves for certain and is not among those tried: a probe
// of a breaker is not for an attempt that may not be made. It does not wait.
func (t *Transport) another(balanced balancer.Call, tried []*instance) (chosen *instance, permit permit, ok bool) {
	current, heedEjection := t.view.Load(), t.heedsEjection()
	at := current.picker.Pick(balanced, func(at int) bool {
		candidate := current.instances[at]
		return !candidate.breakerShut.Load() && candidate.mayServe(heedEjection) && !slices.Contains(tried, candidate)
	})
	if at < 0 || !current.instances[at].enter() {
		return nil, permitNone, false
	}
	return current.instances[at], permitFree, true
}

// heedsEjection reports whether calls keep away from ejected instances: not if too many are.
func (t *Transport) heedsEjection() bool { return t.prober != nil && !t.prober.detector.Panic() }

// choose picks from the view's instances, of which there is at least one.
func (v *view) choose(balanced balancer.Call, tried []*instance, heedEjection bool) (*instance, permit) {
	if chosen, permit := v.prefer(balanced, tried, heedEjection); chosen != nil {
		return chosen, permit
	}
	if at := v.picker.Pick(balanced, func(at int) bool { return v.instances[at].mayServe(heedEjection) }); at >= 0 {
		if permit := v.instances[at].acquirePermit(); permit != permitNone {
			return v.instances[at], permit
		}
	}
	// An ejected instance is the last resort: it has to pass a probe first, and a breaker that is shut may be about to close.
	at := v.picker.Pick(balanced, func(at int) bool {
		return (!heedEjection || !v.instances[at].host.Ejected()) && !slices.Contains(tried, v.instances[at])
	})
	if at < 0 {
		at = v.picker.Pick(balanced, func(at int) bool { return !slices.Contains(tried, v.instances[at]) })
	}
	if at < 0 {
		at = v.picker.Pick(balanced, func(int) bool { return true })
	}
	return v.instances[at], permitNone
}

// prefer picks an instance that may serve and was not tried, or returns nil if there is none.
func (v *view) prefer(balanced balancer.Call, tried []*instance, heedEjection bool) (*instance, permit) {
	var avoid [maxPermitTries]*instance // those whose breaker refused
	for refused := range maxPermitTries {
		at := v.picker.Pick(balanced, func(at int) bool {
			candidate := v.instances[at]
			return candidate.mayServe(heedEjection) && !slices.Contains(tried, candidate) && !slices.Contains(avoid[:refused], candidate)
		})
		if at < 0 {
			break
		}
		if permit := v.instances[at].acquirePermit(); permit != permitNone {
			return v.instances[at], permit
		}
		avoid[refused] = v.instances[at]
	}
	return nil, permitNone
}

// maxPermitTries bounds how many half-open breakers one pick asks for a permit.
const maxPermitTries = 4

// awaitInstances returns a view with instances. It waits for the registry's first answer, and beyond that only if so configured.
func (t *Transport) awaitInstances(ctx context.Context, deadline time.Time) (*view, error) {
	if !deadline.IsZero() {
		bounded, cancel := context.WithDeadline(ctx, deadline)
		defer cancel()
		ctx = bounded
	}
	for {
		t.mu.Lock()
		current, changed := t.view.Load(), t.changed
		t.mu.Unlock()
		answered := !current.updated.IsZero() || current.err != nil
		switch {
		case len(current.instances) > 0:
			return current, nil
		case answered && !t.config.WaitForInstances:
			return nil, t.noInstances(current)
		}
		select {
		case <-changed:
		case <-t.ctx.Done():
			return nil, unavailable(ErrClosed)
		case <-ctx.Done():
			text := fmt.Sprintf("%v: waited for instances of %s", ctx.Err(), t.name)
			if current.err != nil {
				text += ": " + current.err.Error()
			}
			return nil, connect.NewError(connect.CodeOf(contextError(ctx.Err())), text).WithCause(errors.Join(ctx.Err(), ErrNoInstances, current.err))
		}
	}
}

func (t *Transport) noInstances(current *view) error {
	text := fmt.Sprintf("%v of %s", ErrNoInstances, t.name)
	if current.err != nil {
		text += ": " + current.err.Error()
	}
	return connect.NewError(connect.CodeUnavailable, text).WithCause(errors.Join(ErrNoInstances, current.err))
}

// probeTargets returns the instances that the prober may ask.
func (t *Transport) probeTargets() []probeTarget {
	instances := t.view.Load().instances
	targets := make([]probeTarget, len(instances))
	for at, known := range instances {
		targets[at] = known
	}
	return targets
}
