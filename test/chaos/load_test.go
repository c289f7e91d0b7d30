//go:build integration && linux

package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	connectrpc "connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/wrapperspb"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/servicestest"
)

const (
	// callers is how many there are, and maxPause the most that each of them pauses between two calls.
	callers  = 32
	maxPause = 40 * time.Millisecond
	// How much time a call has.
	minTimeout, maxTimeout = time.Second, 5 * time.Second
	// tolerance is by how much a call may outlive that, and the time that it has to wait for a processor; mostLate is by how much whatever happens.
	tolerance = 50 * time.Millisecond
	mostLate  = 3 * time.Second
	// maxPatience is how long a caller waits who gives up, which is one in fifty.
	maxPatience = 300 * time.Millisecond
	givesUp     = 50
)

// sort is of what sort a call is.
type sort string

const (
	idempotent   sort = "idempotent"
	unrepeatable sort = "not idempotent"
	streamed     sort = "stream"
)

// route is a transport that calls may take.
type route struct {
	name      string
	transport *rpc.Transport
}

// outcome is what became of a call.
type outcome struct {
	id      string
	route   string
	sort    sort
	began   time.Time
	took    time.Duration
	timeout time.Duration
	gaveUp  bool          // its caller, before its time was over
	late    time.Duration // by how much it outlived its time
	halted  time.Duration // for how long nothing of this process ran while it was under way; told of calls that failed
	err     error
}

// load is callers that make calls until they are told to end.
type load struct {
	routes  []route
	ledger  *ledger
	results *results

	made    atomic.Int64
	callers sync.WaitGroup
	ended   chan struct{}
	ending  sync.Once
}

// startLoad begins to make calls, whose kinds and times are determined by the seed.
func startLoad(seed uint64, routes []route, open opener, executions *ledger, results *results) *load {
	l := &load{routes: routes, ledger: executions, results: results, ended: make(chan struct{})}
	l.callers.Go(func() { l.visit(open, rand.New(rand.NewPCG(seed, 99))) })
	for caller := range uint64(callers) {
		random := rand.New(rand.NewPCG(seed, 100+caller))
		l.callers.Go(func() {
			pause := time.NewTimer(0)
			defer pause.Stop()
			for {
				select {
				case <-l.ended:
					return
				case <-pause.C:
				}
				l.results.note(l.call(l.routes[random.IntN(len(l.routes))], random))
				pause.Reset(time.Duration(random.Int64N(int64(maxPause))))
			}
		})
	}
	return l
}

// end ends the load, and reports whether all callers have returned in time.
func (l *load) end() bool {
	l.ending.Do(func() { close(l.ended) })
	returned := make(chan struct{})
	go func() {
		l.callers.Wait()
		close(returned)
	}()
	deadline := time.NewTimer(maxTimeout + mostLate + 30*time.Second)
	defer deadline.Stop()
	select {
	case <-returned:
		return true
	case <-deadline.C:
		return false
	}
}

// call makes one call.
func (l *load) call(by route, random *rand.Rand) outcome {
	made := outcome{route: by.name, sort: idempotent, timeout: minTimeout + time.Duration(random.Int64N(int64(maxTimeout-minTimeout)))}
	switch random.IntN(20) {
	case 0:
		made.sort = streamed
	case 1, 2, 3, 4, 5, 6, 7:
		made.sort = unrepeatable
	}
	patience := made.timeout
	if random.IntN(givesUp) == 0 {
		patience = time.Duration(random.Int64N(int64(maxPatience)))
	}
	made.id = fmt.Sprintf("call %d, %s by %s", l.made.Add(1), made.sort, by.name)
	l.ledger.begin(made.id, made.sort != idempotent)

	made.began = time.Now()
	ctx, cancel := context.WithDeadline(context.Background(), made.began.Add(made.timeout))
	defer cancel()
	if patience < made.timeout {
		defer time.AfterFunc(patience, cancel).Stop()
	}
	made.err = invoke(identified(ctx, made.id), by.transport, made.sort, made.id)

	ended := time.Now()
	made.took = ended.Sub(made.began)
	made.gaveUp = patience < made.timeout && made.err != nil && made.took >= patience
	if late := made.took - patience; late > tolerance {
		made.late = late - min(late, stalls.Between(made.began.Add(patience), ended))
		if late > mostLate {
			made.late = late
		}
	}
	if made.err != nil {
		made.halted = stalls.Halted(made.began, ended)
	}
	l.ledger.end(made.id, made.err == nil)
	return made
}

// identified gives a call the ID by which instances tell of it.
func identified(ctx context.Context, id string) context.Context {
	ctx, info := connectrpc.NewClientContext(ctx)
	info.RequestHeader().Set(servicestest.CallIDHeader, id)
	return ctx
}

// invoke makes a call, and fails if it got another's answer, or not all of its own.
func invoke(ctx context.Context, transport *rpc.Transport, of sort, id string) error {
	rpcClient := connectrpc.NewClient(transport)
	client := authv1connect.NewAuthServiceClient(rpcClient)
	answer := ""
	switch of {
	case idempotent:
		response, err := client.ValidateToken(ctx, &authv1.ValidateTokenRequest{Token: id})
		if err != nil {
			return err
		}
		answer = response.GetClaims().GetUserId()
	case unrepeatable:
		response, err := client.Login(ctx, &authv1.LoginRequest{Email: id})
		if err != nil {
			return err
		}
		answer = response.GetTokens().GetAccessToken()
	case streamed:
		return invokeStream(ctx, rpcClient, id)
	}
	return expectAnswer(answer, id)
}

// errWrong is matched by the errors of calls whose answer is not theirs.
var errWrong = errors.New("wrong answer")

func expectAnswer(got, want string) error {
	if got != want {
		return fmt.Errorf("%w: %q to %q", errWrong, got, want)
	}
	return nil
}

func invokeStream(ctx context.Context, client *connectrpc.Client, id string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // which ends the stream if it has not
	stream, err := client.CallServerStream(ctx, specCount, wrapperspb.String(id))
	if err != nil {
		return err
	}
	for count := 0; ; count++ {
		var message wrapperspb.StringValue
		switch err := stream.Receive(&message); {
		case errors.Is(err, io.EOF) && count != countTo:
			return fmt.Errorf("%w: the stream ends after %d messages of %d", errWrong, count, countTo)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := expectAnswer(message.GetValue(), id); err != nil {
			return err
		}
	}
}
