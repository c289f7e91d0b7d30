package consultest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// CreateToken returns a new token with a policy of its own, in Consul's rule language. The agent must be [WithACL].
func (a *Agent) CreateToken(rules string) string {
	a.t.Helper()
	a.created++
	name := fmt.Sprintf("test-%d", a.created)
	a.PutJSON("/v1/acl/policy", map[string]any{"Name": name, "Rules": rules})
	var token struct {
		SecretID string `json:"SecretID"`
	}
	answer := a.PutJSON("/v1/acl/token", map[string]any{"Policies": []map[string]string{{"Name": name}}})
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

// Get returns what the agent answers to a request of the HTTP API. The path may have a query.
func (a *Agent) Get(path string) string {
	a.t.Helper()
	answer, err := a.request(a.t.Context(), http.MethodGet, path, "")
	if err != nil {
		a.t.Fatal(err)
	}
	return answer
}

// PutJSON is [Agent.Put] with a body, and returns the answer's.
func (a *Agent) PutJSON(path string, body any) string {
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
