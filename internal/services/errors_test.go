package services

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectinprocess"

	"github.com/0x1d/goplt/pkg/services"
)

// checkVerdict checks that err is what a client is to get for a code: one sentinel and no other, the code, and a text.
func checkVerdict(t *testing.T, err error, code connect.Code, text string) {
	t.Helper()
	if err == nil {
		t.Fatalf("got no error, want %s", code)
	}
	for _, row := range errorTable() {
		if got, want := errors.Is(err, row.sentinel), row.code == code; got != want {
			t.Errorf("errors.Is(%q, %q) = %t", err, row.sentinel, got)
		}
	}
	if status, ok := errors.AsType[*connect.Error](err); !ok || status.Code() != code {
		t.Errorf("%q holds %v, want a *connect.Error with code %s", err, status, code)
	}
	if err.Error() != text {
		t.Errorf("got text  %q\nwant text %q", err, text)
	}
}

func TestErrorTablePairsEveryCodeWithOneSentinel(t *testing.T) {
	codes, sentinels := map[connect.Code]bool{}, map[error]bool{}
	for _, row := range errorTable() {
		codes[row.code], sentinels[row.sentinel] = true, true
	}
	for code := connect.CodeCanceled; code <= connect.CodeUnauthenticated; code++ {
		if !codes[code] {
			t.Errorf("code %s is not in the table", code)
		}
	}
	if len(sentinels) != len(errorTable()) || len(codes) != len(errorTable()) {
		t.Error("the table holds a code or a sentinel twice")
	}
}

func TestSentinelsCrossTheWire(t *testing.T) {
	for _, wire := range wires() {
		t.Run(wire.name, func(t *testing.T) {
			clients, impl, _ := wire.start(t)
			for _, row := range errorTable() {
				bare := "auth.Login: " + row.sentinel.Error()
				for name, test := range map[string]struct {
					err  error
					text string
				}{
					"sentinel":                  {row.sentinel, bare},
					"sentinel, wrapped":         {fmt.Errorf("user 42 in the users table: %w", row.sentinel), bare},
					"sentinel, joined":          {errors.Join(errors.New("private"), row.sentinel), bare},
					"Errorf":                    {services.Errorf(row.sentinel, "email %q is odd", "a\nb"), bare + `: email "a\nb" is odd`},
					"Errorf, wrapped":           {fmt.Errorf("private: %w", services.Errorf(row.sentinel, "public")), bare + ": public"},
					"Errorf, without text":      {services.Errorf(row.sentinel, ""), bare},
					"Errorf, more than a line":  {services.Errorf(row.sentinel, "one\r\ntwo\n"), bare + ": one; two"},
					"Connect's error":           {connect.NewError(row.code, "public"), bare + ": public"},
					"Connect's error, wrapped":  {fmt.Errorf("private: %w", connect.NewError(row.code, "public")), bare + ": public"},
					"Connect's error, no text":  {connect.NewError(row.code, ""), bare},
					"type that counts as it":    {ownError{row.sentinel}, bare},
					"Errorf beside another one": {fmt.Errorf("%w: %w", services.Errorf(row.sentinel, "public"), services.ErrAborted), bare + ": public"},
				} {
					t.Run(row.code.String()+"/"+name, func(t *testing.T) {
						impl.err = test.err
						tokens, err := clients.auth.Login(t.Context(), "a@example.com", "secret")
						if tokens != nil {
							t.Errorf("got a result beside the error: %v", tokens)
						}
						checkVerdict(t, err, row.code, test.text)
						if errors.Is(err, context.Canceled) {
							t.Error("matches context.Canceled, though the caller did not cancel")
						}
						if got, want := errors.Is(err, context.DeadlineExceeded), row.code == connect.CodeDeadlineExceeded; got != want {
							t.Errorf("matches context.DeadlineExceeded: %t, want %t", got, want)
						}
					})
				}
			}
		})
	}
}

// ownError is an implementation's own error type.
type ownError struct{ sentinel error }

