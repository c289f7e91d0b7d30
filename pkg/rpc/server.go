package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/internal/safelog"
	"github.com/0x1d/goplt/pkg/registry"
)

const (
	// maxHeaderBytes bounds a request's header. gRPC's implementations refuse more than 8 to 16 KiB of metadata; net/http's default is 1 MiB,
	// which any client could make the server hold for each of its requests.
	maxHeaderBytes = 64 << 10
	// pingInterval is after how much silence an HTTP/2 client is asked whether it is there, so that the streams of one that vanished without
	// a word end; no answer for pingTimeout closes the connection.
	pingInterval = 30 * time.Second
	pingTimeout  = 15 * time.Second
	// answerGrace is how much longer than RequestTimeout the answer may be written, so that a call which ran into the timeout can say so.
	answerGrace = time.Second
)

// Server hosts the procedures of a [connect.Server] on one TCP port for gRPC, gRPC-Web and Connect, binary and JSON, over HTTP/1.1 and
// HTTP/2, in cleartext (h2c by prior knowledge) or TLS:
//
//	http.Server            deadlines of slow clients, sizes of headers, streams per connection
//	  router               404, 405, slow bodies, drain of HTTP/1.1
//	    connecthttp        protocols, message sizes, compression
//	      guard            deadlines, MaxConcurrentCalls and Shedding, panics
//	        your connect.Server, its interceptors and handlers
//	      grpc.health.v1, grpc.reflection
//
// It adds grpc.health.v1 and, by configuration, grpc.reflection, unless the given server has its own; interceptors of the given server
// do not see these. No procedure answers GET, whatever its idempotency level: the request message would be in the URL, which is logged
// everywhere. All methods are safe for concurrent use. A server is started once and stopped once.
//
// A call whose deadline has passed, or whose caller has gone, is not begun, nor handed a message that arrived too late. The deadline is the
// caller's, or that of RequestTimeout if it is earlier; it is in the handler's context, from which the handler's own calls inherit it.
type Server struct {
	config   ServerConfig
	logger   *slog.Logger
	listener net.Listener
	registry registry.ServiceRegistry
	services []string
	handlers *connect.Server // the caller's
	hosted   *connect.Server // what goes on the wire
	health   *Health
	handler  http.Handler

	calls     callCount
	admission *admission // nil if all calls are taken on
	draining  atomic.Bool
	addr      atomic.Pointer[string]

	mu            sync.Mutex // held for the whole of Start, never while stopping
	phase         phase
	http          *http.Server
	registrations []*registration
	served        chan struct{} // closed when http.Serve has returned; serveErr is set before
	serveErr      error
	stopped       chan struct{} // closed when Stop is through; stopErr is set before
	stopErr       error

	updating     chan struct{}   // holds a value while someone has the turn to update the registrations
	reporting    context.Context //nolint:containedctx // is the time of the reports, which belong to no call
	endReporting context.CancelFunc
	reports      sync.WaitGroup // goroutines that tell the registry of the server's health
}

type phase int

const (
	phaseNew phase = iota
	phaseStarted
	phaseStopped
)

// ServerOption configures [NewServer].
type ServerOption interface{ applyServer(*Server) }

type serverOption func(*Server)

func (o serverOption) applyServer(s *Server) { o(s) }

// WithServerConfig replaces the default configuration, [DefaultServerConfig].
func WithServerConfig(config ServerConfig) ServerOption {
	return serverOption(func(s *Server) { s.config = config })
}

// WithRegistration registers the server in reg while it runs, once under each name, such as "auth". The registry remains the caller's to
// close, after the server has stopped.
func WithRegistration(reg registry.ServiceRegistry, services ...string) ServerOption {
	return serverOption(func(s *Server) { s.registry, s.services = reg, services })
}

// WithServerLogger sends the server's log to logger instead of [slog.Default]: panics of handlers, failures of connections.
func WithServerLogger(logger *slog.Logger) ServerOption {
	return serverOption(func(s *Server) { s.logger = logger })
}

// WithListener serves connections of listener instead of listening on [ServerConfig.Listen]; TLS is applied to them as configured. The
// server closes it when it stops, or when it fails to start.
func WithListener(listener net.Listener) ServerOption {
	return serverOption(func(s *Server) { s.listener = listener })
}

