package consultest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/0x1d/goplt/internal/testprocess"
)

// ManagementToken is the token of an agent with access control that may do everything.
const ManagementToken = "11111111-2222-3333-4444-555555555555"

// startTimeout is how long an agent may take to have a leader; machines that run tests are busy.
const startTimeout = 90 * time.Second

// Address returns the address of an agent that other tests may use too: the one at CONSUL_HTTP_ADDR, else one of the test's own.
func Address(t T) string {
	t.Helper()
	if address := os.Getenv("CONSUL_HTTP_ADDR"); address != "" {
		return address
	}
	return Start(t).Address
}

// Agent is a Consul agent of the test's own, a server in development mode. It forgets everything when it stops. It belongs to one goroutine.
type Agent struct {
	// Address is the host:port of its HTTP API.
	Address string

	t       T
	args    []string
	node    string // its name
	gossip  string // host:port where members of its cluster reach it
	server  string // host:port where servers reach it, if it is one
	token   string
	created int       // tokens
	process *exec.Cmd // nil while it does not run
	log     string    // the file, of all its lives
}

// Option changes the agent that [Start] starts.
type Option interface{ apply(*Agent) }

type optionFunc func(*Agent)

func (f optionFunc) apply(a *Agent) { f(a) }

// WithACL makes the agent deny what no token allows; see [ManagementToken] and [Agent.CreateToken].
func WithACL() Option {
	return optionFunc(func(a *Agent) {
		a.token = ManagementToken
		a.args = append(a.args, "-hcl", fmt.Sprintf(
			`acl { enabled = true, default_policy = "deny", tokens { initial_management = %q, agent = %q } }`, ManagementToken, ManagementToken))
	})
}

// WithoutConnectionLimit makes the agent accept any number of connections of one address, instead of 200.
func WithoutConnectionLimit() Option {
	return optionFunc(func(a *Agent) { a.args = append(a.args, "-hcl", "limits { http_max_conns_per_client = -1 }") })
}

// Start starts an agent, waits until it answers, and ends it when the test ends.
func Start(t T, options ...Option) *Agent {
	t.Helper()
	agent := newAgent(t, "127.0.0.1", "-dev", "-serf-wan-port", "-1")
	for _, option := range options {
		option.apply(agent)
	}
	agent.start()
	return agent
}

// newAgent returns an agent that does not run yet, on free ports of an address of this machine.
func newAgent(t T, host string, args ...string) *Agent {
	t.Helper()
	ports := freePorts(t, host, 3)
	agent := &Agent{
		t: t, Address: net.JoinHostPort(host, strconv.Itoa(ports[0])), gossip: net.JoinHostPort(host, strconv.Itoa(ports[1])),
		server: net.JoinHostPort(host, strconv.Itoa(ports[2])), node: "node-" + strconv.Itoa(ports[0]),
		log: filepath.Join(t.TempDir(), "consul.log"),
	}
	agent.args = append([]string{
		"agent", "-bind", host, "-client", host, "-node", agent.node, "-log-level", "warn",
		"-http-port", strconv.Itoa(ports[0]), "-serf-lan-port", strconv.Itoa(ports[1]), "-server-port", strconv.Itoa(ports[2]),
		"-dns-port", "-1", "-grpc-port", "-1", "-grpc-tls-port", "-1", "-https-port", "-1",
		"-hcl", "disable_update_check = true",
		"-hcl", "disable_remote_exec = true",
	}, args...)
	t.Cleanup(func() {
		agent.Kill()
		if t.Failed() {
			t.Logf("the log of the consul agent at %s ends with:\n%s", agent.Address, agent.logTail())
		}
	})
	return agent
}

// Restart starts the agent again after Kill or Stop, at the same address: empty, unless it belongs to a [Cluster].
func (a *Agent) Restart() {
	a.t.Helper()
	a.start()
}

func (a *Agent) start() {
	a.t.Helper()
	a.run()
	a.awaitLeader()
}

// run starts the process.
func (a *Agent) run() {
	a.t.Helper()
	if a.process != nil {
		a.t.Fatal("start of a consul agent that runs")
	}
	log, err := os.OpenFile(a.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		a.t.Fatalf("start consul: %v", err)
	}
	defer log.Close()                                    // the process has its own
	process := exec.Command(mustCommand(a.t), a.args...) //nolint:noctx // its end is Stop or Kill, called when the test means to
	process.Stdout, process.Stderr = log, log
	testprocess.EndWithParent(process)
	if err := process.Start(); err != nil {
		a.t.Fatalf("start consul: %v", err)
	}
	a.process = process
}

// PID returns the number of the agent's process; 0 while it does not run.
func (a *Agent) PID() int {
	if a.process == nil {
		return 0
	}
	return a.process.Process.Pid
}

// Kill ends the agent at once, without giving it a chance to say so. It does nothing to one that does not run.
func (a *Agent) Kill() { a.end(os.Kill) }

// Stop ends the agent in order: it leaves its cluster, and closes its connections.
func (a *Agent) Stop() { a.end(os.Interrupt) }

func (a *Agent) end(signal os.Signal) {
	a.t.Helper()
	if a.process == nil {
		return
	}
	if err := a.process.Process.Signal(signal); err != nil {
		a.t.Errorf("signal consul: %v", err)
	}
	_ = a.process.Wait() // the status of a process that was told to end says nothing
	a.process = nil
}

// awaitLeader waits until the agent has elected itself, before which it refuses most requests.
func (a *Agent) awaitLeader() {
	a.t.Helper()
	// The catalog knows its own server only after the leader has done its first work, and with access control has made the management token.
	a.await("to have a leader", func(ctx context.Context) (bool, error) {
		body, err := a.request(ctx, http.MethodGet, "/v1/health/service/consul?passing", "")
		return strings.Contains(body, `"ServiceID"`), err
	})
}

// await asks the agent again and again until done reports true.
func (a *Agent) await(what string, done func(ctx context.Context) (bool, error)) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), startTimeout)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		ok, err := done(ctx)
		if ok && err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			a.t.Fatalf("consul at %s takes longer than %v %s: %v", a.Address, startTimeout, what, err)
		}
	}
}

// logTail returns the last of what the agent logged.
func (a *Agent) logTail() string {
	const most = 4 << 10
	log, err := os.ReadFile(a.log)
	if err != nil {
		return err.Error()
	}
	if _, after, ok := strings.Cut(string(log), "Log data will now stream in as it occurs:\n"); ok {
		log = []byte(strings.TrimSpace(after))
	}
	return string(log[max(0, len(log)-most):])
}
