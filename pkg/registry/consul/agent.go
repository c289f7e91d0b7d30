package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
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
}

func newAgent(config Config, at address, tokens *tokens) (*agent, error) {
	bounded := &boundedTransport{next: config.Transport, tokens: tokens}
	if bounded.next == nil {
		bounded.next = newTransport(config.TLS, at)
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
	return &agent{client: client, http: bounded, where: at.text(), tokens: tokens}, nil
}

func (a *agent) close() {
	if closer, ok := a.http.next.(interface{ CloseIdleConnections() }); ok {
		closer.CloseIdleConnections()
	}
}

// consistency says which Consul server may answer a query.
type consistency int

const (
	leader     consistency = iota // the leader, unless it lost its majority a moment ago
	stale                         // any server
	consistent                    // the leader, after asking the majority
)

// query is one question for the instances of a service.
type query struct {
	service, tag, datacenter string
	consistency              consistency
	index                    uint64        // answer when the state is later; 0: at once
	wait                     time.Duration // or when this is over
}

// answer is what Consul says about the instances of a service.
type answer struct {
	entries     []*api.ServiceEntry
	index       uint64        // 0 if absent or garbage
	lastContact time.Duration // of the server with the leader; 0 if not reported
	withheld    bool          // access control may have left instances out
	token       string        // that was sent
}

// health asks for all instances of a service, whatever their checks say.
func (a *agent) health(ctx context.Context, q query) (answer, error) {
	timeout := agentTimeout
	if q.index > 0 {
		timeout += q.wait + q.wait/16 // Consul adds up to a sixteenth, so that not all watchers come back at once
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ctx, exchange := withExchange(ctx)
	options := &api.QueryOptions{
		Datacenter: q.datacenter, AllowStale: q.consistency == stale, RequireConsistent: q.consistency == consistent, WaitIndex: q.index,
	}
	if q.index > 0 {
		options.WaitTime = q.wait
	}
	// The API package stops reading the headers at the first that it cannot parse, and says nothing: they are read from the exchange instead.
	entries, _, err := a.client.Health().Service(q.service, q.tag, false, options.WithContext(ctx))
	if err == nil && entries == nil {
		err = errors.New("the answer is null, not a list")
	}
	if err != nil {
		err = a.explain(fmt.Sprintf("query service %q", q.service), err)
		if answered, ok := errors.AsType[*answeredError](err); ok {
			answered.token = exchange.token
		}
		return answer{}, err
	}
	header := exchange.header
	return answer{
		entries: entries, token: exchange.token, index: number(header, "X-Consul-Index"),
		lastContact: time.Duration(min(number(header, "X-Consul-LastContact"), 24*60*60*1000)) * time.Millisecond, // a day, at most
		// Consul reports what it filtered only to those who sent a token (since 1.11), to tell strangers nothing.
		withheld: header.Get("X-Consul-Results-Filtered-By-Acls") == "true" ||
			exchange.token == "" && header.Get("X-Consul-Default-Acl-Policy") == "deny",
	}, nil
}

// number returns the value of a header, 0 if it is absent or no number.
func number(header http.Header, name string) uint64 {
	value, err := strconv.ParseUint(header.Get(name), 10, 64)
	if err != nil {
		return 0
	}
	return value
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
