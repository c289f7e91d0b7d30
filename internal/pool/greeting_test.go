package pool_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/0x1d/goplt/internal/pool"
)

// TestTLSWithoutHTTP2: the handshake tells, by an alert or by what it chose, and not one byte of HTTP is written.
func TestTLSWithoutHTTP2(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		version   uint16
		protocols []string
		want      string
	}{
		"refused, TLS 1.3": {tls.VersionTLS13, []string{"http/1.1"}, "it refused the protocol h2"},
		"refused, TLS 1.2": {tls.VersionTLS12, []string{"http/1.1"}, "it refused the protocol h2"},
		"none, TLS 1.3":    {tls.VersionTLS13, nil, `it chose the protocol ""`},
		"none, TLS 1.2":    {tls.VersionTLS12, nil, `it chose the protocol ""`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			serverTLS, clientTLS := tlsConfigs(t, row.protocols...)
			serverTLS.MaxVersion = row.version
			received := make(chan []byte, 1)
			peer := startPeer(t, func(_ int64, conn net.Conn) error {
				secured := tls.Server(conn, serverTLS)
				data, err := io.ReadAll(secured) // shakes hands first
				received <- data
				return err
			})
			config := config(peer.addr, pool.HTTP2)
			config.TLS = clientTLS
			_, err := newPool(t, config).Acquire(t.Context())
			want := fmt.Sprintf("TLS handshake with %s: peer does not speak HTTP/2: %s", peer.addr, row.want)
			if !errors.Is(err, pool.ErrNotHTTP2) || err.Error() != want {
				t.Errorf("got %v\nwant %s", err, want)
			}
			if data := <-received; len(data) > 0 {
				t.Errorf("the server received %q", data)
			}
		})
	}
}

// TestTLS: the pool speaks both kinds over TLS, and a handshake that fails for another reason says nothing of HTTP/2.
func TestTLS(t *testing.T) {
	t.Parallel()
	for _, kind := range []pool.Kind{pool.HTTP2, pool.HTTP1} {
		protocol := []string{"h2", "http/1.1"}[kind]
		serverTLS, clientTLS := tlsConfigs(t, protocol)
		listener, err := tls.Listen("tcp", "127.0.0.1:0", serverTLS)
		if err != nil {
			t.Fatal(err)
		}
		hosted := &http.Server{
			Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }),
			ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		}
		t.Cleanup(func() { _ = hosted.Close() })
		go func() { _ = hosted.Serve(listener) }()

		config := config(listener.Addr().String(), kind)
		config.TLS = clientTLS
		if answer, want := mustCall(t, newPool(t, config)), []string{"HTTP/2.0", "HTTP/1.1"}[kind]; answer != want {
			t.Errorf("got %s, want %s", answer, want)
		}
		config.TLS = &tls.Config{MinVersion: tls.VersionTLS13} // trusts nobody of ours
		_, err = newPool(t, config).Acquire(t.Context())
		if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok || errors.Is(err, pool.ErrNotHTTP2) {
			t.Errorf("unknown authority: got %v, want a certificate verification error", err)
		}
	}
}

// TestGreeting is what a peer may do instead of sending SETTINGS, or beside it.
func TestGreeting(t *testing.T) {
	t.Parallel()
	write := func(text string) func(net.Conn) error {
		return func(conn net.Conn) error {
			if _, err := io.WriteString(conn, text); err != nil {
				return err
			}
			return awaitEOF(conn)
		}
	}
	var goingAway bytes.Buffer
	framer := http2.NewFramer(&goingAway, nil)
	if err := errors.Join(framer.WriteSettings(), framer.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, nil)); err != nil {
		t.Fatal(err)
	}
	var invalid bytes.Buffer
	if err := http2.NewFramer(&invalid, nil).WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31}); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		peer     func(net.Conn) error
		notHTTP2 bool
		want     string // what the error ends with, a regular expression
	}{
		"HTTP/1.1":                   {write("HTTP/1.1 400 Bad Request\r\n\r\n"), true, "it answered with HTTP/1"},
		"HTTP/1.0":                   {write("HTTP/1.0 505 No\r\n\r\n"), true, "it answered with HTTP/1"},
		"HTTP/1 and no more":         {write("HTTP/1."), true, "it answered with HTTP/1"},
		"silence":                    {awaitEOF, true, `no SETTINGS within ([0-9]+ms|1s)`},
		"half a header, silence":     {write("\x00\x00\x00\x04"), true, `no SETTINGS within ([0-9]+ms|1s)`},
		"half of SETTINGS, silence":  {write("\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03"), true, `no SETTINGS within ([0-9]+ms|1s)`},
		"closed at once":             {func(net.Conn) error { return nil }, false, "connection closed before an answer, as by a server that wants TLS"},
		"another protocol":           {write("SSH-2.0-OpenSSH_9.9\r\n"), false, "the answer is neither HTTP/2 nor HTTP/1, as by a server that wants TLS"},
		"another frame first":        {write("\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678"), false, "the answer is neither HTTP/2 nor HTTP/1, as by a server that wants TLS"},
		"settings that are invalid":  {write(invalid.String()), false, "connection closed before an answer, as by a server that wants TLS"},
		"settings, and going away":   {write(goingAway.String()), false, "the peer closed the connection before its first call"},
		"SMTP, in small frames, say": {write("220 mail.example ESMTP\r\n"), false, "the answer is neither HTTP/2 nor HTTP/1, as by a server that wants TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			peer := startPeer(t, func(_ int64, conn net.Conn) error { return row.peer(conn) })
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			config := config(peer.addr, pool.HTTP2)
			config.DialTimeout = time.Second // cuts the wait for SETTINGS short
			started := time.Now()
			_, err := newPool(t, config).Acquire(ctx)
			if err == nil || !regexp.MustCompile(" "+regexp.QuoteMeta(peer.addr)+": .*"+row.want+"$").MatchString(err.Error()) {
				t.Fatalf("got %v\nwant … %s: … %s", err, peer.addr, row.want)
			}
			if errors.Is(err, pool.ErrNotHTTP2) != row.notHTTP2 {
				t.Errorf("%v: is ErrNotHTTP2: %t", err, !row.notHTTP2)
			}
			if elapsed := time.Since(started); elapsed > 5*time.Second {
				t.Errorf("took %v", elapsed)
			}
			if accepted := peer.accepted.Load(); accepted != 1 {
				t.Errorf("%d dials, want 1", accepted)
			}
		})
	}
}

