package consultest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// ManagementToken is the token of an agent with access control that may do everything.
const ManagementToken = "11111111-2222-3333-4444-555555555555"

// startTimeout is how long an agent may take to have a leader; machines that run tests are busy.
const startTimeout = 90 * time.Second

// Address returns the address of an agent that other tests may use too: the one at CONSUL_HTTP_ADDR, else one of the test's own.
func Address(t testing.TB) string {
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

	t       testing.TB
	args    []string
	token   string
	created int       // tokens
	process *exec.Cmd // nil while it does not run
	log     *os.File
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

// Start starts an agent, waits until it answers, and ends it when the test ends.
func Start(t testing.TB, options ...Option) *Agent {
	t.Helper()
	ports := freePorts(t, 3)
	agent := &Agent{
		t: t, Address: net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0])),
		args: []string{
			"agent", "-dev", "-bind", "127.0.0.1", "-client", "127.0.0.1", "-node", "node-" + strconv.Itoa(ports[0]), "-log-level", "warn",
			"-http-port", strconv.Itoa(ports[0]), "-serf-lan-port", strconv.Itoa(ports[1]), "-server-port", strconv.Itoa(ports[2]),
			"-serf-wan-port", "-1", "-dns-port", "-1", "-grpc-port", "-1", "-grpc-tls-port", "-1", "-https-port", "-1",
			"-hcl", "disable_update_check = true",
			"-hcl", "disable_remote_exec = true",
		},
	}
	for _, option := range options {
		option.apply(agent)
	}
	t.Cleanup(agent.Kill)
	agent.start()
	return agent
}

// Restart starts the agent again, empty, after Kill or Stop, at the same address.
func (a *Agent) Restart() {
	a.t.Helper()
	if a.process != nil {
		a.t.Fatal("restart of an agent that runs")
	}
	a.start()
}

func (a *Agent) start() {
	a.t.Helper()
	var err error
	if a.log, err = os.Create(filepath.Join(a.t.TempDir(), "consul.log")); err != nil {
		a.t.Fatalf("start consul: %v", err)
	}
	a.process = exec.Command(mustCommand(a.t), a.args...) //nolint:noctx // its end is Stop or Kill, called when the test means to
	a.process.Stdout, a.process.Stderr = a.log, a.log
	endWithParent(a.process)
	if err := a.process.Start(); err != nil {
		a.process = nil
		a.t.Fatalf("start consul: %v", err)
	}
	a.awaitLeader()
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
	if err := a.log.Close(); err != nil {
		a.t.Errorf("close the log of consul: %v", err)
	}
}

// awaitLeader waits until the agent has elected itself, before which it refuses most requests.
func (a *Agent) awaitLeader() {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), startTimeout)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		// The catalog knows its own server only after the leader has done its first work, and with access control has made the management token.
		body, err := a.request(ctx, http.MethodGet, "/v1/health/service/consul?passing", "")
		if err == nil && strings.Contains(body, `"ServiceID"`) {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			log, readErr := os.ReadFile(a.log.Name())
			a.t.Fatalf("consul has no leader within %v: %v, %v\n%s", startTimeout, err, readErr, log)
		}
	}
}

// CreateToken returns a new token with a policy of its own, in Consul's rule language. The agent must be [WithACL].
func (a *Agent) CreateToken(rules string) string {
	a.t.Helper()
	a.created++
	name := fmt.Sprintf("test-%d", a.created)
	a.mustPut("/v1/acl/policy", map[string]any{"Name": name, "Rules": rules})
	var token struct {
		SecretID string `json:"SecretID"`
	}
	answer := a.mustPut("/v1/acl/token", map[string]any{"Policies": []map[string]string{{"Name": name}}})
	if err := json.Unmarshal([]byte(answer), &token); err != nil || token.SecretID == "" {
		a.t.Fatalf("create a token: %v in %s", err, answer)
	}
	return token.SecretID
}

// DeleteToken makes the agent refuse a token that [Agent.CreateToken] made.
func (a *Agent) DeleteToken(secret string) {
	a.t.Helper()
	answer, err := a.requestAs(a.t.Context(), secret, http.MethodGet, "/v1/acl/token/self", "")
	var token struct {
		AccessorID string `json:"AccessorID"`
	}
	if err == nil {
		err = json.Unmarshal([]byte(answer), &token)
	}
	if err == nil {
		_, err = a.request(a.t.Context(), http.MethodDelete, "/v1/acl/token/"+token.AccessorID, "")
	}
	if err != nil {
		a.t.Fatalf("delete a token: %v", err)
	}
}

// Put sends a request of the HTTP API for which the product has no use, such as for maintenance. The path may have a query.
func (a *Agent) Put(path string) {
	a.t.Helper()
	if _, err := a.request(a.t.Context(), http.MethodPut, path, ""); err != nil {
		a.t.Fatal(err)
	}
}

func (a *Agent) mustPut(path string, body any) string {
	a.t.Helper()
	encoded, err := json.Marshal(body)
	if err != nil {
		a.t.Fatal(err)
	}
	answer, err := a.request(a.t.Context(), http.MethodPut, path, string(encoded))
	if err != nil {
		a.t.Fatal(err)
	}
	return answer
}

func (a *Agent) request(ctx context.Context, method, path, body string) (string, error) {
	return a.requestAs(ctx, a.token, method, path, body)
}

func (a *Agent) requestAs(ctx context.Context, token, method, path, body string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+a.Address+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	if token != "" {
		request.Header.Set("X-Consul-Token", token)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // leaves no connection that a leak check would find
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	answer, err := io.ReadAll(response.Body)
	if failed := errors.Join(err, response.Body.Close()); failed != nil {
		return "", failed
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s %s: %s: %s", method, path, response.Status, answer)
	}
	return string(answer), nil
}

func freePorts(t testing.TB, count int) []int {
	t.Helper()
	var config net.ListenConfig
	var held []io.Closer // until the end, so that no port is found twice
	defer func() {
		for _, listener := range held {
			_ = listener.Close()
		}
	}()
	ports := make([]int, 0, count)
	for len(ports) < count {
		listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatalf("find a free port: %v", err)
		}
		held = append(held, listener)
		packets, err := config.ListenPacket(t.Context(), "udp", listener.Addr().String()) // gossip needs both
		if err != nil {
			continue
		}
		held = append(held, packets)
		ports = append(ports, int(netip.MustParseAddrPort(listener.Addr().String()).Port()))
	}
	return ports
}
