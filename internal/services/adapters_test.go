package services

import (
	"context"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectinprocess"
	"github.com/google/go-cmp/cmp"

	auditv1 "github.com/0x1d/goplt/gen/goplt/audit/v1"
	"github.com/0x1d/goplt/gen/goplt/audit/v1/auditv1connect"
	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	"github.com/0x1d/goplt/pkg/services"
)

// eachMethod calls test for every method of every service, as a client has it.
func eachMethod(c clients, test func(operation string, method reflect.Value)) {
	for _, service := range []struct {
		name   string
		client reflect.Value
		of     reflect.Type
	}{
		{"auth", reflect.ValueOf(c.auth), reflect.TypeFor[services.AuthServiceClient]()},
		{"identity", reflect.ValueOf(c.identity), reflect.TypeFor[services.IdentityServiceClient]()},
		{"authz", reflect.ValueOf(c.authz), reflect.TypeFor[services.AuthzServiceClient]()},
		{"audit", reflect.ValueOf(c.audit), reflect.TypeFor[services.AuditServiceClient]()},
	} {
		for method := range service.of.Methods() {
			test(service.name+"."+method.Name, service.client.MethodByName(method.Name))
		}
	}
}

// invoke calls a method and splits its results; result is nil for one that returns an error only.
func invoke(ctx context.Context, method reflect.Value, args []reflect.Value) (result any, err error) {
	results := method.Call(append([]reflect.Value{reflect.ValueOf(ctx)}, args...))
	err, _ = reflect.TypeAssert[error](results[len(results)-1])
	if len(results) == 2 {
		result = results[0].Interface()
	}
	return result, err
}

// randomArgs returns random arguments for a method, without its context.
func randomArgs(seed uint64, method reflect.Type) []reflect.Value {
	random := newRandom(seed)
	args := make([]reflect.Value, method.NumIn()-1)
	for i := range args {
		args[i] = reflect.New(method.In(i + 1)).Elem()
		fill(random, args[i])
	}
	return args
}

func TestEveryMethodCarriesArgumentsAndResult(t *testing.T) {
	for _, wire := range wires() {
		t.Run(wire.name, func(t *testing.T) {
			clients, impl, _ := wire.start(t)
			methods := 0
			eachMethod(clients, func(operation string, method reflect.Value) {
				methods++
				for seed := range uint64(20) {
					args := randomArgs(seed, method.Type())
					sent := make([]any, len(args))
					for i := range args {
						sent[i] = args[i].Interface()
					}
					result := reflect.New(method.Type().Out(0)).Elem()
					if method.Type().NumOut() == 2 {
						fill(newRandom(seed), result)
					}
					impl.result = result.Interface()

					got, err := invoke(t.Context(), method, args)
					if err != nil {
						t.Fatalf("%s: %v", operation, err)
					}
					if name := strings.Split(operation, ".")[1]; impl.method != name {
						t.Fatalf("%s: the server ran %s", operation, impl.method)
					}
					if diff := cmp.Diff(expected(impl.method, sent), ignoreRandomID(sent, impl.args)); diff != "" {
						t.Fatalf("%s: arguments (-sent +received):\n%s", operation, diff)
					}
					if diff := cmp.Diff(expectedResult(impl.result), got); diff != "" {
						t.Fatalf("%s: result (-returned +received):\n%s", operation, diff)
					}
				}
			})
			if methods != 16 {
				t.Errorf("%d methods tested, want 16", methods)
			}
		})
	}
}

// expected is what the server is to get of the arguments: UpdateUser's password is not sent.
func expected(method string, args []any) []any {
	if method == "UpdateUser" {
		user := args[1].(services.User)
		user.Password = ""
		return []any{args[0], user}
	}
	return args
}

// ignoreRandomID removes the ID that a client gave an action without one.
func ignoreRandomID(sent, received []any) []any {
	if action, ok := sent[0].(services.Action); ok && action.ID == "" {
		got := received[0].(services.Action)
		got.ID = ""
		return []any{got}
	}
	return received
}

