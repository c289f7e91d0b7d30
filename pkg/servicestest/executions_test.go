package servicestest_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectinprocess"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/0x1d/goplt/pkg/servicestest"
)

// verdicts notes what a test is told.
type verdicts struct {
	testing.TB

	said []string
}

func (v *verdicts) Helper() {}

func (v *verdicts) Errorf(format string, args ...any) {
	v.said = append(v.said, fmt.Sprintf(format, args...))
}

func expectVerdicts(t *testing.T, executions *servicestest.Executions, want ...string) {
	t.Helper()
	got := &verdicts{TB: t}
	executions.ExpectAtMostOnce(got)
	if !slices.Equal(got.said, want) {
		t.Errorf("said %q, want %q", got.said, want)
	}
}

func TestExecutionsCount(t *testing.T) {
	executions := servicestest.NewExecutions()
	expectVerdicts(t, executions)
	first, second := servicestest.NewCallID(), servicestest.NewCallID()
	executions.Count(first)
	executions.Count(second)
	expectVerdicts(t, executions)
	executions.Count(second)
	executions.Count("")
	if executions.Of(first) != 1 || executions.Of(second) != 2 || executions.Of("other") != 0 || executions.Total() != 4 {
		t.Errorf("%d, %d, %d, %d in all", executions.Of(first), executions.Of(second), executions.Of("other"), executions.Total())
	}
	expectVerdicts(t, executions, "1 executions of calls without the header X-Test-Call-Id", "call "+second+" was executed 2 times")
}

// TestExecutionsByInterceptors: each call has an ID of its own, or the caller's, and the server counts by it.
func TestExecutionsByInterceptors(t *testing.T) {
	executions := servicestest.NewExecutions()
	var ids []string
	handlers := connect.NewServer(executions.CountExecutions())
	handlers.Register(connect.Method{
		Spec: connect.Spec{Procedure: procedure},
		Handler: func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
			info, _ := connect.CallInfoForServerContext(ctx)
			ids = append(ids, info.RequestHeader().Get(servicestest.CallIDHeader))
			return connect.NewError(connect.CodeUnavailable, "executed")
		},
	})
	call := func(ctx context.Context) {
		t.Helper()
		client := connect.NewClient(connectinprocess.New(handlers), executions.IdentifyCalls())
		err := client.CallUnary(ctx, connect.Spec{Procedure: procedure}, &emptypb.Empty{}, &emptypb.Empty{})
		if connect.CodeOf(err) != connect.CodeUnavailable {
			t.Fatal(err)
		}
	}
	call(t.Context())
	call(t.Context())
	ctx, info := connect.NewClientContext(t.Context())
	call(ctx)
	call(ctx) // by a handle that has the ID of the call before
	info.RequestHeader().Set(servicestest.CallIDHeader, "mine")
	call(ctx)
	expectVerdicts(t, executions)
	call(ctx)
	expectVerdicts(t, executions, "call mine was executed 2 times")
	slices.Sort(ids)
	if distinct := slices.Compact(slices.Clone(ids)); len(ids) != 6 || len(distinct) != 5 || slices.Contains(ids, "") {
		t.Errorf("the server saw the IDs %q", ids)
	}
	if got := executions.Of("mine"); got != 2 {
		t.Errorf("%d executions of the caller's ID, want 2", got)
	}
}