func (e ownError) Error() string        { return "private" }
func (e ownError) Is(target error) bool { return target == e.sentinel }

// A *connect.Error may carry more than a code and a text. Its cause is the implementation's own.
func TestDetailsCrossTheWire(t *testing.T) {
	for _, wire := range wires() {
		t.Run(wire.name, func(t *testing.T) {
			clients, impl, _ := wire.start(t)
			detail := &connect.ErrorDetail{Type: "google.protobuf.Empty"}
			private := errors.New("private")
			impl.err = connect.NewError(connect.CodeAborted, "public").WithDetail(detail).WithCause(private)
			err := clients.authz.Authorize(t.Context(), "42", "a:b")
			checkVerdict(t, err, connect.CodeAborted, "authz.Authorize: aborted: public")
			status, _ := errors.AsType[*connect.Error](err)
			if got := status.Details(); len(got) != 1 || got[0].Type != detail.Type {
				t.Errorf("got details %v, want %v", got, detail)
			}
			if errors.Is(err, private) {
				t.Error("the cause reached the caller")
			}
		})
	}
}

func TestPrivateErrorsStayPrivate(t *testing.T) {
	for _, wire := range wires() {
		t.Run(wire.name, func(t *testing.T) {
			clients, impl, logged := wire.start(t)
			impl.err = errors.New("dial tcp 10.0.0.5:5432: password authentication failed")
			err := clients.authz.Authorize(t.Context(), "42", "invoices:read")
			checkVerdict(t, err, connect.CodeInternal, "authz.Authorize: internal error")
			for _, want := range []string{"dial tcp 10.0.0.5:5432", "/goplt.authz.v1.AuthzService/Authorize", "code=internal", "level=ERROR"} {
				if !strings.Contains(logged.String(), want) {
					t.Errorf("the log does not hold %q: %s", want, logged)
				}
			}
			if logged.lines() != 1 {
				t.Errorf("logged %d lines, want 1: %s", logged.lines(), logged)
			}
		})
	}
}

// What an implementation hears from another service is not its own word. See verdict.
func TestErrorsOfAnotherServiceStopAtTheImplementation(t *testing.T) {
	// downstream returns how a call of another service fails with a code, as different clients report it.
	downstream := func(code connect.Code) map[string]error {
		other := &stub{err: connect.NewError(code, "the other's words")}
		remote := newClients(connectinprocess.New(newServer(other, &journal{})))
		_, err := remote.identity.GetUser(t.Context(), "42")
		foreign := connect.NewError(code, "the other's words").WithRemote()
		return map[string]error{
			"our client's": err, "our client's, wrapped": fmt.Errorf("get user: %w", err), "joined": errors.Join(errors.New("a"), err),
			"a generated client's": foreign, "a generated client's, wrapped": fmt.Errorf("get user: %w", foreign),
			"a local cause": connect.NewError(code, "the other's words").WithRemote().WithCause(services.Errorf(services.ErrNotFound, "leak")),
		}
	}
	for _, wire := range wires() {
		t.Run(wire.name, func(t *testing.T) {
			clients, impl, logged := wire.start(t)
			for _, row := range errorTable() {
				want, text := connect.CodeInternal, "authz.Authorize: internal error"
				if slices.Contains([]connect.Code{connect.CodeUnavailable, connect.CodeDeadlineExceeded}, row.code) {
					want, text = row.code, "authz.Authorize: "+row.sentinel.Error()
				}
				for name, err := range downstream(row.code) {
					t.Run(row.code.String()+"/"+name, func(t *testing.T) {
						before := logged.lines()
						impl.err = err
						checkVerdict(t, clients.authz.Authorize(t.Context(), "42", "invoices:read"), want, text)
						if logged.lines() != before+1 || !strings.Contains(logged.String(), "the other's words") {
							t.Errorf("operators do not see it: %s", logged)
						}
					})
				}
				t.Run(row.code.String()+"/in words of its own", func(t *testing.T) {
					own := services.Errorf(services.ErrFailedPrecondition, "the user's profile cannot be read")
					impl.err = fmt.Errorf("%w: %w", own, downstream(row.code)["joined"])
					checkVerdict(t, clients.authz.Authorize(t.Context(), "42", "invoices:read"), connect.CodeFailedPrecondition,
						"authz.Authorize: failed precondition: the user's profile cannot be read")
					impl.err = connect.NewError(connect.CodeAborted, "try again").WithCause(downstream(row.code)["our client's"])
					checkVerdict(t, clients.authz.Authorize(t.Context(), "42", "invoices:read"), connect.CodeAborted, "authz.Authorize: aborted: try again")
				})
			}
		})
	}
}