// TestHTTP1ServerInCleartext: net/http's own server, as the peer most likely to be met.
func TestHTTP1ServerInCleartext(t *testing.T) {
	t.Parallel()
	server := startServer(t, http1, 0, func(_ http.ResponseWriter, r *http.Request) {
		if r.Method != "PRI" { // as it takes the preface for a request
			t.Errorf("request arrived: %s %s", r.Method, r.URL)
		}
	})
	_, err := newPool(t, config(server.addr, pool.HTTP2)).Acquire(t.Context())
	if want := "HTTP/2 preface to " + server.addr + ": peer does not speak HTTP/2: it answered with HTTP/1"; !errors.Is(err, pool.ErrNotHTTP2) ||
		err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

// TestSilenceIsBoundedByTheCallersTime: the verdict comes after a quarter of it, so that the rest can be spent on the other protocol.
func TestSilenceIsBoundedByTheCallersTime(t *testing.T) {
	t.Parallel()
	peer := startPeer(t, func(_ int64, conn net.Conn) error { return awaitEOF(conn) })
	for budget, least := range map[time.Duration]time.Duration{time.Second: 200 * time.Millisecond, 4 * time.Second: 900 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), budget)
		started := time.Now()
		_, err := newPool(t, config(peer.addr, pool.HTTP2)).Acquire(ctx)
		elapsed := time.Since(started)
		if !errors.Is(err, pool.ErrNotHTTP2) || elapsed < least || ctx.Err() != nil {
			t.Errorf("budget %v: got %v after %v", budget, err, elapsed)
		}
		cancel()
	}
}

// TestSilenceConcernsWhoCouldWaitNoLonger: of two who wait for the same connection, the one in a hurry takes the peer's silence for an answer, and the
// one who has time gets the connection that is opened next. Another in a hurry is told along with the first.
func TestSilenceConcernsWhoCouldWaitNoLonger(t *testing.T) {
	t.Parallel()
	peer := startPeer(t, func(number int64, conn net.Conn) error {
		if number > 1 {
			if _, err := greet(conn); err != nil {
				return err
			}
		}
		return awaitEOF(conn)
	})
	p := newPool(t, config(peer.addr, pool.HTTP2))
	acquire := func(budget time.Duration) chan error {
		ended, waiting := make(chan error, 1), p.Queued()
		go func() {
			ctx := t.Context()
			if budget > 0 {
				bounded, cancel := context.WithTimeout(ctx, budget)
				defer cancel()
				ctx = bounded
			}
			conn, err := p.Acquire(ctx)
			if err == nil {
				conn.Release()
			}
			ended <- err
		}()
		eventually(t, "one more to wait", func() bool { return p.Queued() > waiting || len(ended) > 0 })
		return ended
	}
	hurried, alike, patient, unbounded := acquire(6*time.Second), acquire(6*time.Second), acquire(time.Minute), acquire(0)
	for _, in := range []chan error{hurried, alike} {
		if err := <-in; !errors.Is(err, pool.ErrNotHTTP2) {
			t.Errorf("in a hurry: got %v, want that it is not HTTP/2", err)
		}
	}
	for _, has := range []chan error{patient, unbounded} {
		if err := <-has; err != nil {
			t.Errorf("with time: %v", err)
		}
	}
	if got := peer.accepted.Load(); got != 2 {
		t.Errorf("%d connections, want 2", got)
	}
}
