package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
)

// The names of the peers that others are compared with, or that are compared.
const (
	grpcGo      = "grpc-go"
	grpcGoRetry = "grpc-go rr+retry"
	connectGRPC = "connect-go grpc"
	connectJSON = "connect-go json"
	netHTTPJSON = "net/http json"
	gopltGRPC   = "goplt grpc"
	gopltJSON   = "goplt json"
)

// peer is one way to make the call, both ends of it.
type peer struct {
	name  string
	about string
	// serve starts the server on a free port of the loopback address.
	serve func() (*server, error)
	// dial makes a client of the server at addr that is good for so many concurrent callers.
	dial func(addr string, callers int) (*client, error)
}

type server struct {
	addr string
	stop func()
}

// client makes calls; call returns an error unless the answer was the right one, and may be called concurrently.
type client struct {
	call func(ctx context.Context) error
	stop func()
}

// peers returns all there are. The first is the one that the others' ratios refer to.
func peers() []peer {
	return []peer{
		{
			name: grpcGo, about: "grpc-go client and server, defaults",
			serve: serveGRPCGo, dial: dialGRPCGo,
		},
		{
			name: grpcGoRetry, about: "the same with round_robin and a retry policy in its service config",
			serve: serveGRPCGo, dial: dialGRPCGoRetry,
		},
		{
			name: connectGRPC, about: "connect-go v2 over net/http, gRPC over cleartext HTTP/2, no compression below 1 KiB",
			serve: serveConnect, dial: dialConnectGRPC,
		},
		{
			name: connectJSON, about: "connect-go v2 over net/http, Connect with JSON over HTTP/1.1, no compression below 1 KiB",
			serve: serveConnect, dial: dialConnectJSON,
		},
		{
			name: netHTTPJSON, about: "net/http and encoding/json over HTTP/1.1, written by hand",
			serve: serveNetHTTP, dial: dialNetHTTP,
		},
		{
			name: gopltGRPC, about: "goplt's whole stack: registry, balancer, retry and breaker on, domain types at both ends; gRPC",
			serve: serveGoplt, dial: dialGopltGRPC,
		},
		{
			name: gopltJSON, about: "the same over Connect with JSON over HTTP/1.1",
			serve: serveGoplt, dial: dialGopltJSON,
		},
	}
}

// What every peer sends and answers.
const (
	userID  = "0197f3c2-5d1e-7c9a-b6f4-2f9a4f0f7a11"
	email   = "grace.hopper@example.com"
	tokenID = "0197f3c2-6a40-7d02-9a6b-54a4a9be1c55"
)

var (
	token     = strings.Repeat("eyJhbGciOiJFZERTQSJ9.", 10)[:200]
	roles     = []string{"admin", "auditor", "billing:read"}
	issuedAt  = time.Date(2026, time.November, 23, 10, 0, 0, 0, time.UTC)
	expiresAt = issuedAt.Add(15 * time.Minute)
)

// answer is the response of the peers that speak protobuf, made anew for each call, as a real server would.
func answer() *authv1.ValidateTokenResponse {
	return &authv1.ValidateTokenResponse{Claims: &authv1.TokenClaims{
		UserId: userID, Email: email, Roles: roles, TokenId: tokenID,
		IssuedAt: timestamppb.New(issuedAt), ExpiresAt: timestamppb.New(expiresAt),
	}}
}

// checkAnswer returns an error unless the fields are those of the answer. It allocates nothing if they are.
func checkAnswer(gotUserID, gotEmail string, gotRoles int, gotExpiry int64) error {
	if gotUserID != userID || gotEmail != email || gotRoles != len(roles) || gotExpiry != expiresAt.Unix() {
		return fmt.Errorf("wrong answer: user %q, email %q, %d roles, expiry %d", gotUserID, gotEmail, gotRoles, gotExpiry)
	}
	return nil
}

func checkMessage(response *authv1.ValidateTokenResponse) error {
	claims := response.GetClaims()
	return checkAnswer(claims.GetUserId(), claims.GetEmail(), len(claims.GetRoles()), claims.GetExpiresAt().GetSeconds())
}