func TestCallersEndIsTheReason(t *testing.T) {
	for _, wire := range wires() {
		t.Run(wire.name, func(t *testing.T) {
			clients, impl, logged := wire.start(t)
			returned := make(chan struct{})
			impl.do = func(ctx context.Context) error {
				defer close(returned)
				<-ctx.Done()
				return fmt.Errorf("query: %w", ctx.Err())
			}
			t.Run("deadline", func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 1)
				defer cancel()
				<-ctx.Done()
				_, err := clients.auth.ValidateToken(ctx, "token")
				if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, services.ErrDeadlineExceeded) ||
					connect.CodeOf(err) != connect.CodeDeadlineExceeded {
					t.Errorf("got %v, want deadline exceeded", err)
				}
				if !strings.HasPrefix(err.Error(), "auth.ValidateToken: deadline exceeded") || strings.Contains(err.Error(), "\n") {
					t.Errorf("got text %q", err)
				}
			})
			t.Run("cancellation", func(t *testing.T) {
				returned = make(chan struct{})
				started := make(chan struct{})
				impl.do = func(ctx context.Context) error {
					defer close(returned)
					close(started)
					<-ctx.Done()
					return fmt.Errorf("query: %w", ctx.Err())
				}
				ctx, cancel := context.WithCancel(t.Context())
				go func() {
					<-started
					cancel()
				}()
				_, err := clients.auth.ValidateToken(ctx, "token")
				if !errors.Is(err, context.Canceled) || !errors.Is(err, services.ErrCanceled) || connect.CodeOf(err) != connect.CodeCanceled {
					t.Errorf("got %v, want canceled", err)
				}
				if !strings.HasPrefix(err.Error(), "auth.ValidateToken: canceled") || strings.Contains(err.Error(), "\n") {
					t.Errorf("got text %q", err)
				}
				<-returned
			})
			if logged.lines() != 0 {
				t.Errorf("callers that leave are logged as failures: %s", logged)
			}
		})
	}
}

// A context of the implementation's own that ends says nothing about the caller, who is still there.
func TestImplementationsOwnContextIsNotTheCallers(t *testing.T) {
	for _, wire := range wires() {
		t.Run(wire.name, func(t *testing.T) {
			clients, impl, logged := wire.start(t)
			impl.err = fmt.Errorf("lookup: %w", context.Canceled)
			checkVerdict(t, clients.audit.Record(t.Context(), services.Action{}), connect.CodeInternal, "audit.Record: internal error")
			impl.err = fmt.Errorf("lookup: %w", context.DeadlineExceeded)
			checkVerdict(t, clients.audit.Record(t.Context(), services.Action{}), connect.CodeDeadlineExceeded, "audit.Record: deadline exceeded")
			if logged.lines() != 2 {
				t.Errorf("logged %d lines, want 2: %s", logged.lines(), logged)
			}
		})
	}
}

// failing is a transport whose calls fail with an error of any make.
type failing struct{ err error }

func (f failing) NewClientStream(context.Context, connect.Spec) (connect.ClientStream, error) {
	return nil, f.err
}

// attempts is an error of a transport that knows more.
type attempts struct {
	count int
	err   error
}

func (a *attempts) Error() string { return a.err.Error() + fmt.Sprintf(" [%d attempts]", a.count) }
func (a *attempts) Unwrap() error { return a.err }

