package servicestest

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"maps"
	"sync"
	"time"

	"github.com/0x1d/goplt/pkg/services"
)

const (
	defaultPageSize = 100
	maxPageSize     = 1000
)

// auditService is the audit service of a platform.
type auditService struct{ p *Platform }

var _ services.AuditServiceClient = auditService{}

// auditLog keeps the entries in the order in which they were recorded. An entry never changes once it is in, and entries are only
// added behind the last, so that whoever took the slice under the lock may read it without.
type auditLog struct {
	mu      sync.RWMutex
	entries []services.AuditLog
	byID    map[string]struct{}
}

// Record implements [services.AuditServiceClient].
func (s auditService) Record(ctx context.Context, action services.Action) error {
	if err := alive(ctx); err != nil {
		return err
	}
	if action.Action == "" {
		return services.Errorf(services.ErrInvalidArgument, "action is required")
	}
	if action.ID == "" {
		action.ID = newID("act_")
	}
	log := &s.p.log
	log.mu.Lock()
	defer log.mu.Unlock()
	if _, known := log.byID[action.ID]; known {
		return nil
	}
	now := s.p.now()
	if action.OccurredAt.IsZero() {
		action.OccurredAt = now
	}
	action.OccurredAt = action.OccurredAt.UTC().Round(0)
	action.Metadata = maps.Clone(action.Metadata)
	log.byID[action.ID] = struct{}{}
	log.entries = append(log.entries, services.AuditLog{Action: action, RecordedAt: now})
	return nil
}

// Query implements [services.AuditServiceClient].
func (s auditService) Query(ctx context.Context, filters services.AuditFilters) ([]services.AuditLog, error) {
	if err := alive(ctx); err != nil {
		return nil, err
	}
	size := min(filters.PageSize, maxPageSize)
	switch {
	case size < 0:
		return nil, services.Errorf(services.ErrInvalidArgument, "page size %d is negative", filters.PageSize)
	case size == 0:
		size = defaultPageSize
	}
	s.p.log.mu.RLock()
	entries := s.p.log.entries
	s.p.log.mu.RUnlock()

	begin, err := s.p.parsePageToken(filters, uint64(len(entries)))
	if err != nil {
		return nil, err
	}
	var page []services.AuditLog
	for i := begin; i < uint64(len(entries)); i++ {
		if !selects(filters, entries[i].Action) {
			continue
		}
		if len(page) == size {
			// There is a successor, and it begins here.
			page[size-1].PageToken = s.p.pageToken(filters, i)
			break
		}
		found := entries[i]
		found.Metadata = maps.Clone(found.Metadata)
		page = append(page, found)
	}
	return page, nil
}

func selects(filters services.AuditFilters, action services.Action) bool {
	return (filters.UserID == "" || filters.UserID == action.UserID) &&
		(filters.Action == "" || filters.Action == action.Action) &&
		(filters.Resource == "" || filters.Resource == action.Resource) &&
		(filters.Since.IsZero() || !action.OccurredAt.Before(filters.Since)) &&
		(filters.Until.IsZero() || action.OccurredAt.Before(filters.Until))
}

// A page token is the position of the page's first entry, followed by a MAC over it and the filters, so that a token that is cut,
// made up or taken to another query is refused instead of answered with some page.
const (
	pagePositionBytes = 8
	pageMACBytes      = 16
)

func (p *Platform) pageToken(filters services.AuditFilters, position uint64) string {
	token := binary.BigEndian.AppendUint64(nil, position)
	return base64.RawURLEncoding.EncodeToString(append(token, p.pageMAC(filters, token)...))
}

// parsePageToken returns where the page begins that filters ask for in a log of so many entries.
func (p *Platform) parsePageToken(filters services.AuditFilters, entries uint64) (uint64, error) {
	if filters.PageToken == "" {
		return 0, nil
	}
	token, err := base64.RawURLEncoding.Strict().DecodeString(filters.PageToken)
	if err != nil || len(token) != pagePositionBytes+pageMACBytes {
		return 0, services.Errorf(services.ErrInvalidArgument, "page token is malformed")
	}
	if !hmac.Equal(token[pagePositionBytes:], p.pageMAC(filters, token[:pagePositionBytes])) {
		return 0, services.Errorf(services.ErrInvalidArgument, "page token was not given for these filters")
	}
	position := binary.BigEndian.Uint64(token)
	if position > entries {
		// It is ours, by the same secret, but of a log that held more.
		return 0, services.Errorf(services.ErrInvalidArgument, "page token is of another log")
	}
	return position, nil
}

func (p *Platform) pageMAC(filters services.AuditFilters, position []byte) []byte {
	mac := hmac.New(sha256.New, p.pageKey)
	mac.Write(position)
	for _, field := range []string{filters.UserID, filters.Action, filters.Resource, timeKey(filters.Since), timeKey(filters.Until)} {
		// With its length, so that no two sets of filters read the same.
		mac.Write(binary.BigEndian.AppendUint64(nil, uint64(len(field))))
		mac.Write([]byte(field))
	}
	return mac.Sum(nil)[:pageMACBytes]
}

func timeKey(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
