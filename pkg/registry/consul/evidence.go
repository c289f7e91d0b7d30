package consul

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/0x1d/goplt/pkg/registry"
)

// confirm asks for what was just found to be empty a second time, such that no lagging server can answer. If it is empty still, that takes effect
// after the grace, if there is anything to keep until then. Instances that are all critical are asked for twice too, after their own grace: this is
// one rule, and costs one query. Only where all that stand are in maintenance is there nothing to wait for, as somebody took each of them out.
func (f *feed) confirm(ctx context.Context) ([]registry.Instance, error) {
	f.index = 0 // the answer that is to be confirmed was not published: if this ends early, the next query must not wait for a later one
	got, err := f.ask(ctx, ConsistencyConsistent)
	if err != nil {
		return nil, err
	}
	set, err := f.accept(got)
	if err != nil || len(set) > 0 || len(f.last) == 0 || f.maintained {
		return set, err
	}
	grace := f.settings.EmptyGrace
	if f.doubt {
		grace = max(grace, lossGrace)
		if f.loss.ends().IsZero() { // else it was noticed already
			f.loss.begin(time.Now(), f.last)
		}
		f.logger.Warn("consul: no instance is registered since Consul was away; the last instances stand for now",
			"instances", len(f.last), "for", grace)
	}
	if grace > 0 {
		f.emptyFrom = time.Now().Add(grace)
	}
	return set, nil
}

// accept maps an answer to a set, in which instances whose checks began to fail have their grace, and remembers its index.
func (f *feed) accept(got answer) ([]registry.Instance, error) {
	if f.question.prepared != "" {
		got.index = 0 // says nothing: it is of whichever services the query went through
	}
	f.index = nextIndex(f.index, got.index)
	read := readEntries(got.entries, &f.question)
	backwards := got.index > 0 && got.index < f.seen
	if backwards {
		f.loss.begin(time.Now(), f.last)
	}
	f.doubt = len(read.live) == 0 && (f.doubt || backwards)
	f.seen = got.index
	f.maintained = !slices.ContainsFunc(f.last, func(instance registry.Instance) bool { return !read.maintained[instance.ID] })
	if len(read.live) == 0 && got.withheld {
		return nil, &answeredError{mark: ErrForbidden, token: got.token, text: fmt.Sprintf("consul agent %s: %s: no usable instance is visible, and "+
			"access control may withhold some; want a token with service:read and node:read", f.agent.where, f.question.what())}
	}
	for _, what := range read.skipped {
		if !slices.Contains(f.skipLogged, what) {
			f.logger.Warn("consul: an instance is left out", "reason", what)
		}
	}
	f.skipLogged = read.skipped
	f.report.answered(got.index)
	f.restored = false
	if f.saver.store != nil {
		f.saver.keep(read.good())
	}
	now := time.Now()
	return f.loss.apply(now, f.damping.apply(now, read.live, read.failing), &read), nil
}

// nextIndex returns the index to query with after one answer has come, by the rules of Consul's documentation of blocking queries: an index that
// went backwards means that the state was restored, so start afresh; below 1 a query would not block.
func nextIndex(previous, received uint64) uint64 {
	switch {
	case received < 1:
		return 1
	case received < previous:
		return 0
	default:
		return received
	}
}