// expectedResult is what the client is to get of a result: never a password, and page tokens where they mean something.
func expectedResult(result any) any {
	switch result := result.(type) {
	case *services.User:
		user := *result
		user.Password = ""
		return &user
	case []services.AuditLog:
		return onlyLastToken(result)
	}
	return result
}

// spoil replaces the at-th text in value, counted from *at down, by text that is not UTF-8, and reports whether there was one.
func spoil(value reflect.Value, at *int) bool {
	switch value.Kind() {
	case reflect.String:
		*at--
		if *at == -1 {
			value.SetString("\xff secret")
			return true
		}
	case reflect.Slice:
		value.Set(reflect.MakeSlice(value.Type(), 1, 1))
		return spoil(value.Index(0), at)
	case reflect.Map:
		key, element := reflect.New(value.Type().Key()).Elem(), reflect.New(value.Type().Elem()).Elem()
		done := spoil(key, at) || spoil(element, at)
		value.Set(reflect.MakeMap(value.Type()))
		value.SetMapIndex(key, element)
		return done
	case reflect.Struct:
		if value.Type() == reflect.TypeFor[time.Time]() {
			*at--
			if *at == -1 {
				value.Set(reflect.ValueOf(time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)))
				return true
			}
			return false
		}
		for _, field := range value.Fields() {
			if spoil(field, at) {
				return true
			}
		}
	}
	return false
}

func TestWhatCannotBeCarriedIsRefusedBeforeTheCall(t *testing.T) {
	impl := &stub{}
	clients := newClients(connectinprocess.New(newServer(impl, &journal{})))
	refused := 0
	eachMethod(clients, func(operation string, method reflect.Value) {
		for field := 0; ; field++ {
			at, found := field, false
			args := make([]reflect.Value, method.Type().NumIn()-1)
			for i := range args {
				args[i] = reflect.New(method.Type().In(i + 1)).Elem()
				found = found || spoil(args[i], &at)
			}
			if !found {
				break
			}
			if operation == "identity.UpdateUser" && args[1].Interface().(services.User).Password != "" {
				continue // not sent
			}
			refused++
			impl.method = ""
			_, err := invoke(t.Context(), method, args)
			if !errors.Is(err, services.ErrInvalidArgument) || connect.CodeOf(err) != connect.CodeInvalidArgument {
				t.Errorf("%s, field %d: got %v, want invalid argument", operation, field, err)
				continue
			}
			if text := err.Error(); !strings.Contains(text, "is not valid UTF-8") && !strings.Contains(text, "is not within the years 1 to 9999") {
				t.Errorf("%s, field %d: %q does not say what is wrong", operation, field, text)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("%s, field %d: %q shows the value", operation, field, err)
			}
			if impl.method != "" {
				t.Errorf("%s, field %d: the call was made", operation, field)
			}
		}
	})
	if refused != 43 {
		t.Errorf("%d fields tested, want 43: adjust the number if a contract has changed", refused)
	}
}

func TestUncarriableFieldIsNamed(t *testing.T) {
	clients := newClients(connectinprocess.New(newServer(&stub{}, &journal{})))
	for _, test := range []struct {
		call func() error
		want string
	}{
		{func() error {
			_, err := clients.auth.Login(t.Context(), "a", "\xff")
			return err
		}, "auth.Login: invalid argument: password is not valid UTF-8"},
		{func() error {
			_, err := clients.identity.CreateUser(t.Context(), services.User{Roles: []string{"a", "\xff"}})
			return err
		}, "identity.CreateUser: invalid argument: user.roles is not valid UTF-8"},
		{func() error {
			return clients.audit.Record(t.Context(), services.Action{Metadata: map[string]string{"a": "\xff"}})
		}, "audit.Record: invalid argument: action.metadata is not valid UTF-8"},
		{func() error {
			return clients.audit.Record(t.Context(), services.Action{OccurredAt: time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC)})
		}, "audit.Record: invalid argument: action.occurred_at is not within the years 1 to 9999"},
	} {
		if err := test.call(); err == nil || err.Error() != test.want {
			t.Errorf("got  %v\nwant %s", err, test.want)
		}
	}
}

