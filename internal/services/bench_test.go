package services

import (
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectinprocess"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	"github.com/0x1d/goplt/pkg/services"
)

// BenchmarkValidateToken measures what the adapters of both sides add to the generated code, without a network. The allocations that remain
// are the domain's own values: the claims, once as such on each side.
func BenchmarkValidateToken(b *testing.B) {
	issued := time.Unix(1_700_000_000, 0)
	claims := &services.TokenClaims{
		UserID: "0190b8a0", Email: "a@example.com", Roles: []string{"admin", "reader"}, TokenID: "17", IssuedAt: issued, ExpiresAt: issued.Add(time.Hour),
	}
	client := connect.NewClient(connectinprocess.New(newServer(&stub{result: claims}, &journal{})))
	b.Run("adapter", func(b *testing.B) {
		auth := NewAuthClient(client)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := auth.ValidateToken(b.Context(), "token"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("generated", func(b *testing.B) {
		auth := authv1connect.NewAuthServiceClient(client)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := auth.ValidateToken(b.Context(), &authv1.ValidateTokenRequest{Token: "token"}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
