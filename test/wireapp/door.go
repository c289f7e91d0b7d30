// Package wireapp is an application as goplt's users write them: a module of its own, whose Wire graph takes clients from goplt's provider sets
// among types of its own. It shows, and its tests check, that the sets are of use outside of goplt.
package wireapp

import (
	"context"
	"fmt"

	"github.com/0x1d/goplt/pkg/services"
)

// Door lets the holders of valid tokens in and keeps a record of them.
type Door struct {
	auth  services.AuthServiceClient
	audit services.AuditServiceClient
}

// NewDoor returns a door that asks auth and tells audit.
func NewDoor(auth services.AuthServiceClient, audit services.AuditServiceClient) *Door {
	return &Door{auth: auth, audit: audit}
}

// Enter checks a token, records its holder's entry, and returns the holder's email address.
func (d *Door) Enter(ctx context.Context, token string) (email string, err error) {
	claims, err := d.auth.ValidateToken(ctx, token)
	if err != nil {
		return "", fmt.Errorf("the door stays shut: %w", err)
	}
	if err := d.audit.Record(ctx, services.Action{UserID: claims.UserID, Action: "door.enter"}); err != nil {
		return "", fmt.Errorf("the door stays shut, for it can keep no record: %w", err)
	}
	return claims.Email, nil
}
