package script_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/0x1d/goplt/internal/consultest/script"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ask returns the status, the index and the body of an answer.
func ask(ctx context.Context, agent *script.Agent, query string) (code int, index, body string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+agent.Address+"/v1/health/service/auth?"+query, http.NoBody)
	if err != nil {
		return 0, "", "", err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", "", err
	}
	defer response.Body.Close()
	read, err := io.ReadAll(response.Body)
	return response.StatusCode, response.Header.Get("X-Consul-Index"), string(read), err
}

func expect(t *testing.T, agent *script.Agent, query string, wantCode int, wantIndex, wantText string) {
	t.Helper()
	code, index, body, err := ask(t.Context(), agent, query)
	if err != nil || code != wantCode || index != wantIndex || !strings.Contains(body, wantText) {
		t.Errorf("%q: %d, index %q, %.80q, %v; want %d, %q and %q", query, code, index, body, err, wantCode, wantIndex, wantText)
	}
}

func TestQueries(t *testing.T) {
	agent := script.Start(t, script.Instance("one", "10.0.0.1", 80))
	expect(t, agent, "", 200, "10", `"one"`)
	expect(t, agent, "index=9&wait=1m", 200, "10", `"one"`)
	expect(t, agent, "index=10&wait=10ms", 200, "10", `"one"`) // when the wait is over

	done := make(chan struct{})
	go func() {
		defer close(done)
		expect(t, agent, "index=10&wait=1m", 200, "4", `"two"`)
	}()
	awaitWaiting(t, agent, 1)
	agent.Rewind(4, script.Instance("two", "10.0.0.2", 80))
	<-done

	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		awaitWaiting(t, agent, 1)
		cancel()
	}()
	if _, _, _, err := ask(ctx, agent, "index=4&wait=1m"); err == nil {
		t.Error("a query at the current index was answered before anything changed")
	}
	awaitWaiting(t, agent, 0)
	if got := len(agent.Asked()); got != 5 || agent.Requests() != 5 {
		t.Errorf("%d queries and %d requests noted, want 5", got, agent.Requests())
	}
}

func TestAnswers(t *testing.T) {
	agent := script.Start(t, script.Instance("one", "10.0.0.1", 80))
	agent.AnswerNext(1, script.Status(503))
	expect(t, agent, "", 503, "", "Unavailable")
	expect(t, agent, "", 200, "10", "one")
	agent.AnswerAll(script.Body("null", script.Filtered))
	expect(t, agent, "", 200, "1000", "null")
	agent.AnswerAll(script.Truncated())
	if _, _, body, err := ask(t.Context(), agent, ""); err == nil {
		t.Errorf("a truncated answer came whole: %q", body)
	}
	var sent atomic.Int64
	agent.AnswerAll(script.Large(3<<20, &sent))
	expect(t, agent, "", 200, "1000", "[ ")
	if got := sent.Load(); got != 3<<20+2 {
		t.Errorf("%d bytes were sent", got)
	}
	agent.AnswerAll(nil)
	agent.SayIndex(func(uint64) string { return "" })
	expect(t, agent, "", 200, "", "one")
}

// awaitWaiting asks until so many queries wait.
func awaitWaiting(t *testing.T, agent *script.Agent, wanted int) {
	t.Helper()
	for agent.Waiting() != wanted {
		if t.Context().Err() != nil {
			t.Error("waited in vain")
			return
		}
	}
}
