package consul

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"
)

// ErrForbidden is matched by errors that come from access control: Consul answered 403, the instances that it shows are none while it withholds
// some, or there is no token to ask with. A watch keeps its set, and goes on as soon as the token file holds another token.
var ErrForbidden = errors.New("consul: access denied")

// ErrRefused is matched by errors for requests that Consul calls wrong, 400, such as for a namespace that it does not offer. To ask again is of no
// use before someone mends the configuration, so a watch does so only every 30 s or so.
var ErrRefused = errors.New("consul: request refused")

// agentTimeout bounds a request that the agent answers at once, and is what a blocking query gets beyond its wait.
const agentTimeout = 10 * time.Second

// agent speaks to one Consul agent. It is safe for concurrent use.
type agent struct {
	client *api.Client
	http   *boundedTransport
	where  string // the address, for errors and logs
	tokens *tokens

	// What the feeds of the agent share.
	outage     *outage
	blocking   turns // for queries that wait for a change
	reads      turns // for those that do not
	maxQueries int   // how many turns blocking has
	feeds      atomic.Int64
}

func newAgent(config Config, at address, tokens *tokens) (*agent, error) {
	bounded := &boundedTransport{next: config.Transport, tokens: tokens}
	if bounded.next == nil {
		bounded.next = newNetwork(config.TLS, at)
	}
	settings := &api.Config{
		Address: at.host, Scheme: at.scheme, PathPrefix: at.prefix, Namespace: config.Namespace, Partition: config.Partition,
		HttpClient: &http.Client{
			Transport: bounded,
			// An agent does not redirect, and one that did would lead the token elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		// boundedTransport sets the token. Without one here NewClient would read the file that the environment names, once.
		Token: "set-by-transport",
	}
	if at.scheme == "unix" {
		settings.Address, settings.Scheme = "localhost", "http"
	}
	client, err := api.NewClient(settings)
	if err != nil {
		return nil, fmt.Errorf("consul: %w", err)
	}
	return &agent{
		client: client, http: bounded, where: at.text(), tokens: tokens, outage: newOutage(),
		blocking: turns{free: config.MaxQueries}, reads: turns{free: maxReads}, maxQueries: config.MaxQueries,
	}, nil
}

func (a *agent) close() {
	if closer, ok := a.http.next.(interface{ CloseIdleConnections() }); ok {
		closer.CloseIdleConnections()
	}
}

// credentials returns what stands for the credentials of a request with a token now, to see whether they change.
func (a *agent) credentials(token string) string {
	if network, ok := a.http.next.(*network); ok {
		token += "\n" + network.fingerprint()
	}
	return token
}

// rotates reports whether the credentials may change.
func (a *agent) rotates() bool {
	network, ok := a.http.next.(*network)
	return a.tokens.rotates() || ok && network.files.CertFile != ""
}

// share returns how long a query of one of the feeds may wait: less than wanted where there are more feeds than turns, so that each has a turn in
// every [turnInterval], with some time to spare for what Consul adds to a wait. Chance keeps those that began together from going on together.
func (a *agent) share(wanted time.Duration) time.Duration {
	feeds := a.feeds.Load()
	if feeds <= int64(a.maxQueries) {
		return wanted
	}
	each := time.Duration(int64(turnInterval) * int64(a.maxQueries) / feeds)
	return min(wanted, max(each*3/4+rand.N(each/4+1), time.Millisecond))
}

// readNow lets a feed ask for what is there now, when few enough do so.
func (a *agent) readNow(ctx context.Context, by *feed, mode Consistency) (answer, error) {
	if _, err := a.reads.take(ctx, 0); err != nil {
		return answer{}, err
	}
	defer a.reads.give()
	return by.query(ctx, mode, 0, 0)
}

// explain says what was asked of whom, and marks the errors that callers branch on.
func (a *agent) explain(what string, err error) error {
	if err == nil {
		return nil
	}
	failed, ok := errors.AsType[api.StatusError](err)
	if !ok {
		return fmt.Errorf("consul agent %s: %s: %w", a.where, what, err)
	}
	explained := &answeredError{code: failed.Code, text: fmt.Sprintf("consul agent %s: %s: status %d", a.where, what, failed.Code)}
	if body := strings.TrimSpace(failed.Body); body != "" {
		explained.text += ": " + strconv.Quote(body)
	}
	switch failed.Code {
	case http.StatusForbidden, http.StatusUnauthorized:
		explained.mark = ErrForbidden
	case http.StatusBadRequest:
		explained.mark = ErrRefused
	}
	return explained
}

// answeredError is an error that the agent answered, or that its answer amounts to.
type answeredError struct {
	code  int
	text  string
	token string // that was sent; never printed
	mark  error  // [ErrForbidden], [ErrRefused] or nil
}

func (e *answeredError) Error() string {
	if e.mark == nil {
		return e.text
	}
	return e.mark.Error() + ": " + e.text
}

func (e *answeredError) Unwrap() error { return e.mark }

// unusableError marks an error that came after the agent began to answer: it is in reach.
type unusableError struct{ error }

func (e *unusableError) Unwrap() error { return e.error }

// status returns the HTTP status that an error reports, 0 if none.
func status(err error) int {
	if failed, ok := errors.AsType[api.StatusError](err); ok {
		return failed.Code
	}
	if failed, ok := errors.AsType[*answeredError](err); ok {
		return failed.code
	}
	return 0
}
