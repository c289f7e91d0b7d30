package consul

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"

	"github.com/0x1d/goplt/internal/safelog"
	"github.com/0x1d/goplt/internal/snapshot"
	"github.com/0x1d/goplt/pkg/registry"
)

// Scheme is the scheme of the targets of a [Registry].
const Scheme = "consul"

// Registry is a [registry.ServiceRegistry] over Consul. Make one with [New]. It is safe for concurrent use.
type Registry struct {
	config  Config
	tokens  *tokens
	home    address
	logger  *slog.Logger
	metrics *metrics
	store   *snapshot.Store // nil if there are to be no snapshots

	elsewhere string // the scheme of agents that targets name

	mu       sync.Mutex
	agents   map[address]*agent // made when first needed
	feeds    map[question]*feed // that have users
	chains   map[chainKey]*chain
	watchers map[*watcher]struct{}
	slots    map[string]*slot // by ID at the agent
	isClosed bool

	closing sync.Once
}

var _ registry.ServiceRegistry = (*Registry)(nil)

// New returns a registry over the agent that the configuration, or the environment, names. It does no I/O: an agent that cannot be reached shows in
// [registry.Watcher] and Register, which go on when it can. What is wrong with the configuration is returned as by [Config.Validate].
func New(config Config) (*Registry, error) {
	config, err := config.withEnvironment()
	if err != nil {
		return nil, fmt.Errorf("consul registry: %w", err)
	}
	home, err := parseAddress(config.Address)
	if err != nil {
		return nil, fmt.Errorf("consul registry: %w", err)
	}
	elsewhere := home.scheme
	if demanded, _ := tlsDemanded(); elsewhere == "unix" && demanded {
		elsewhere = "https"
	} else if elsewhere == "unix" {
		elsewhere = "http"
	}
	config.Logger = safelog.New(config.Logger)
	made := &Registry{
		config: config, home: home, elsewhere: elsewhere, logger: config.Logger,
		tokens:   &tokens{value: config.Token, file: config.TokenFile, logger: config.Logger},
		agents:   make(map[address]*agent),
		feeds:    make(map[question]*feed),
		chains:   make(map[chainKey]*chain),
		watchers: make(map[*watcher]struct{}),
		slots:    make(map[string]*slot),
	}
	if dir := config.Snapshot.Dir; dir != "" {
		made.store = snapshot.Open(dir, config.Snapshot.MaxAge, config.Logger)
	}
	if made.metrics, err = newMetrics(config.MeterProvider, made.Status); err != nil {
		return nil, fmt.Errorf("consul registry: metrics: %w", err)
	}
	return made, nil
}

// Watch implements [registry.ServiceRegistry]. The package's documentation lists the parameters. Watchers of the same question share one query.
func (r *Registry) Watch(target registry.Target) (registry.Watcher, error) {
	agent := r.home
	if target.Authority != "" && target.Authority != r.home.host {
		agent = address{scheme: r.elsewhere, host: target.Authority}
	}
	asked, err := r.config.questions(target, agent)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	from, leave, err := r.source(asked)
	if err != nil {
		return nil, err
	}
	var opened *watcher
	opened = newWatcher(from, func() {
		leave()
		r.forget(opened) // last, so that a Close of the registry meanwhile waits for it too
	})
	r.watchers[opened] = struct{}{}
	return opened, nil
}

// agent returns the client of the agent at an address. The caller holds the mutex.
func (r *Registry) agent(at address) (*agent, error) {
	if r.isClosed {
		return nil, registry.ErrClosed
	}
	if found, ok := r.agents[at]; ok {
		return found, nil
	}
	made, err := newAgent(r.config, at, r.tokens)
	if err != nil {
		return nil, err
	}
	r.agents[at] = made
	return made, nil
}

func (r *Registry) forget(closed *watcher) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.watchers, closed)
}

// Close implements [registry.ServiceRegistry]. It takes up to 10 s in all, if the agent does not answer the deregistrations; their errors are
// returned.
func (r *Registry) Close() error {
	var err error
	r.closing.Do(func() { err = r.close() })
	return err
}

func (r *Registry) close() error {
	r.mu.Lock()
	r.isClosed = true // from now on agents, watchers and slots only shrink
	watchers, slots, feeds := maps.Clone(r.watchers), maps.Clone(r.slots), maps.Clone(r.feeds)
	r.mu.Unlock()

	for watcher := range watchers {
		watcher.end() // before the deregistrations, which they would see
	}
	for _, feed := range feeds {
		feed.cancel()
	}
	ctx, cancel := context.WithTimeout(context.Background(), agentTimeout)
	defer cancel()
	var group sync.WaitGroup
	errs := make(chan error, len(watchers)+len(slots))
	for _, slot := range slots {
		group.Go(func() { errs <- slot.close(ctx) })
	}
	for watcher := range watchers {
		group.Go(func() { errs <- watcher.Close() })
	}
	group.Wait()
	close(errs)
	problems := []error{r.metrics.close()}
	for err := range errs {
		problems = append(problems, err)
	}
	for _, agent := range r.agents {
		agent.close()
	}
	return errors.Join(problems...)
}