func TestResponseThatCannotBeCarriedIsTheServersFault(t *testing.T) {
	for _, wire := range wires() {
		t.Run(wire.name, func(t *testing.T) {
			clients, impl, logged := wire.start(t)
			impl.result = &services.User{Name: "\xff"}
			_, err := clients.identity.GetUser(t.Context(), "42")
			if !errors.Is(err, services.ErrInternal) || err.Error() != "identity.GetUser: internal error" {
				t.Errorf("got %v, want a bare internal error", err)
			}
			if !strings.Contains(logged.String(), "user.name is not valid UTF-8") {
				t.Errorf("the log does not say what was wrong: %s", logged)
			}
		})
	}
}

func TestImplementationThatReturnsNothingIsTheServersFault(t *testing.T) {
	for _, wire := range wires() {
		t.Run(wire.name, func(t *testing.T) {
			clients, _, logged := wire.start(t)
			user, err := clients.identity.GetUser(t.Context(), "42")
			if user != nil || !errors.Is(err, services.ErrInternal) || err.Error() != "identity.GetUser: internal error" {
				t.Errorf("got %v, %v, want a bare internal error", user, err)
			}
			if !strings.Contains(logged.String(), "the implementation returned neither user nor an error") {
				t.Errorf("the log does not say what was wrong: %s", logged)
			}
		})
	}
}

// emptyAuth is a server of another make, which leaves out what was asked for.
type emptyAuth struct {
	authv1connect.UnimplementedAuthServiceHandler
}

func (emptyAuth) ValidateToken(context.Context, *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
	return &authv1.ValidateTokenResponse{}, nil
}

func TestResponseWithoutWhatWasAskedForIsTheServersFault(t *testing.T) {
	server := connect.NewServer()
	authv1connect.RegisterAuthServiceHandler(server, emptyAuth{})
	claims, err := newClients(connectinprocess.New(server)).auth.ValidateToken(t.Context(), "token")
	if claims != nil || !errors.Is(err, services.ErrInternal) {
		t.Errorf("got %v, %v, want nil and an internal error", claims, err)
	}
	if want := "auth.ValidateToken: internal error: the response has no claims"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

func TestRecordGivesAnActionAnIDOnce(t *testing.T) {
	impl := &stub{}
	var sent []string
	again := func(next connect.ClientFunc) connect.ClientFunc { // a retry, as machinery below the client does it
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			stream, err := next(ctx, spec)
			return &sendNoter{ClientStream: stream, sent: &sent}, err
		}
	}
	audit := NewAuditClient(connect.NewClient(connectinprocess.New(newServer(impl, &journal{})), again))
	for range 2 {
		if err := audit.Record(t.Context(), services.Action{Action: "invoice.approve"}); err != nil {
			t.Fatal(err)
		}
		if got := impl.args[0].(services.Action).ID; len(got) < 26 || got != sent[len(sent)-1] {
			t.Errorf("got ID %q, want at least 128 random bits, the same that the transport saw (%q)", got, sent)
		}
	}
	if sent[0] == sent[1] {
		t.Errorf("two actions got the same ID %q", sent[0])
	}
	if err := audit.Record(t.Context(), services.Action{ID: "mine", Action: "invoice.approve"}); err != nil {
		t.Fatal(err)
	}
	if got := impl.args[0].(services.Action).ID; got != "mine" {
		t.Errorf("got ID %q, want the caller's", got)
	}
}

type sendNoter struct {
	connect.ClientStream

	sent *[]string
}

