package services

import (
	"context"
	"fmt"
	"iter"
	"time"
)

// AuditServiceClient keeps a log to which entries are only added. Safe for concurrent use.
type AuditServiceClient interface {
	// Record adds an action to the log. Recording an ID that is there already changes nothing and succeeds, which makes Record
	// idempotent; a client gives an action without an ID a random one, so that machinery may send it again. An action without a name
	// is [ErrInvalidArgument].
	Record(ctx context.Context, action Action) error

	// Query returns one page of the entries that match filters, oldest first. Pass the last entry's [AuditLog.PageToken] in
	// filters.PageToken for the next page; where it is empty, the page is the last. Entries recorded meanwhile neither repeat nor hide
	// an earlier one. A negative page size, and a page token that is malformed or was given for other filters, are
	// [ErrInvalidArgument]. [AllAuditLogs] walks all pages.
	Query(ctx context.Context, filters AuditFilters) ([]AuditLog, error)
}

// Action is something that happened, as its observer tells it.
type Action struct {
	// ID is unique and chosen by the caller; a client fills in a random one if it is empty.
	ID string
	// UserID is the user who acted.
	UserID string
	// Action is what was done, such as "invoice.approve". Required.
	Action string
	// Resource is what it was done to, such as "invoice/42".
	Resource string
	// Metadata holds further facts. No secrets: it is kept and shown as it is.
	Metadata map[string]string
	// OccurredAt is when it happened; the service's clock is used if it is zero.
	OccurredAt time.Time
}

// AuditLog is an entry of the log.
type AuditLog struct {
	Action

	// RecordedAt is when the service took the entry.
	RecordedAt time.Time
	// PageToken is where the page after this entry begins; opaque. Empty on every entry but the last of a page that has a successor.
	PageToken string
}

// AuditFilters selects entries of the log. The zero value selects all.
type AuditFilters struct {
	// UserID selects entries by this user.
	UserID string
	// Action selects entries of this action.
	Action string
	// Resource selects entries about this resource.
	Resource string
	// Since selects entries that happened at or after it.
	Since time.Time
	// Until selects entries that happened before it.
	Until time.Time
	// PageSize is how many entries a page holds at most: 100 if 0, at most 1,000.
	PageSize int
	// PageToken is where to go on: empty for the first page, else the PageToken of the last entry of the page before.
	PageToken string
}

// AllAuditLogs returns an iterator over all entries that match filters, oldest first, from filters.PageToken on. It asks for the next
// page when the one before is used up. An error is yielded once, with a zero entry, and ends the walk; a service that gives the same
// page token twice in a row is [ErrInternal], since following it would never end. Each walk of the iterator begins anew.
func AllAuditLogs(ctx context.Context, client AuditServiceClient, filters AuditFilters) iter.Seq2[AuditLog, error] {
	return func(yield func(AuditLog, error) bool) {
		filters := filters // Its own for each walk.
		for {
			page, err := client.Query(ctx, filters)
			if err != nil {
				yield(AuditLog{}, err)
				return
			}
			for _, entry := range page {
				if !yield(entry, nil) {
					return
				}
			}
			if len(page) == 0 || page[len(page)-1].PageToken == "" {
				return
			}
			next := page[len(page)-1].PageToken
			if next == filters.PageToken {
				yield(AuditLog{}, fmt.Errorf("query audit log: the page after token %q is that page again: %w", next, ErrInternal))
				return
			}
			filters.PageToken = next
		}
	}
}
