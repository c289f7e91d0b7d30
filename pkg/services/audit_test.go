package services_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"

	"github.com/0x1d/goplt/pkg/services"
)

// pagedLog is an audit log of numbered entries, which counts the queries it answers.
type pagedLog struct {
	services.AuditServiceClient

	entries int
	queries int
	// failAt makes the query that would begin at this entry fail.
	failAt int
	// stuck makes every page name itself as its successor.
	stuck bool
}

var errLogBroken = errors.New("log is broken")

func (l *pagedLog) Query(_ context.Context, filters services.AuditFilters) ([]services.AuditLog, error) {
	l.queries++
	begin := 0
	if filters.PageToken != "" {
		begin, _ = strconv.Atoi(filters.PageToken)
	}
	if l.failAt > 0 && begin >= l.failAt {
		return nil, errLogBroken
	}
	end := min(begin+filters.PageSize, l.entries)
	var page []services.AuditLog
	for i := begin; i < end; i++ {
		page = append(page, services.AuditLog{Action: services.Action{ID: strconv.Itoa(i), Action: filters.Action}})
	}
	if len(page) > 0 && end < l.entries {
		page[len(page)-1].PageToken = strconv.Itoa(end)
	}
	if l.stuck {
		page[len(page)-1].PageToken = strconv.Itoa(max(begin, 1))
	}
	return page, nil
}

func TestAllAuditLogsWalksEveryPage(t *testing.T) {
	for _, test := range []struct{ entries, pageSize, wantQueries int }{
		{0, 3, 1}, {1, 3, 1}, {3, 3, 1}, {4, 3, 2}, {7, 3, 3}, {9, 3, 3},
	} {
		log := &pagedLog{entries: test.entries}
		var got []string
		for entry, err := range services.AllAuditLogs(t.Context(), log, services.AuditFilters{PageSize: test.pageSize, Action: "a"}) {
			if err != nil {
				t.Fatalf("%d entries: %v", test.entries, err)
			}
			if entry.Action.Action != "a" {
				t.Errorf("entry %s: the filter was lost", entry.ID)
			}
			got = append(got, entry.ID)
		}
		var want []string
		for i := range test.entries {
			want = append(want, strconv.Itoa(i))
		}
		if !slices.Equal(got, want) || log.queries != test.wantQueries {
			t.Errorf("%d entries: got %v in %d queries, want %v in %d", test.entries, got, log.queries, want, test.wantQueries)
		}
	}
}

func TestAllAuditLogsBeginsAnewOnEachWalk(t *testing.T) {
	all := services.AllAuditLogs(t.Context(), &pagedLog{entries: 5}, services.AuditFilters{PageSize: 2})
	for walk := range 2 {
		var got []string
		for entry, err := range all {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, entry.ID)
		}
		if want := []string{"0", "1", "2", "3", "4"}; !slices.Equal(got, want) {
			t.Errorf("walk %d: got %v, want %v", walk, got, want)
		}
	}
}

func TestAllAuditLogsGoesOnFromAPageToken(t *testing.T) {
	var got []string
	for entry, err := range services.AllAuditLogs(t.Context(), &pagedLog{entries: 5}, services.AuditFilters{PageSize: 2, PageToken: "3"}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, entry.ID)
	}
	if want := []string{"3", "4"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAllAuditLogsStopsWhenItsCallerDoes(t *testing.T) {
	log := &pagedLog{entries: 9}
	seen := 0
	for _, err := range services.AllAuditLogs(t.Context(), log, services.AuditFilters{PageSize: 2}) {
		if err != nil {
			t.Fatal(err)
		}
		seen++
		if seen == 4 {
			break
		}
	}
	if log.queries != 2 {
		t.Errorf("a walk that took two pages made %d queries", log.queries)
	}
}

func TestAllAuditLogsYieldsAnErrorOnce(t *testing.T) {
	log := &pagedLog{entries: 9, failAt: 4}
	var got []string
	var failures int
	for entry, err := range services.AllAuditLogs(t.Context(), log, services.AuditFilters{PageSize: 2}) {
		if err != nil {
			failures++
			if !errors.Is(err, errLogBroken) || entry.ID != "" {
				t.Errorf("got entry %q and error %v, want a zero entry and %v", entry.ID, err, errLogBroken)
			}
			continue
		}
		got = append(got, entry.ID)
	}
	if want := []string{"0", "1", "2", "3"}; !slices.Equal(got, want) || failures != 1 || log.queries != 3 {
		t.Errorf("got %v, %d errors, %d queries; want %v, 1, 3", got, failures, log.queries, want)
	}
}

func TestAllAuditLogsRefusesAnEndlessWalk(t *testing.T) {
	log := &pagedLog{entries: 9, stuck: true}
	var last error
	for _, err := range services.AllAuditLogs(t.Context(), log, services.AuditFilters{PageSize: 2}) {
		last = err
	}
	if !errors.Is(last, services.ErrInternal) || log.queries != 2 {
		t.Errorf("got %v after %d queries, want %v after 2", last, log.queries, services.ErrInternal)
	}
}

func TestNames(t *testing.T) {
	if got, want := services.Names(), []string{"auth", "identity", "authz", "audit"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	services.Names()[0] = "changed"
	if got := services.Names()[0]; got != "auth" {
		t.Errorf("a caller's change of the names shows: %q", got)
	}
}

func TestHasRole(t *testing.T) {
	claims := services.TokenClaims{Roles: []string{"admin", "auditor"}}
	if !claims.HasRole("auditor") || claims.HasRole("Admin") || claims.HasRole("") {
		t.Errorf("HasRole does not tell the roles of %v", claims.Roles)
	}
}
