package servicestest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/0x1d/goplt/pkg/services"
)

func auditSuite() []suiteTest {
	return []suiteTest{
		{"RecordKeepsTheAction", testRecordKeepsTheAction},
		{"RecordFillsIn", testRecordFillsIn},
		{"RecordIsIdempotent", testRecordIsIdempotent},
		{"RecordRaced", testRecordRaced},
		{"RecordWithoutAction", func(s *suite) {
			err := s.Audit.Record(s.Context(), services.Action{ID: "1", UserID: adaID, Resource: "invoice/42"})
			s.wantError("record", err, services.ErrInvalidArgument, "action is required")
			s.wantLog(services.AuditFilters{})
		}},
		{"QueryFilters", testQueryFilters},
		{"QueryIsInOrderOfRecording", func(s *suite) {
			for i, id := range []string{"a", "c", "b"} {
				s.record(services.Action{ID: id, Action: "x", OccurredAt: time.Unix(int64(1000-i), 0)})
			}
			s.wantLog(services.AuditFilters{}, "a", "c", "b")
		}},
		{"QueryPages", testQueryPages},
		{"QueryPageSizes", testQueryPageSizes},
		{"QueryPagesWhileRecording", testQueryPagesWhileRecording},
		{"QueryFails", testQueryFails},
	}
}

func (s *suite) record(action services.Action) {
	s.Helper()
	if err := s.Audit.Record(s.Context(), action); err != nil {
		s.Fatalf("record %+v: %v", action, err)
	}
}

func (s *suite) query(filters services.AuditFilters) []services.AuditLog {
	s.Helper()
	page, err := s.Audit.Query(s.Context(), filters)
	if err != nil {
		s.Fatalf("query %+v: %v", filters, err)
	}
	return page
}

func idsOf(page []services.AuditLog) []string {
	ids := make([]string, 0, len(page))
	for _, entry := range page {
		ids = append(ids, entry.ID)
	}
	return ids
}

// wantLog checks which entries filters select.
func (s *suite) wantLog(filters services.AuditFilters, want ...string) {
	s.Helper()
	if got := idsOf(s.query(filters)); !slices.Equal(got, want) {
		s.Errorf("query %+v: got %q, want %q", filters, got, want)
	}
}

func testRecordKeepsTheAction(s *suite) {
	want := services.Action{
		ID: "act-1", UserID: adaID, Action: "invoice.approve", Resource: "invoice/42",
		Metadata:   map[string]string{"amount": "1200.00 €", "": "empty key", "empty value": ""},
		OccurredAt: time.Date(2026, 3, 4, 5, 6, 7, 89, time.UTC),
	}
	given := want
	given.Metadata = maps.Clone(want.Metadata)
	given.OccurredAt = want.OccurredAt.In(time.FixedZone("elsewhere", 3600))
	s.record(given)
	given.Metadata["amount"] = "changed" // Callers own what they gave, and below what they were given.
	for range 2 {
		page := s.query(services.AuditFilters{})
		if len(page) != 1 {
			s.Fatalf("got %d entries, want 1", len(page))
		}
		got := page[0]
		if got.ID != want.ID || got.UserID != want.UserID || got.Action.Action != want.Action || got.Resource != want.Resource ||
			!maps.Equal(got.Metadata, want.Metadata) || !got.OccurredAt.Equal(want.OccurredAt) {
			s.Errorf("got %+v, want %+v", got.Action, want)
		}
		if got.RecordedAt.IsZero() || got.PageToken != "" {
			s.Errorf("got recorded at %v, page token %q; want a time and none, since this page is the last", got.RecordedAt, got.PageToken)
		}
		got.Metadata["amount"] = "changed"
	}
}

func testRecordFillsIn(s *suite) {
	s.record(services.Action{Action: "x"})
	s.Controls.Advance(time.Hour)
	s.record(services.Action{Action: "x"})
	page := s.query(services.AuditFilters{})
	if len(page) != 2 {
		s.Fatalf("got %d entries of two records without ID, want 2", len(page))
	}
	if page[0].ID == "" || page[1].ID == "" || page[0].ID == page[1].ID {
		s.Errorf("got the IDs %q and %q, want two different ones", page[0].ID, page[1].ID)
	}
	for _, entry := range page {
		if !entry.OccurredAt.Equal(entry.RecordedAt) || entry.RecordedAt.IsZero() {
			s.Errorf("got occurred at %v, recorded at %v; want the service's clock for both", entry.OccurredAt, entry.RecordedAt)
		}
	}
	if passed := page[1].RecordedAt.Sub(page[0].RecordedAt); passed < time.Hour {
		s.Errorf("the second entry was recorded %v after the first, want an hour", passed)
	}
}