// NewServer returns a server for the procedures that are registered on handlers now. It does no I/O and does not change handlers, which
// may be hosted by several servers; it validates the configuration ([KeyError]) and the names of the registration.
func NewServer(handlers *connect.Server, opts ...ServerOption) (*Server, error) {
	s := &Server{
		config: DefaultServerConfig(), logger: slog.Default(), handlers: handlers,
		served: make(chan struct{}), stopped: make(chan struct{}), calls: newCallCount(), updating: make(chan struct{}, 1),
	}
	for _, opt := range opts {
		opt.applyServer(s)
	}
	s.logger = safelog.New(s.logger)
	if handlers == nil {
		return nil, errors.New("rpc: new server: handlers is nil; want a connect.Server")
	}
	if err := s.config.Validate(); err != nil {
		return nil, fmt.Errorf("rpc: new server: %w", err)
	}
	if err := s.validateRegistration(); err != nil {
		return nil, fmt.Errorf("rpc: new server: %w", err)
	}
	s.admission = newAdmission(s.config, s.logger)
	s.health = newHealth(append(serviceNames(handlers), s.services...)...)
	var err error
	if s.hosted, err = s.host(); err != nil {
		return nil, err
	}
	s.handler = newRouter(s)
	s.reporting, s.endReporting = context.WithCancel(context.Background())
	return s, nil
}

// Handler returns all that the server serves, as an [http.Handler], for a test server or a server of one's own. Starting and stopping
// do not concern it. Against clients that read or write slowly over HTTP/2 it needs an http.Server with ReadTimeout and WriteTimeout.
func (s *Server) Handler() http.Handler { return s.handler }

// Health returns the health that the server reports, also to its registry. If handlers came with a grpc.health.v1.Health of their own, that one
// is served, and of this one the registry alone hears.
func (s *Server) Health() *Health { return s.health }

// Addr returns the host:port that the server listens on, and "" before Start.
func (s *Server) Addr() string {
	if addr := s.addr.Load(); addr != nil {
		return *addr
	}
	return ""
}

// Start listens, serves in the background until Stop, and then registers. It returns once registered; ctx bounds this only. After an
// error nothing is left running or registered, and the server cannot be started again.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.phase {
	case phaseStarted:
		return fmt.Errorf("rpc: server on %s: already started", s.Addr())
	case phaseStopped:
		return errors.New("rpc: start server: already stopped; make a new one")
	case phaseNew:
	}
	if err := s.start(ctx); err != nil {
		s.phase = phaseStopped
		s.abandon()
		return fmt.Errorf("rpc: start server: %w", err)
	}
	s.phase = phaseStarted
	return nil
}

func (s *Server) start(ctx context.Context) error {
	listener := s.listener
	tlsConfig, err := newServerTLS(s.config.TLS)
	if err == nil && listener == nil {
		listener, err = new(net.ListenConfig).Listen(ctx, "tcp", s.config.Listen)
	}
	if err != nil {
		return err
	}
	instances, err := s.instances(listener.Addr())
	if err != nil {
		_ = listener.Close()
		return err
	}
	addr := listener.Addr().String()
	s.addr.Store(&addr)
	s.http = s.newHTTPServer(tlsConfig)
	serve := s.http.Serve
	if tlsConfig != nil {
		serve = func(listener net.Listener) error { return s.http.ServeTLS(listener, "", "") }
	}
	go func() {
		defer close(s.served)
		if err := serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.serveErr = fmt.Errorf("rpc: server on %s: %w", addr, err)
		}
	}()
	if err := s.register(ctx, instances); err != nil {
		_ = s.http.Close()
		<-s.served
		return err
	}
	return nil
}

func (s *Server) newHTTPServer(tlsConfig *tls.Config) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(tlsConfig != nil)
	protocols.SetUnencryptedHTTP2(tlsConfig == nil)
	server := &http.Server{
		Handler: s.handler, Protocols: &protocols, TLSConfig: tlsConfig, MaxHeaderBytes: maxHeaderBytes,
		ReadHeaderTimeout: s.config.ReadHeaderTimeout, IdleTimeout: s.config.IdleTimeout,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: s.config.MaxConcurrentStreams, SendPingTimeout: pingInterval, PingTimeout: pingTimeout,
		},
		ErrorLog: slog.NewLogLogger(s.logger.Handler(), slog.LevelWarn),
	}
	// net/http's own timeouts cover what no handler can: what is left of the body and of the answer after the handler returned. The
	// router lifts them for streams. Per request they cost less than deadlines that are set by a handler.
	if s.config.RequestTimeout > 0 {
		server.ReadTimeout = s.config.RequestTimeout
		server.WriteTimeout = s.config.RequestTimeout + answerGrace
	}
	return server
}

// Run starts the server, waits until ctx is done or the server fails, and stops it within DeregisterDelay and DrainTimeout. It returns
// nil when the server ran and stopped with no call cut off.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Start(ctx); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-s.served:
	}
	return s.Stop(context.WithoutCancel(ctx))
}
