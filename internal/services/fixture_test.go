package services

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectinprocess"

	"github.com/0x1d/goplt/pkg/services"
)

// stub implements every service: it notes the latest call and answers what the test says.
type stub struct {
	mu     sync.Mutex // for calls made at the same time; tests read when the call is over
	method string
	args   []any

	result any
	err    error
	do     func(context.Context) error // called instead of returning err, if set
}

var (
	_ services.AuthServiceClient     = (*stub)(nil)
	_ services.IdentityServiceClient = (*stub)(nil)
	_ services.AuthzServiceClient    = (*stub)(nil)
	_ services.AuditServiceClient    = (*stub)(nil)
)

func answer[T any](ctx context.Context, s *stub, method string, args ...any) (T, error) {
	s.mu.Lock()
	s.method, s.args = method, args
	s.mu.Unlock()
	result, _ := s.result.(T)
	if s.do != nil {
		return result, s.do(ctx)
	}
	return result, s.err
}

func (s *stub) Login(ctx context.Context, email, password string) (*services.TokenResponse, error) {
	return answer[*services.TokenResponse](ctx, s, "Login", email, password)
}

func (s *stub) RefreshToken(ctx context.Context, refreshToken string) (*services.TokenResponse, error) {
	return answer[*services.TokenResponse](ctx, s, "RefreshToken", refreshToken)
}

func (s *stub) ValidateToken(ctx context.Context, token string) (*services.TokenClaims, error) {
	return answer[*services.TokenClaims](ctx, s, "ValidateToken", token)
}

func (s *stub) GetUser(ctx context.Context, id string) (*services.User, error) {
	return answer[*services.User](ctx, s, "GetUser", id)
}

func (s *stub) GetUserByEmail(ctx context.Context, email string) (*services.User, error) {
	return answer[*services.User](ctx, s, "GetUserByEmail", email)
}

func (s *stub) CreateUser(ctx context.Context, user services.User) (*services.User, error) {
	return answer[*services.User](ctx, s, "CreateUser", user)
}

func (s *stub) UpdateUser(ctx context.Context, id string, user services.User) (*services.User, error) {
	return answer[*services.User](ctx, s, "UpdateUser", id, user)
}

func (s *stub) DeleteUser(ctx context.Context, id string) error {
	_, err := answer[any](ctx, s, "DeleteUser", id)
	return err
}

func (s *stub) VerifyEmail(ctx context.Context, token string) error {
	_, err := answer[any](ctx, s, "VerifyEmail", token)
	return err
}

func (s *stub) RequestPasswordReset(ctx context.Context, email string) error {
	_, err := answer[any](ctx, s, "RequestPasswordReset", email)
	return err
}

func (s *stub) ResetPassword(ctx context.Context, token, newPassword string) error {
	_, err := answer[any](ctx, s, "ResetPassword", token, newPassword)
	return err
}

func (s *stub) Authorize(ctx context.Context, userID, permission string) error {
	_, err := answer[any](ctx, s, "Authorize", userID, permission)
	return err
}

func (s *stub) HasPermission(ctx context.Context, userID, permission string) (bool, error) {
	return answer[bool](ctx, s, "HasPermission", userID, permission)
}

func (s *stub) GetUserPermissions(ctx context.Context, userID string) ([]services.Permission, error) {
	return answer[[]services.Permission](ctx, s, "GetUserPermissions", userID)
}

func (s *stub) Record(ctx context.Context, action services.Action) error {
	_, err := answer[any](ctx, s, "Record", action)
	return err
}

func (s *stub) Query(ctx context.Context, filters services.AuditFilters) ([]services.AuditLog, error) {
	return answer[[]services.AuditLog](ctx, s, "Query", filters)
}

// journal collects what is logged.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(line)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

// lines returns how many records were logged.
func (j *journal) lines() int { return strings.Count(j.String(), "\n") }

// newServer returns a server of every service, implemented by impl.
func newServer(impl *stub, logged *journal) *connect.Server {
	server := connect.NewServer(RecoverPanics(logged.logger()))
	RegisterAuth(server, impl, logged.logger())
	RegisterIdentity(server, impl, logged.logger())
	RegisterAuthz(server, impl, logged.logger())
	RegisterAudit(server, impl, logged.logger())
	return server
}

// clients are the clients of every service over one transport.
type clients struct {
	auth     services.AuthServiceClient
	identity services.IdentityServiceClient
	authz    services.AuthzServiceClient
	audit    services.AuditServiceClient
}

func newClients(transport connect.Transport) clients {
	client := connect.NewClient(transport)
	return clients{NewAuthClient(client), NewIdentityClient(client), NewAuthzClient(client), NewAuditClient(client)}
}

// wire is a way for calls to take.
type wire struct {
	name string
	dial func(*testing.T, *connect.Server) connect.Transport
}

// wires are the ways for calls to take: in this process, by gRPC over HTTP/2 without TLS, and by Connect with JSON over HTTP/1.1.
func wires() []wire {
	return []wire{
		{"inprocess", func(_ *testing.T, server *connect.Server) connect.Transport { return connectinprocess.New(server) }},
		{"grpc", func(t *testing.T, server *connect.Server) connect.Transport {
			t.Helper()
			return dial(t, server, "h2c", connecthttp.WithGRPC())
		}},
		{"http", func(t *testing.T, server *connect.Server) connect.Transport {
			t.Helper()
			return dial(t, server, "http/1.1", connecthttp.WithProtoJSON())
		}},
	}
}

// start returns clients of a server of every service, which impl implements and which logs to logged.
func (w wire) start(t *testing.T) (clients clients, impl *stub, logged *journal) {
	t.Helper()
	impl, logged = &stub{}, &journal{}
	return newClients(w.dial(t, newServer(impl, logged))), impl, logged
}

// dial serves server on a real socket until the test ends and returns a transport to it.
func dial(t *testing.T, server *connect.Server, httpVersion string, options ...connecthttp.Option) connect.Transport {
	t.Helper()
	var protocols http.Protocols
	protocols.SetHTTP1(httpVersion == "http/1.1")
	protocols.SetUnencryptedHTTP2(httpVersion == "h2c")
	listening := listen(t, server, &protocols)
	transport := &http.Transport{Protocols: &protocols}
	t.Cleanup(transport.CloseIdleConnections)
	return connecthttp.NewTransport(&http.Client{Transport: transport}, listening.URL, options...)
}

// listen serves server on a real socket until the test ends.
func listen(t *testing.T, server *connect.Server, protocols *http.Protocols) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	connecthttp.Mount(mux, server)
	listening := httptest.NewUnstartedServer(mux)
	listening.Config.Protocols = protocols
	listening.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	listening.Start()
	t.Cleanup(listening.Close)
	return listening
}