func (s *sendNoter) Send(message any) error {
	*s.sent = append(*s.sent, message.(*auditv1.RecordRequest).GetAction().GetId())
	return s.ClientStream.Send(message)
}

func TestQueryClampsThePageSize(t *testing.T) {
	impl := &stub{}
	audit := newClients(connectinprocess.New(newServer(impl, &journal{}))).audit
	for size, want := range map[int]int{math.MaxInt: math.MaxInt32, math.MinInt: math.MinInt32, math.MaxInt32: math.MaxInt32, -1: -1, 0: 0, 1000: 1000} {
		if _, err := audit.Query(t.Context(), services.AuditFilters{PageSize: size}); err != nil {
			t.Fatal(err)
		}
		if got := impl.args[0].(services.AuditFilters).PageSize; got != want {
			t.Errorf("page size %d: the server got %d, want %d", size, got, want)
		}
	}
}

// sparseLog is a server of another make: it looks through its log in pieces, most of which hold nothing that matches.
type sparseLog struct {
	auditv1connect.UnimplementedAuditServiceHandler

	pages map[string]*auditv1.QueryResponse // by page token
	asked []string
}

func (l *sparseLog) Query(_ context.Context, req *auditv1.QueryRequest) (*auditv1.QueryResponse, error) {
	l.asked = append(l.asked, req.GetUserId()+":"+req.GetPageToken())
	return l.pages[req.GetPageToken()], nil
}

func TestQueryPassesOverEmptyPages(t *testing.T) {
	entry := []*auditv1.AuditLog{{Action: &auditv1.Action{Id: "1"}}}
	for _, test := range []struct {
		name  string
		pages map[string]*auditv1.QueryResponse
		want  []services.AuditLog
		asked int
		fails string
	}{
		{"to one that holds something", map[string]*auditv1.QueryResponse{
			"": {NextPageToken: "a"}, "a": {NextPageToken: "b"}, "b": {Logs: entry, NextPageToken: "c"},
		}, []services.AuditLog{{Action: services.Action{ID: "1"}, PageToken: "c"}}, 3, ""},
		{"to the last", map[string]*auditv1.QueryResponse{"": {NextPageToken: "a"}, "a": {}}, nil, 2, ""},
		{
			"but not in place",
			map[string]*auditv1.QueryResponse{"": {NextPageToken: "a"}, "a": {NextPageToken: "a"}},
			nil, 2,
			"audit.Query: internal error: an empty page names itself as the next",
		},
		{
			"but not in circles",
			map[string]*auditv1.QueryResponse{"": {NextPageToken: "a"}, "a": {NextPageToken: "b"}, "b": {NextPageToken: "a"}},
			nil, maxEmptyPages, "audit.Query: internal error: 100 empty pages in a row",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			log := &sparseLog{pages: test.pages}
			server := connect.NewServer()
			auditv1connect.RegisterAuditServiceHandler(server, log)
			got, err := newClients(connectinprocess.New(server)).audit.Query(t.Context(), services.AuditFilters{UserID: "u"})
			if text := errorText(err); text != test.fails || test.fails != "" && !errors.Is(err, services.ErrInternal) {
				t.Errorf("got error %q, want %q", text, test.fails)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("page (-want +got):\n%s", diff)
			}
			if len(log.asked) != test.asked || log.asked[len(log.asked)-1][:2] != "u:" {
				t.Errorf("asked for %v, want %d pages, all with the filters", log.asked, test.asked)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// A request of another make may leave out the message in it; the implementation judges the zero value like any other.
func TestMissingRequestMessageIsTheZeroValue(t *testing.T) {
	impl := &stub{}
	client := connect.NewClient(connectinprocess.New(newServer(impl, &journal{})))
	if _, err := auditv1connect.NewAuditServiceClient(client).Record(t.Context(), &auditv1.RecordRequest{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]any{services.Action{}}, impl.args); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
}
