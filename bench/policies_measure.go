package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	grpcclient "github.com/0x1d/goplt/internal/services/grpc/client"
	httpclient "github.com/0x1d/goplt/internal/services/http/client"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/services"
)

// memoryWire is one protocol over connections in memory.
type memoryWire struct {
	name     string
	protocol rpc.Protocol
	options  []connecthttp.Option
	http2    bool
	peer     func() memoryPeer
}

func memoryWires() ([]memoryWire, error) {
	message, err := proto.Marshal(answer())
	text, jsonErr := protojson.Marshal(answer())
	return []memoryWire{
		{"gRPC", rpc.ProtocolAuto, grpcclient.Options(), true, func() memoryPeer { return newGRPCPeer(message) }},
		{"JSON", rpc.ProtocolHTTP, httpclient.Options(), false, func() memoryPeer { return newHTTP1Peer("application/json", text) }},
	}, errors.Join(err, jsonErr)
}

func (w *memoryWire) dial(context.Context, string, string) (net.Conn, error) {
	return newMemoryConn(w.peer()), nil
}

// bare returns what goplt's wire consists of and nothing else: connecthttp with the options that goplt gives it, on one [http.ClientConn] of a
// transport made as its pool makes it.
func (w *memoryWire) bare(setting policySetting) (rpcCaller, error) {
	base := &http.Transport{
		Protocols: new(http.Protocols), DisableCompression: true, WriteBufferSize: 64 << 10, ReadBufferSize: 16 << 10, DialContext: w.dial,
	}
	base.Protocols.SetHTTP1(!w.http2)
	base.Protocols.SetUnencryptedHTTP2(w.http2)
	conn, err := base.NewClientConn(context.Background(), "http", memoryAddress)
	if err != nil {
		return rpcCaller{}, err
	}
	config := rpc.DefaultClientConfig()
	options := append([]connecthttp.Option{
		connecthttp.WithReadMaxBytes(config.MaxReceiveBytes), connecthttp.WithSendMaxBytes(config.MaxSendBytes),
		connecthttp.WithCompressMinBytes(config.CompressMinBytes),
	}, w.options...)
	return newRPCCaller(setting, connecthttp.NewTransport(connDoer{conn}, "http://"+memoryAddress, options...), conn.Close), nil
}

// connDoer sends requests on one connection.
type connDoer struct{ conn *http.ClientConn }

func (d connDoer) Do(request *http.Request) (*http.Response, error) { return d.conn.RoundTrip(request) }

// goplt returns the whole of goplt's transport.
func (w *memoryWire) goplt(setting policySetting) (rpcCaller, error) {
	found, err := registryWith(services.AuthService, memoryAddress)
	if err != nil {
		return rpcCaller{}, err
	}
	config := rpc.DefaultClientConfig()
	config.Protocol = w.protocol
	setting.configure(&config)
	transport, err := rpc.NewTransport("memory:///"+services.AuthService, found, rpc.WithClientConfig(config), rpc.WithDialer(w.dial))
	if err != nil {
		return rpcCaller{}, errors.Join(err, found.Close())
	}
	return newRPCCaller(setting, transport, func() error { return errors.Join(transport.Close(), found.Close()) }), nil
}

// rpcCaller makes calls by a generated client.
type rpcCaller struct {
	auth  authv1connect.AuthServiceClient
	close func() error
}

func newRPCCaller(setting policySetting, transport connect.Transport, stop func() error) rpcCaller {
	if setting.once {
		transport = undeclared{transport}
	}
	return rpcCaller{authv1connect.NewAuthServiceClient(connect.NewClient(transport)), stop}
}

// undeclared takes from methods what they declare of their idempotency.
type undeclared struct{ connect.Transport }

func (u undeclared) NewClientStream(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
	spec.IdempotencyLevel = connect.IdempotencyUnknown
	return u.Transport.NewClientStream(ctx, spec)
}

func (c *rpcCaller) call(ctx context.Context) error {
	response, err := c.auth.ValidateToken(ctx, &authv1.ValidateTokenRequest{Token: token})
	if err != nil {
		return err
	}
	return checkMessage(response)
}

// slice makes calls and returns for how long that kept a CPU busy.
func (c *rpcCaller) slice(calls int, deadline time.Duration) (time.Duration, error) {
	before := processTime()
	for range calls {
		if err := callOnce(c.call, deadline); err != nil {
			return 0, fmt.Errorf("%w: %w", errCallFailed, err)
		}
	}
	return processTime() - before, nil
}

