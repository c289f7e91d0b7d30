//go:build integration

package consultest_test

import (
	"io"
	"net/http"
	"testing"

	"go.uber.org/goleak"

	"github.com/0x1d/goplt/internal/consultest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func status(t *testing.T, address string) (int, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/v1/catalog/services", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Body.Close()
}

func TestAgentsRunSideBySideAndRestart(t *testing.T) {
	t.Parallel()
	one, two := consultest.Start(t), consultest.Start(t)
	one.Kill()
	if _, err := status(t, one.Address); err == nil {
		t.Error("a killed agent answers")
	}
	if code, err := status(t, two.Address); code != http.StatusOK {
		t.Errorf("the other agent: %d, %v", code, err)
	}
	one.Restart()
	if code, err := status(t, one.Address); code != http.StatusOK {
		t.Errorf("the restarted agent: %d, %v", code, err)
	}
	one.Stop()
	if _, err := status(t, one.Address); err == nil {
		t.Error("a stopped agent answers")
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.WithACL())
	token := agent.CreateToken(`service_prefix "" { policy = "read" }`)
	agent.DeleteToken(token)
	if again := agent.CreateToken(`node_prefix "" { policy = "read" }`); again == token {
		t.Error("two tokens are the same")
	}
}