func TestTransportErrorsGetTheirMeaning(t *testing.T) {
	for _, test := range []struct {
		name string
		err  error
		code connect.Code
		text string
	}{
		{"no code", io.ErrUnexpectedEOF, connect.CodeUnknown, "auth.Login: unknown error: unexpected EOF"},
		{"context without a code", fmt.Errorf("send: %w", context.DeadlineExceeded), connect.CodeDeadlineExceeded, "auth.Login: deadline exceeded"},
		{"cancellation without a code", context.Canceled, connect.CodeCanceled, "auth.Login: canceled"},
		{
			"more than a line", connect.NewError(connect.CodeUnavailable, "dial\nrefused"), connect.CodeUnavailable,
			"auth.Login: unavailable: dial; refused",
		},
		{"code that nobody knows", connect.NewError(99, "odd"), 99, "auth.Login: unknown error: odd"},
		{
			"response that does not decode", connect.NewError(connect.CodeInvalidArgument, "unmarshal message: bad wire").WithCause(io.ErrNoProgress),
			connect.CodeInternal, "auth.Login: internal error: the response cannot be read: unmarshal message: bad wire",
		},
		{"nil of Connect's type", (*connect.Error)(nil), connect.CodeUnknown, "auth.Login: unknown error: unknown"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := NewAuthClient(connect.NewClient(failing{test.err})).Login(t.Context(), "a@example.com", "secret")
			if test.code == 99 {
				if !errors.Is(err, services.ErrUnknown) || err.Error() != test.text {
					t.Errorf("got %v, want %s", err, test.text)
				}
				return
			}
			checkVerdict(t, err, test.code, test.text)
			if test.err != nil && !errors.Is(err, test.err) {
				t.Errorf("%v does not hold the transport's error", err)
			}
		})
	}
	t.Run("with more than a code", func(t *testing.T) {
		known := &attempts{3, connect.NewError(connect.CodeUnavailable, "refused")}
		_, err := NewAuthClient(connect.NewClient(failing{known})).Login(t.Context(), "a@example.com", "secret")
		checkVerdict(t, err, connect.CodeUnavailable, "auth.Login: unavailable: refused [3 attempts]")
		if got, ok := errors.AsType[*attempts](err); !ok || got != known {
			t.Errorf("%v has lost what the transport knows", err)
		}
	})
}

// A response that does not decode or decompress is not the caller's invalid argument, though connecthttp gives it that code.
func TestBrokenResponseIsTheServersFault(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"json that does not fit": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"claims": 42}`)
		},
		"bad gzip": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, "not gzip")
		},
		"gzip that ends early": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Encoding", "gzip")
			zipped := gzip.NewWriter(w)
			_, _ = io.WriteString(zipped, `{"claims": {"user`)
			_ = zipped.Flush()
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(answer)
			defer server.Close()
			transport := connecthttp.NewTransport(server.Client(), server.URL, connecthttp.WithProtoJSON())
			_, err := NewAuthClient(connect.NewClient(transport)).ValidateToken(t.Context(), "token")
			if !errors.Is(err, services.ErrInternal) || errors.Is(err, services.ErrInvalidArgument) || connect.CodeOf(err) != connect.CodeInternal {
				t.Errorf("got %v, want an internal error", err)
			}
			if !strings.HasPrefix(errorText(err), "auth.ValidateToken: internal error: the response cannot be read: ") {
				t.Errorf("got text %q", err)
			}
		})
	}
}

func TestErrorsShowNoSecrets(t *testing.T) {
	const secret = "correct horse"
	for _, wire := range wires() {
		t.Run(wire.name, func(t *testing.T) {
			clients, impl, logged := wire.start(t)
			for _, row := range errorTable() {
				impl.err = row.sentinel
				_, err := clients.auth.Login(t.Context(), "a@example.com", secret)
				for _, text := range []string{err.Error(), fmt.Sprintf("%+v %#v", err, err), logged.String()} {
					if strings.Contains(text, secret) {
						t.Errorf("%s: %q shows the password", row.code, text)
					}
				}
			}
		})
	}
}