func testRecordIsIdempotent(s *suite) {
	s.record(services.Action{ID: "1", Action: "first", UserID: adaID})
	before := s.query(services.AuditFilters{})
	s.Controls.Advance(time.Hour)
	s.record(services.Action{ID: "1", Action: "first", UserID: adaID})
	s.record(services.Action{ID: "1", Action: "second", UserID: graceID})
	after := s.query(services.AuditFilters{})
	if len(before) != 1 || len(after) != 1 || after[0].Action.Action != "first" || after[0].UserID != adaID ||
		!after[0].RecordedAt.Equal(before[0].RecordedAt) || !after[0].OccurredAt.Equal(before[0].OccurredAt) {
		s.Errorf("recording an ID again changed %+v into %+v", before, after)
	}
}

func testRecordRaced(s *suite) {
	result := race(16, func() (struct{}, error) {
		return struct{}{}, s.Audit.Record(s.Context(), services.Action{ID: "1", Action: "x"})
	})
	if len(result.failures) > 0 {
		s.Errorf("%d of 16 records of one action failed: %v", len(result.failures), result.failures[0])
	}
	s.wantLog(services.AuditFilters{}, "1")
}

func testQueryFilters(s *suite) {
	const create, invoice = "create", "invoice/1"
	at := func(hour int) time.Time { return time.Date(2026, 1, 1, hour, 0, 0, 0, time.UTC) }
	s.record(services.Action{ID: "1", UserID: adaID, Action: create, Resource: invoice, OccurredAt: at(1)})
	s.record(services.Action{ID: "2", UserID: adaID, Action: "approve", Resource: invoice, OccurredAt: at(2)})
	s.record(services.Action{ID: "3", UserID: graceID, Action: create, Resource: "invoice/2", OccurredAt: at(3)})
	s.record(services.Action{ID: "4", Action: create, OccurredAt: at(4)})
	for _, test := range []struct {
		filters services.AuditFilters
		want    []string
	}{
		{services.AuditFilters{}, []string{"1", "2", "3", "4"}},
		{services.AuditFilters{UserID: adaID}, []string{"1", "2"}},
		{services.AuditFilters{UserID: "usr_a"}, nil},
		{services.AuditFilters{Action: create}, []string{"1", "3", "4"}},
		{services.AuditFilters{Resource: invoice}, []string{"1", "2"}},
		{services.AuditFilters{UserID: adaID, Action: create, Resource: invoice}, []string{"1"}},
		{services.AuditFilters{UserID: graceID, Resource: invoice}, nil},
		{services.AuditFilters{Since: at(2)}, []string{"2", "3", "4"}},
		{services.AuditFilters{Until: at(2)}, []string{"1"}},
		{services.AuditFilters{Since: at(2), Until: at(4)}, []string{"2", "3"}},
		{services.AuditFilters{Since: at(2).Add(1), Until: at(4).Add(1)}, []string{"3", "4"}},
		{services.AuditFilters{Since: at(2), Until: at(2)}, nil},
		{services.AuditFilters{Since: at(3), Until: at(2)}, nil},
		{services.AuditFilters{Action: create, Until: at(4)}, []string{"1", "3"}},
	} {
		s.wantLog(test.filters, test.want...)
	}
}

// walk follows the page tokens and returns the IDs on each page.
func (s *suite) walk(filters services.AuditFilters) [][]string {
	s.Helper()
	var pages [][]string
	for {
		page := s.query(filters)
		pages = append(pages, idsOf(page))
		for i, entry := range page[:max(len(page)-1, 0)] {
			if entry.PageToken != "" {
				s.Errorf("entry %d of a page of %d has a page token", i, len(page))
			}
		}
		if len(page) == 0 || page[len(page)-1].PageToken == "" {
			return pages
		}
		if len(page) != filters.PageSize {
			s.Errorf("page size %d: got a page of %d that is not the last", filters.PageSize, len(page))
		}
		filters.PageToken = page[len(page)-1].PageToken
	}
}

