package consul

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/0x1d/goplt/internal/snapshot"
	"github.com/0x1d/goplt/pkg/registry"
)

const (
	// A feed asks at most twice a second, with two at once: whatever the index does, Consul is not hammered, and one change right after another still
	// gets through at once.
	queryInterval = 500 * time.Millisecond
	queryBurst    = 2
)

// feed asks one question again and again, and publishes what it learns to all who watch. It owns one goroutine, from the first start until end.
type feed struct {
	publisher

	agent    *agent
	question question
	text     string  // of the target
	settings *Config // of the registry
	metrics  *metrics
	logger   *slog.Logger
	limiter  *rate.Limiter

	users    int // belongs to the registry's mutex
	starting sync.Once
	queries  atomic.Uint64
	report   report
	ctx      context.Context //nolint:containedctx // is the feed's own life, which end ends
	cancel   context.CancelFunc
	done     chan struct{} // closed when the goroutine has ended, or is never to start

	// All below belongs to the goroutine.
	index      uint64 // of the next query
	last       []registry.Instance
	answered   bool      // last was published
	seen       uint64    // the index of the last answer
	doubt      bool      // Consul was out of reach or its index went backwards, and no instance was seen since
	emptyFrom  time.Time // when the empty set takes effect; zero if it is not about to
	maintained bool      // all of last are in maintenance, by the last answer
	damping    damping
	loss       loss
	trouble    trouble
	skipLogged []string
	saver      saver

	triedSnapshot bool
	restored      bool // last is a snapshot's
}

func newFeed(by *agent, asked question, settings *Config, counted *metrics, store *snapshot.Store) *feed {
	text := asked.target()
	made := &feed{
		agent: by, question: asked, text: text, settings: settings, metrics: counted, logger: settings.Logger.With("target", text, "agent", by.where),
		limiter: rate.NewLimiter(rate.Every(queryInterval), queryBurst), done: make(chan struct{}),
		damping: damping{grace: settings.RemovalGrace}, saver: newSaver(store, by.where+" "+text, settings.Snapshot.MaxAge),
	}
	made.report.enter(StateWaiting, nil)
	made.ctx, made.cancel = context.WithCancel(context.Background())
	return made
}

// start implements [source].
func (f *feed) start() {
	f.starting.Do(func() {
		f.agent.feeds.Add(1)
		go func() {
			defer close(f.done)
			f.run()
			f.agent.outage.leave(f)
			f.agent.feeds.Add(-1)
		}()
	})
}

// end stops the feed, a query under way too, and waits for it. What is to be saved is saved.
func (f *feed) end() {
	f.starting.Do(func() { close(f.done) })
	f.cancel()
	<-f.done
	f.saver.flush()
}

func (f *feed) run() {
	for {
		err := f.pause(f.ctx)
		if err == nil {
			err = f.look(f.ctx)
		}
		switch {
		case f.ctx.Err() != nil:
			return
		case err != nil:
			f.failed(err)
			f.publishError(err)
		}
	}
}

// look asks once, and once more to confirm that there are no instances, and publishes what that changes.
func (f *feed) look(ctx context.Context) error {
	if f.due() {
		f.emptyFrom = time.Time{}
		f.report.enter(StateOK, nil)
		f.adopt([]registry.Instance{})
		return nil
	}
	set, err := f.read(ctx)
	if err != nil {
		return err
	}
	if len(set) == 0 && f.emptyFrom.IsZero() && (len(f.last) > 0 || !f.answered) {
		if set, err = f.confirm(ctx); err != nil {
			return err
		}
	}
	f.recovered()
	if len(set) > 0 {
		f.emptyFrom = time.Time{}
	} else if !f.emptyFrom.IsZero() {
		f.report.enter(StateEmptyGrace, nil)
		f.publishWell()
		return nil
	}
	f.report.enter(StateOK, nil)
	f.adopt(set)
	return nil
}

// adopt makes set the last good one.
func (f *feed) adopt(set []registry.Instance) {
	if f.answered && slices.EqualFunc(set, f.last, registry.Instance.Equal) {
		f.publishSame()
		return
	}
	f.last, f.answered = set, true
	f.publishSet(set)
}

// read asks what there is when it changes, and again the leader if a server answered that lost it too long ago.
func (f *feed) read(ctx context.Context) ([]registry.Instance, error) {
	mode := f.question.consistency
	got, err := f.await(ctx, mode)
	if err == nil && mode == ConsistencyStale && f.settings.MaxStale > 0 && got.lastContact > f.settings.MaxStale {
		got, err = f.ask(ctx, ConsistencyDefault)
	}
	if err != nil {
		return nil, err
	}
	return f.accept(got)
}

// await asks for the next change, in its turn. What is due earlier than the answer, and a turn that does not come in time, make it a question for
// what is there now.
func (f *feed) await(ctx context.Context, mode Consistency) (answer, error) {
	if f.index == 0 {
		return f.ask(ctx, mode)
	}
	if f.question.prepared != "" { // cannot wait at the agent
		if err := sleep(ctx, f.patience()); err != nil {
			return answer{}, err
		}
		return f.ask(ctx, mode)
	}
	if err := f.limiter.Wait(ctx); err != nil {
		return answer{}, err
	}
	hasTurn, err := f.agent.blocking.take(ctx, min(turnInterval, f.patience()))
	if err != nil {
		return answer{}, err
	}
	if !hasTurn {
		return f.agent.readNow(ctx, f, mode)
	}
	defer f.agent.blocking.give()
	return f.query(ctx, mode, f.index, f.agent.share(f.patience()))
}

// ask asks for what is there now.
func (f *feed) ask(ctx context.Context, mode Consistency) (answer, error) {
	if err := f.limiter.Wait(ctx); err != nil {
		return answer{}, err
	}
	return f.agent.readNow(ctx, f, mode)
}

func (f *feed) query(ctx context.Context, mode Consistency, index uint64, wait time.Duration) (answer, error) {
	f.queries.Add(1)
	got, err := f.agent.find(ctx, query{question: &f.question, mode: mode, index: index, wait: wait})
	if ctx.Err() == nil {
		f.metrics.queried(ctx, f, err)
	}
	return got, err
}

// due reports whether it is time for the empty set.
func (f *feed) due() bool { return !f.emptyFrom.IsZero() && !time.Now().Before(f.emptyFrom) }

// patience is how long an answer may be waited for: as configured, or until something is due. It is never 0, which would be without bound.
func (f *feed) patience() time.Duration {
	wait := f.settings.Wait
	if f.question.prepared != "" {
		wait = f.settings.QueryInterval*9/10 + rand.N(f.settings.QueryInterval/5+1)
	}
	for _, due := range []time.Time{f.emptyFrom, f.damping.earliest(), f.loss.ends()} {
		if !due.IsZero() {
			wait = min(wait, time.Until(due))
		}
	}
	return max(wait, time.Millisecond)
}
