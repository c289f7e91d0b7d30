package consul

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/0x1d/goplt/pkg/registry"
)

// passOver is how long the datacenters of a target with failover are waited for at first, before one that is silent is passed over.
const passOver = 2 * time.Second

// chain is the ordered list of datacenters of a target with failover, each with a feed of its own. Its set is that of the first that has
// instances. It owns no goroutine: those of its feeds tell it the news.
type chain struct {
	publisher

	feeds    []*feed
	text     string // of the target
	logger   *slog.Logger
	users    int // belongs to the registry's mutex
	starting sync.Once

	turn    sync.Mutex // after the lock of a feed's publisher, and before that of the chain's own
	links   []news     // by feed, the latest
	serving int        // which feed's set was published; -1 before the first
	patient bool       // passOver is not over
	silence *time.Timer
}

// link hears the news of one feed of a chain.
type link struct {
	chain *chain
	at    int
}

func newChain(feeds []*feed, logger *slog.Logger) *chain {
	text := chainText(feeds)
	made := &chain{
		feeds: feeds, text: text, logger: logger.With("target", text, "agent", feeds[0].agent.where),
		links: make([]news, len(feeds)), serving: -1, patient: true,
	}
	for at, followed := range feeds {
		followed.listen(link{chain: made, at: at})
	}
	return made
}

// chainText is the text of the target.
func chainText(feeds []*feed) string {
	rest := make([]string, 0, len(feeds)-1)
	for _, followed := range feeds[1:] {
		rest = append(rest, followed.question.datacenter)
	}
	target, err := registry.ParseTarget(feeds[0].text)
	if err != nil {
		return feeds[0].text
	}
	if target.Params == nil {
		target.Params = make(map[string]string)
	}
	target.Params["failover"] = strings.Join(rest, ",")
	return target.String()
}

// start implements [source].
func (c *chain) start() {
	c.starting.Do(func() {
		for _, followed := range c.feeds {
			followed.start()
		}
		c.turn.Lock()
		defer c.turn.Unlock()
		c.silence = time.AfterFunc(passOver, func() {
			c.turn.Lock()
			defer c.turn.Unlock()
			c.patient = false
			c.choose()
		})
	})
}

// end leaves the feeds, which are the registry's to end.
func (c *chain) end() {
	for at, followed := range c.feeds {
		followed.unlisten(link{chain: c, at: at})
	}
	c.turn.Lock()
	defer c.turn.Unlock()
	if c.silence != nil {
		c.silence.Stop()
	}
}

// heard implements [listener].
func (l link) heard(latest news) {
	c := l.chain
	c.turn.Lock()
	defer c.turn.Unlock()
	failed := latest.err != nil && latest.errs != c.links[l.at].errs
	c.links[l.at] = latest
	c.choose()
	if failed && c.matters(l.at) {
		c.publishError(latest.err)
	}
}

// matters reports whether the failure of a datacenter is news to who watches: it serves, or would if it could. Of those in reserve only the log and
// the status tell.
func (c *chain) matters(at int) bool {
	if c.serving >= 0 {
		return at <= c.serving
	}
	return !c.patient || !slices.ContainsFunc(c.links[:at], func(l news) bool { return l.set == nil && l.err == nil })
}

// choose publishes the set of the first datacenter that has instances. One that has never answered is passed over, once it failed or was silent for
// long; what a snapshot says of it is for when none answers. There are no instances only if each datacenter says so, or all that do so after one of
// them had some.
func (c *chain) choose() {
	silent, restored := 0, -1
	for at, link := range c.links {
		switch {
		case link.restored && restored < 0:
			restored = at
		case link.restored:
		case len(link.set) > 0:
			c.serve(at)
			return
		case link.set == nil && link.err == nil && c.patient:
			return // its answer is about to come
		case link.set == nil:
			silent++
		}
	}
	switch {
	case restored >= 0:
		c.serve(restored)
	case silent == 0 || silent < len(c.links) && c.serving >= 0:
		c.serve(slices.IndexFunc(c.links, func(l news) bool { return l.set != nil }))
	}
}

// serve publishes the set of a feed.
func (c *chain) serve(at int) {
	set := c.links[at].set
	if at != c.serving && len(set) > 0 {
		if at > 0 {
			c.logger.Warn("consul: another datacenter takes over", "serving", c.feeds[at].text, "instances", len(set))
		} else if c.serving > 0 {
			c.logger.Info("consul: the first datacenter serves again", "serving", c.feeds[at].text, "instances", len(set))
		}
	}
	c.serving = at
	err := c.ailment()
	if now := c.latest(); now.set == nil || !slices.EqualFunc(now.set, set, registry.Instance.Equal) {
		c.publish(func(n *news) { n.set, n.sets, n.err = set, n.sets+1, err })
	} else if err == nil {
		c.publishWell()
	}
}

// ailment returns the error that lasts: of who serves, or of one that would if it could. That one in reserve is well ends no error.
func (c *chain) ailment() error {
	for _, link := range c.links[:c.serving+1] {
		if link.err != nil {
			return link.err
		}
	}
	return nil
}

// status returns what is to say beyond the feeds.
func (c *chain) status() WatchStatus {
	c.turn.Lock()
	at := c.serving
	c.turn.Unlock()
	status := c.feeds[max(at, 0)].report.read()
	now := c.latest()
	status.Target, status.Agent, status.Instances, status.Err = c.text, c.feeds[0].agent.where, len(now.set), now.err
	if at >= 0 {
		status.Serving = c.feeds[at].text
	}
	return status
}