func testQueryPages(s *suite) {
	want := make([]string, 0, 10)
	for i := range 10 {
		// Every other entry is of another user, so that a page's entries do not lie side by side.
		s.record(services.Action{ID: fmt.Sprint("ada", i), UserID: adaID, Action: "x"})
		s.record(services.Action{ID: fmt.Sprint("grace", i), UserID: graceID, Action: "x"})
		want = append(want, fmt.Sprint("ada", i))
	}
	for _, size := range []int{1, 3, 5, 9, 10, 11} {
		got := s.walk(services.AuditFilters{UserID: adaID, PageSize: size})
		if wantPages := (10 + size - 1) / size; len(got) != wantPages {
			s.Errorf("page size %d: got %d pages, want %d", size, len(got), wantPages)
		}
		if !slices.Equal(slices.Concat(got...), want) {
			s.Errorf("page size %d: got %q, want %q", size, got, want)
		}
		var walked []string
		for entry, err := range services.AllAuditLogs(s.Context(), s.Audit, services.AuditFilters{UserID: adaID, PageSize: size}) {
			if err != nil {
				s.Fatalf("walk: %v", err)
			}
			walked = append(walked, entry.ID)
		}
		if !slices.Equal(walked, want) {
			s.Errorf("page size %d: walked %q, want %q", size, walked, want)
		}
	}
}

func testQueryPageSizes(s *suite) {
	const entries = 1010
	var group sync.WaitGroup
	for worker := range 10 {
		group.Go(func() {
			for i := worker; i < entries; i += 10 {
				if err := s.Audit.Record(s.Context(), services.Action{ID: strconv.Itoa(i), Action: "x"}); err != nil {
					s.Errorf("record: %v", err)
				}
			}
		})
	}
	group.Wait()
	for _, test := range []struct{ size, want int }{{0, 100}, {1, 1}, {100, 100}, {1000, 1000}, {1001, 1000}, {1 << 30, 1000}} {
		page := s.query(services.AuditFilters{PageSize: test.size})
		if len(page) != test.want || page[len(page)-1].PageToken == "" {
			s.Errorf("page size %d: got %d entries, want %d and a token for the rest", test.size, len(page), test.want)
		}
	}
	// The size may change from page to page.
	token := s.query(services.AuditFilters{PageSize: 1000})[999].PageToken
	if page := s.query(services.AuditFilters{PageToken: token}); len(page) != 10 || page[9].PageToken != "" {
		s.Errorf("got %d entries on the last page, want 10 and no token", len(page))
	}
}

func testQueryPagesWhileRecording(s *suite) {
	for i := range 20 {
		s.record(services.Action{ID: fmt.Sprint("before", i), Action: "x"})
	}
	var got []string
	for entry, err := range services.AllAuditLogs(s.Context(), s.Audit, services.AuditFilters{PageSize: 3}) {
		if err != nil {
			s.Fatalf("walk: %v", err)
		}
		if got = append(got, entry.ID); len(got) <= 20 {
			// One more for each entry seen, dated before all of them.
			s.record(services.Action{ID: fmt.Sprint("during", len(got)), Action: "x", OccurredAt: time.Unix(0, 0)})
		}
	}
	want := make([]string, 0, 20)
	for i := range 20 {
		want = append(want, fmt.Sprint("before", i))
	}
	// Entries recorded during the walk may be seen or not; those of before are each seen once, in order.
	got = slices.DeleteFunc(got, func(id string) bool { return strings.HasPrefix(id, "during") })
	if !slices.Equal(got, want) {
		s.Errorf("got %q, want %q", got, want)
	}
}

func testQueryFails(s *suite) {
	for i := range 5 {
		s.record(services.Action{ID: strconv.Itoa(i), UserID: adaID, Action: "x"})
	}
	_, err := s.Audit.Query(s.Context(), services.AuditFilters{PageSize: -1})
	s.wantError("negative page size", err, services.ErrInvalidArgument, "page size")
	filters := services.AuditFilters{UserID: adaID, PageSize: 2}
	token := s.query(filters)[1].PageToken
	for _, malformed := range []string{
		"x", "2", "!", token + "A", token[1:], token[:len(token)-1], strings.Repeat("A", len(token)), strings.Repeat("A", 1<<12),
	} {
		filters.PageToken = malformed
		_, err := s.Audit.Query(s.Context(), filters)
		s.wantError(fmt.Sprintf("page token %.40q", malformed), err, services.ErrInvalidArgument, "page token")
	}
	for name, other := range map[string]services.AuditFilters{
		"no filters":     {},
		"another user":   {UserID: graceID},
		"another action": {UserID: adaID, Action: "x"},
		"a resource":     {UserID: adaID, Resource: "y"},
		"a time":         {UserID: adaID, Since: time.Unix(1, 0)},
	} {
		other.PageToken = token
		_, err := s.Audit.Query(s.Context(), other)
		s.wantError("token of other filters: "+name, err, services.ErrInvalidArgument, "page token")
	}
	filters.PageToken = token
	s.wantLog(filters, "2", "3")
}
