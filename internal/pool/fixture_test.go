package pool_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/0x1d/goplt/internal/pool"
	"github.com/0x1d/goplt/internal/testcert"
)

// config returns a configuration for one connection to addr, to be changed as a test needs it.
func config(addr string, kind pool.Kind) pool.Config {
	return pool.Config{Kind: kind, Addr: addr, MaxConnections: 1, DialTimeout: 10 * time.Second}
}

func newPool(t testing.TB, config pool.Config) *pool.Pool {
	t.Helper()
	p := pool.New(config)
	t.Cleanup(p.Close)
	return p
}

func acquire(t testing.TB, p *pool.Pool) *pool.Conn {
	t.Helper()
	conn, err := p.Acquire(t.Context())
	if err != nil {
		t.Fatalf("acquire: %v", err)
	}
	return conn
}

// call makes a call on a reserved connection and returns the response's body.
func call(ctx context.Context, conn *pool.Conn) (string, error) {
	response, err := start(ctx, conn)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

func start(ctx context.Context, conn *pool.Conn) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://peer.test/", bytes.NewReader([]byte("request")))
	if err != nil {
		return nil, err
	}
	return conn.RoundTrip(request)
}

func mustCall(t testing.TB, p *pool.Pool) string {
	t.Helper()
	answer, err := call(t.Context(), acquire(t, p))
	if err != nil {
		t.Fatalf("call: %v", err)
	}
	return answer
}

// eventually waits for what no event announces.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// peer accepts connections and serves each by a script of its own.
type peer struct {
	addr     string
	accepted atomic.Int64
	ended    chan error // what each script returned
}

// startPeer starts a peer. A script gets its connection's number, from 1. The connection is closed when the script returns, or, to make
// it return, when the test ends.
func startPeer(t *testing.T, script func(number int64, conn net.Conn) error) *peer {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{addr: listener.Addr().String(), ended: make(chan error, 1000)}
	var (
		running sync.WaitGroup
		mu      sync.Mutex
		conns   []net.Conn
	)
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			number := p.accepted.Add(1)
			running.Go(func() {
				defer func() { _ = conn.Close() }()
				p.ended <- script(number, conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		mu.Lock()
		for _, conn := range conns {
			_ = conn.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return p
}

// awaitEOF reads until the client closes.
func awaitEOF(conn net.Conn) error {
	_, err := io.Copy(io.Discard, conn)
	return err
}

// script is the HTTP/2 side of a peer's connection, frame by frame.
type script struct {
	*http2.Framer

	conn net.Conn
}

// greet reads the client's preface and answers it with SETTINGS.
func greet(conn net.Conn, settings ...http2.Setting) (*script, error) {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(conn, preface); err != nil {
		return nil, err
	}
	if string(preface) != http2.ClientPreface {
		return nil, errors.New("not the preface of HTTP/2")
	}
	s := &script{Framer: http2.NewFramer(conn, conn), conn: conn}
	err := s.WriteSettings(settings...)
	return s, err
}

// awaitRequest reads frames until a request has arrived as a whole, and returns its stream.
func (s *script) awaitRequest() (uint32, error) {
	for {
		frame, err := s.ReadFrame()
		if err != nil {
			return 0, err
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				err = s.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !frame.IsAck() {
				err = s.WritePing(true, frame.Data)
			}
		case *http2.DataFrame:
			if frame.StreamEnded() {
				return frame.StreamID, nil
			}
		}
		if err != nil {
			return 0, err
		}
	}
}

// answer ends a stream with success.
func (s *script) answer(stream uint32) error {
	var block bytes.Buffer
	if err := hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "200"}); err != nil {
		return err
	}
	return s.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
}

// answerAll answers each request until the client closes, which is no error.
func (s *script) answerAll() error {
	for {
		stream, err := s.awaitRequest()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.answer(stream); err != nil {
			return err
		}
	}
}

// server is a net/http server that counts its connections.
type server struct {
	addr     string
	accepted atomic.Int64
	closed   chan string // the client's address of each connection that ended
	// stopAccepting has further connections refused.
	stopAccepting func()
}

func startServer(t testing.TB, protocols func(*http.Protocols), streams int, handler http.HandlerFunc) *server {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: listener.Addr().String(), closed: make(chan string, 1000), stopAccepting: func() { _ = listener.Close() }}
	hosted := &http.Server{
		Handler: handler, Protocols: new(http.Protocols), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: streams},
		ReadHeaderTimeout: time.Minute,
		ConnState: func(conn net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				s.accepted.Add(1)
			case http.StateClosed:
				s.closed <- conn.RemoteAddr().String()
			}
		},
	}
	protocols(hosted.Protocols)
	var running sync.WaitGroup
	running.Go(func() { _ = hosted.Serve(listener) })
	t.Cleanup(func() {
		_ = hosted.Close()
		running.Wait()
	})
	return s
}

func cleartextHTTP2(protocols *http.Protocols) { protocols.SetUnencryptedHTTP2(true) }
func http1(protocols *http.Protocols)          { protocols.SetHTTP1(true) }

// kinds are both kinds, for what must hold of each.
var kinds = []struct {
	name      string
	kind      pool.Kind
	protocols func(*http.Protocols)
}{{"HTTP2", pool.HTTP2, cleartextHTTP2}, {"HTTP1", pool.HTTP1, http1}}

// echoRemote answers with the address of the client, by which a test tells connections apart.
func echoRemote(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	_, _ = io.WriteString(w, r.RemoteAddr)
}

// tlsConfigs returns the configurations of a server and of a client that trusts it.
func tlsConfigs(t *testing.T, protocols ...string) (server, client *tls.Config) {
	t.Helper()
	authority := testcert.New(t)
	pair := authority.Issue(t, "127.0.0.1")
	certificate, err := tls.LoadX509KeyPair(pair.CertFile, pair.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(authority.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}, NextProtos: protocols},
		&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
}
