package pool

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// ErrNotHTTP2 is matched by the error of an HTTP/2 dial whose peer proved to speak no HTTP/2 before anything but the preface was sent:
// its TLS chose another protocol, it answered the preface with HTTP/1.x, or it kept silent for [settingsTimeout].
var ErrNotHTTP2 = errors.New("peer does not speak HTTP/2")

const (
	// settingsTimeout bounds the wait for the peer's SETTINGS frame, which a server sends first and unasked (RFC 9113, section 3.4).
	settingsTimeout = 2 * time.Second
	// minSettingsTimeout keeps a caller in a hurry from mistaking a slow peer for one without HTTP/2.
	minSettingsTimeout = 100 * time.Millisecond
	// alertNoApplicationProtocol is the TLS alert of a server that shares no protocol with our ALPN list (RFC 7301, section 3.2).
	alertNoApplicationProtocol = tls.AlertError(120)
	// keepAliveIdle and the constants after it have the kernel ask a silent peer whether it is there, so that a connection whose peer
	// vanished is closed within 15 s without HTTP/2 pings, for which gRPC servers punish their clients.
	keepAliveIdle     = 10 * time.Second
	keepAliveInterval = time.Second
	keepAliveCount    = 5
)

// dialer opens connections of one kind to one address.
type dialer struct {
	kind    Kind
	addr    string
	tls     *tls.Config // nil for cleartext
	timeout time.Duration
	net     net.Dialer
	http    *http.Transport
}

func newDialer(config Config) *dialer {
	d := &dialer{
		kind: config.Kind, addr: config.Addr, timeout: config.DialTimeout,
		net: net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount,
		}},
	}
	if config.TLS != nil {
		d.tls = config.TLS.Clone()
		d.tls.NextProtos = []string{config.Kind.alpn()}
		if d.tls.ServerName == "" {
			d.tls.ServerName, _, _ = net.SplitHostPort(config.Addr)
		}
	}
	protocols := new(http.Protocols)
	if config.Kind == HTTP2 {
		protocols.SetUnencryptedHTTP2(true)
	} else {
		protocols.SetHTTP1(true)
	}
	// TLS is ours, not the transport's: it sees a connection on which HTTP is spoken in the clear. So one code path observes both.
	d.http = &http.Transport{
		Protocols:          protocols,
		DisableCompression: true,
		WriteBufferSize:    64 << 10,
		ReadBufferSize:     16 << 10,
		HTTP2:              &http.HTTP2Config{SendPingTimeout: config.PingInterval, PingTimeout: config.PingTimeout},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return ctx.Value(dialedKey{}).(*observedConn), nil //nolint:errcheck,forcetypeassert // set by dial alone
		},
	}
	return d
}

type dialedKey struct{}

// dial opens a connection and waits until the peer has shown to speak the dialer's protocol. budget is the time that the caller who
// asked for the connection has left; 0 means no bound.
func (d *dialer) dial(ctx context.Context, budget time.Duration) (*observedConn, *http.ClientConn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, d.timeout, fmt.Errorf("no connection within %v", d.timeout))
	defer cancel()
	raw, err := d.net.DialContext(ctx, "tcp", d.addr)
	if err != nil {
		return nil, nil, fmt.Errorf("dial %s: %w", d.addr, orCause(ctx, err))
	}
	if d.tls != nil {
		secured := tls.Client(raw, d.tls)
		if err := secured.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			if alert, ok := errors.AsType[tls.AlertError](err); ok && alert == alertNoApplicationProtocol && d.kind == HTTP2 {
				return nil, nil, fmt.Errorf("TLS handshake with %s: %w: it refused the protocol h2", d.addr, ErrNotHTTP2)
			}
			return nil, nil, fmt.Errorf("TLS handshake with %s: %w", d.addr, orCause(ctx, err))
		}
		if chosen := secured.ConnectionState().NegotiatedProtocol; chosen != "h2" && d.kind == HTTP2 {
			_ = secured.Close()
			return nil, nil, fmt.Errorf("TLS handshake with %s: %w: it chose %q", d.addr, ErrNotHTTP2, chosen)
		}
		raw = secured
	}
	observed := observe(raw, d.kind)
	client, err := d.http.NewClientConn(context.WithValue(ctx, dialedKey{}, observed), "http", d.addr)
	if err != nil {
		_ = observed.Close()
		return nil, nil, fmt.Errorf("open connection to %s: %w", d.addr, err)
	}
	if d.kind == HTTP2 {
		if err := d.awaitGreeting(ctx, observed, budget); err != nil {
			_ = client.Close()
			return nil, nil, err
		}
	}
	return observed, client, nil
}

// awaitGreeting waits for the peer's first bytes, so that no request is sent to a peer that may not understand it.
func (d *dialer) awaitGreeting(ctx context.Context, conn *observedConn, budget time.Duration) error {
	limit := settingsTimeout
	if budget > 0 {
		limit = min(limit, max(budget/4, minSettingsTimeout))
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-conn.greeted:
	case <-timer.C:
		return fmt.Errorf("HTTP/2 preface to %s: %w: no SETTINGS within %v", d.addr, ErrNotHTTP2, limit)
	case <-ctx.Done():
		return fmt.Errorf("HTTP/2 preface to %s: %w", d.addr, context.Cause(ctx))
	}
	switch conn.greeting {
	case greetingSettings:
		return nil
	case greetingHTTP1:
		return fmt.Errorf("HTTP/2 preface to %s: %w: it answered with HTTP/1", d.addr, ErrNotHTTP2)
	case greetingOther:
		return fmt.Errorf("HTTP/2 preface to %s: the answer is neither HTTP/2 nor HTTP/1", d.addr)
	default:
		return fmt.Errorf("HTTP/2 preface to %s: connection closed before an answer", d.addr)
	}
}

// orCause prefers the reason why ctx ended over the error that its end caused.
func orCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
