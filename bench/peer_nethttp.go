package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// validateRequest and validateResponse are what someone would write by hand in place of the contract.
type validateRequest struct {
	Token string `json:"token"`
}

type validateResponse struct {
	UserID    string    `json:"user_id"`
	Email     string    `json:"email"`
	Roles     []string  `json:"roles"`
	TokenID   string    `json:"token_id"`
	IssuedAt  time.Time `json:"issued_at"`
	ExpiresAt time.Time `json:"expires_at"`
}

const (
	validatePath = "/v1/validate-token"
	maxBodyBytes = 4 << 20
)

func serveNetHTTP() (*server, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+validatePath, func(w http.ResponseWriter, r *http.Request) {
		var request validateRequest
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBodyBytes)).Decode(&request); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if request.Token != token {
			http.Error(w, "wrong token", http.StatusUnauthorized)
			return
		}
		body, err := json.Marshal(validateResponse{
			UserID: userID, Email: email, Roles: roles, TokenID: tokenID, IssuedAt: issuedAt, ExpiresAt: expiresAt,
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	})
	return serveHTTP(mux)
}

func dialNetHTTP(addr string, callers int) (*client, error) {
	transport := http1Transport(callers)
	httpClient := &http.Client{Transport: transport}
	url := "http://" + addr + validatePath
	call := func(ctx context.Context) error {
		response, err := postJSON(ctx, httpClient, url, validateRequest{Token: token})
		if err != nil {
			return err
		}
		return checkAnswer(response.UserID, response.Email, len(response.Roles), response.ExpiresAt.Unix())
	}
	return &client{call: call, stop: transport.CloseIdleConnections}, nil
}

func postJSON(ctx context.Context, httpClient *http.Client, url string, message validateRequest) (*validateResponse, error) {
	body, err := json.Marshal(message)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := httpClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	received, err := io.ReadAll(io.LimitReader(response.Body, maxBodyBytes))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", response.Status, received)
	}
	answer := new(validateResponse)
	if err := json.Unmarshal(received, answer); err != nil {
		return nil, err
	}
	return answer, nil
}
