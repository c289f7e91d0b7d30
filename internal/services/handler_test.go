package services

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectinprocess"

	identityv1 "github.com/0x1d/goplt/gen/goplt/identity/v1"
	"github.com/0x1d/goplt/gen/goplt/identity/v1/identityv1connect"
	"github.com/0x1d/goplt/pkg/registry/memory"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/services"
)

func TestPanicFailsItsCallOnly(t *testing.T) {
	for _, wire := range wires() {
		t.Run(wire.name, func(t *testing.T) {
			clients, impl, logged := wire.start(t)
			impl.do = func(context.Context) error { panic("secret of the implementation") }
			err := clients.identity.DeleteUser(t.Context(), "42")
			checkVerdict(t, err, connect.CodeInternal, "identity.DeleteUser: internal error")
			for _, want := range []string{"secret of the implementation", "/goplt.identity.v1.IdentityService/DeleteUser", "handler_test.go"} {
				if !strings.Contains(logged.String(), want) {
					t.Errorf("the log does not hold %q: %s", want, logged)
				}
			}
			impl.do = nil
			if err := clients.identity.DeleteUser(t.Context(), "42"); err != nil {
				t.Errorf("the next call fails too: %v", err)
			}
		})
	}
}

// http.ErrAbortHandler is how a handler asks net/http to drop the connection: no answer, and no stack in the log.
func TestAbortIsPassedOn(t *testing.T) {
	impl, logged := &stub{}, &journal{}
	impl.do = func(context.Context) error { panic(http.ErrAbortHandler) }
	clients := newClients(dial(t, newServer(impl, logged), "http/1.1", connecthttp.WithProtoJSON()))
	err := clients.identity.DeleteUser(t.Context(), "42")
	if err == nil || connect.CodeOf(err) == connect.CodeInternal {
		t.Errorf("got %v, want a connection that was dropped", err)
	}
	if logged.lines() != 0 {
		t.Errorf("logged %s", logged)
	}
}

func TestWithoutALoggerFailuresGoToTheProgramsOwn(t *testing.T) {
	var text bytes.Buffer
	previous := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&text, nil)))
	defer slog.SetDefault(previous)

	impl := &stub{err: io.ErrClosedPipe}
	server := connect.NewServer(RecoverPanics(nil))
	RegisterAuthz(server, impl, nil)
	authz := newClients(connectinprocess.New(server)).authz
	checkVerdict(t, authz.Authorize(t.Context(), "42", "a:b"), connect.CodeInternal, "authz.Authorize: internal error")
	impl.do = func(context.Context) error { panic("at the disco") }
	checkVerdict(t, authz.Authorize(t.Context(), "42", "a:b"), connect.CodeInternal, "authz.Authorize: internal error")
	for _, want := range []string{io.ErrClosedPipe.Error(), "at the disco"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the program's log does not hold %q: %s", want, text.String())
		}
	}
}

// A transport's own failure, as a generated client over it reports it, is local to this process; it tells of addresses all the same.
func TestTransportErrorsOfAnImplementationStayPrivate(t *testing.T) {
	reg := memory.New()
	defer reg.Close()
	transport, err := rpc.NewTransport("secret-backend", reg)
	if err != nil {
		t.Fatal(err)
	}
	defer transport.Close()
	backend := identityv1connect.NewIdentityServiceClient(connect.NewClient(transport))
	for _, wire := range wires() {
		t.Run(wire.name, func(t *testing.T) {
			clients, impl, logged := wire.start(t)
			impl.do = func(ctx context.Context) error {
				_, err := backend.DeleteUser(ctx, &identityv1.DeleteUserRequest{Id: "42"})
				return err
			}
			checkVerdict(t, clients.identity.DeleteUser(t.Context(), "42"), connect.CodeUnavailable, "identity.DeleteUser: unavailable")
			if !strings.Contains(logged.String(), "no instances of secret-backend") {
				t.Errorf("operators do not see it: %s", logged)
			}
		})
	}
}

// Failures that the implementation chose to tell the caller are not an operator's concern, unless they blame the server.
func TestWhatIsLogged(t *testing.T) {
	for _, row := range errorTable() {
		impl, logged := &stub{err: services.Errorf(row.sentinel, "public")}, &journal{}
		_ = newClients(connectinprocess.New(newServer(impl, logged))).authz.Authorize(t.Context(), "42", "a:b")
		blamed := row.code == connect.CodeInternal || row.code == connect.CodeUnknown || row.code == connect.CodeDataLoss
		if got := logged.lines() == 1; got != blamed {
			t.Errorf("%s: logged %t, want %t", row.code, got, blamed)
		}
	}
}

// An implementation that forgets to clear the password, or keeps its hash in the field, must not publish it.
func TestPasswordIsNeverReturned(t *testing.T) {
	for _, wire := range wires() {
		t.Run(wire.name, func(t *testing.T) {
			clients, impl, _ := wire.start(t)
			returned := &services.User{ID: "42", Password: "$argon2id$…"}
			impl.result = returned
			user, err := clients.identity.GetUser(t.Context(), "42")
			if err != nil || user.ID != "42" || user.Password != "" {
				t.Errorf("got %+v with password %q, %v, want no password", user, user.Password, err)
			}
			if returned.Password == "" {
				t.Error("the implementation's own user was changed")
			}
		})
	}
}