// allocs returns the allocations and bytes per call: the least of some tries, as goroutines of the runtime allocate too.
func (c *rpcCaller) allocs(calls int, deadline time.Duration) (allocs, bytes float64, err error) {
	allocs, bytes = math.Inf(1), math.Inf(1)
	for range 5 {
		runtime.GC()
		before := currentUsage()
		if _, err := c.slice(calls, deadline); err != nil {
			return 0, 0, err
		}
		used := currentUsage().since(before)
		allocs, bytes = min(allocs, float64(used.Mallocs)/float64(calls)), min(bytes, float64(used.Bytes)/float64(calls))
	}
	return allocs, bytes, nil
}

// policyPair is a setting's caller and the one beside it on the bare wire. They make calls by turns, some hundred at a time.
type policyPair struct {
	setting policySetting
	wire    *memoryWire
	calls   int          // of a turn
	turns   [2]rpcCaller // on the bare wire, and with the policies
	least   [2]float64   // CPU ns per call in the least disturbed turn
}

// measurePolicies measures every setting over each protocol once per round. There is one processor for all goroutines, so that handing over between
// those of net/http wakes no other thread, which costs what it likes. Garbage is collected between turns, not during them: turns too short to meet
// the collector are the likelier to meet nothing else.
func measurePolicies(ctx context.Context, settings []policySetting, rounds, calls int, duration time.Duration) (costs []policyCost, err error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	wires, err := memoryWires()
	if err != nil {
		return nil, err
	}
	var pairs []*policyPair
	defer func() {
		for _, pair := range pairs {
			err = errors.Join(err, pair.turns[0].close(), pair.turns[1].close())
		}
	}()
	for _, setting := range settings {
		for at := range wires {
			pair, err := newPolicyPair(setting, &wires[at], calls)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", setting.name, wires[at].name, err)
			}
			pairs = append(pairs, pair)
		}
	}
	for range rounds {
		for _, pair := range pairs {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if err := pair.measure(duration); err != nil {
				return nil, fmt.Errorf("%s, %s: %w", pair.setting.name, pair.wire.name, err)
			}
		}
	}
	for _, pair := range pairs {
		cost, err := pair.cost()
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", pair.setting.name, pair.wire.name, err)
		}
		costs = append(costs, cost)
	}
	return costs, nil
}

func newPolicyPair(setting policySetting, wire *memoryWire, calls int) (*policyPair, error) {
	bare, err := wire.bare(setting)
	if err != nil {
		return nil, err
	}
	with, err := wire.goplt(setting)
	if err != nil {
		return nil, errors.Join(err, bare.close())
	}
	return &policyPair{setting: setting, wire: wire, calls: calls, turns: [2]rpcCaller{bare, with}, least: [2]float64{math.Inf(1), math.Inf(1)}}, nil
}

// deadlineAt is that of the calls of one turn.
func (p *policyPair) deadlineAt(turn int) time.Duration {
	if turn == 0 {
		return callersDeadline
	}
	return p.setting.deadline
}

// measure has both make calls by turns for about a duration, and keeps the least that a turn took: whatever else the machine does only adds to that.
func (p *policyPair) measure(duration time.Duration) error {
	for end := time.Now().Add(duration); ; {
		runtime.GC()
		for _, turn := range [...]int{0, 1, 1, 0} { // so that neither always comes first
			used, err := p.turns[turn].slice(p.calls, p.deadlineAt(turn))
			if err != nil {
				return err
			}
			p.least[turn] = min(p.least[turn], float64(used)/float64(p.calls))
		}
		if !time.Now().Before(end) {
			return nil
		}
	}
}

// cost says what the rounds say together.
func (p *policyPair) cost() (policyCost, error) {
	var allocs, bytes [2]float64
	for turn := range p.turns {
		var err error
		if allocs[turn], bytes[turn], err = p.turns[turn].allocs(p.calls, p.deadlineAt(turn)); err != nil {
			return policyCost{}, err
		}
	}
	cost := policyCost{
		Setting: p.setting.name, Protocol: p.wire.name, Aimed: p.setting.aimed, BareNanos: p.least[0], BareAllocs: allocs[0],
		Nanos: p.least[1] - p.least[0], Allocs: allocs[1] - allocs[0], Bytes: bytes[1] - bytes[0],
	}
	// A hundredth of an allocation more is net/http's, whose goroutines may come late and allocate in the turn after their own.
	cost.Met = cost.Aimed && cost.Nanos <= mostPolicyNanos && math.Round(cost.Allocs) <= mostPolicyAllocs
	return cost, nil
}
