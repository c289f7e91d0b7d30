package pool

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"time"
)

// ErrNotHTTP2 is matched by the error of an HTTP/2 dial whose peer proved to speak no HTTP/2 before anything but the preface was sent:
// its TLS refused h2 or chose another protocol, it answered the preface with HTTP/1.x, or it kept silent: for 2 s, or for a quarter of
// the time that the caller had left for whom it was opened, if any, or up to the dial timeout, whichever is least. A caller who has more
// time than that one is not given the verdict, but another connection.
var ErrNotHTTP2 = errors.New("peer does not speak HTTP/2")

const (
	// SettingsTimeout bounds the wait for the peer's SETTINGS frame, which a server sends first and unasked (RFC 9113, section 3.4).
	SettingsTimeout = 2 * time.Second
	// minSettingsTimeout and minSettingsRoundTrips keep a caller in a hurry from mistaking a slow or distant peer for one without HTTP/2.
	// The round trip is taken from the opening of the TCP connection.
	minSettingsTimeout    = 100 * time.Millisecond
	minSettingsRoundTrips = 4
	// alertNoApplicationProtocol is the TLS alert of a server that shares no protocol with our ALPN list (RFC 7301, section 3.2).
	alertNoApplicationProtocol = 120
	// keepAliveIdle and the constants after it have the kernel ask a silent peer whether it is there, so that a connection whose peer
	// vanished is closed within 15 s without HTTP/2 pings, for which gRPC servers punish their clients: after 14 s, as the kernel's timers run
	// up to half a second late. It does not ask while data waits for an acknowledgement; unacknowledgedTimeout bounds that wait, where
	// the system knows how.
	keepAliveIdle         = 9 * time.Second
	keepAliveInterval     = time.Second
	keepAliveCount        = 5
	unacknowledgedTimeout = keepAliveIdle + keepAliveCount*keepAliveInterval
)

// dialer opens connections of one kind to one address.
type dialer struct {
	kind    Kind
	addr    string
	tls     *tls.Config // nil for cleartext
	timeout time.Duration
	custom  func(ctx context.Context, network, addr string) (net.Conn, error) // in place of all of TCP's below; nil if it is TCP
	net     net.Dialer
	lookup  func(ctx context.Context, network, host string) ([]netip.Addr, error)
	connect func(ctx context.Context, network, addr string) (net.Conn, error) // to an address, not to a name
	pace    *pingPace
	http    *http.Transport
}

func newDialer(config Config, pace *pingPace) *dialer {
	d := &dialer{
		kind: config.Kind, addr: config.Addr, timeout: config.DialTimeout, custom: config.Dial, pace: pace, lookup: net.DefaultResolver.LookupNetIP,
		net: net.Dialer{
			KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount},
			Control:         boundUnacknowledged,
		},
	}
	d.connect = d.net.DialContext
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
	bounded, cancel := context.WithTimeoutCause(ctx, d.timeout, d.timeoutError())
	defer cancel()
	started := time.Now()
	raw, err := d.reach(bounded)
	switch {
	case err != nil && bounded.Err() != nil:
		return nil, nil, fmt.Errorf("dial tcp %s: %w", d.addr, context.Cause(bounded))
	case err != nil:
		return nil, nil, err // says itself what was dialed
	}
	roundTrip := time.Since(started)
	if d.tls != nil {
		if raw, err = d.secure(bounded, raw); err != nil {
			return nil, nil, fmt.Errorf("TLS handshake with %s: %w", d.addr, err)
		}
	}
	observed := observe(raw, d.kind, d.pace)
	client, err := d.http.NewClientConn(context.WithValue(bounded, dialedKey{}, observed), "http", d.addr)
	if err != nil {
		_ = observed.Close()
		return nil, nil, fmt.Errorf("open connection to %s: %w", d.addr, orCause(bounded, err))
	}
	if d.kind == HTTP2 {
		limit := max(greetingLimit(budget), min(SettingsTimeout, minSettingsRoundTrips*roundTrip))
		err := d.awaitGreeting(ctx, observed, min(limit, d.timeout-time.Since(started)))
		if err != nil {
			_ = client.Close()
			err = fmt.Errorf("HTTP/2 preface to %s: %w", d.addr, err)
			if errors.Is(err, errSilent) && time.Since(started) < d.timeout {
				err = &hurriedError{error: err, limit: limit}
			}
			return nil, nil, err
		}
	}
	return observed, client, nil
}

// greetingLimit is how long a caller who has budget left, 0 for no bound, waits for SETTINGS from a peer that is near.
func greetingLimit(budget time.Duration) time.Duration {
	if budget == 0 {
		return SettingsTimeout
	}
	return min(SettingsTimeout, max(budget/4, minSettingsTimeout))
}

// errSilent is why a peer that sends no SETTINGS is taken for one without HTTP/2.
var errSilent = errors.New("no SETTINGS")

// hurriedError is the verdict on a peer that was silent for as long as one caller could wait, who may have been in a hurry.
type hurriedError struct {
	error

	limit time.Duration
}

// Unwrap returns the verdict.
func (e *hurriedError) Unwrap() error { return e.error }

func (d *dialer) timeoutError() error { return fmt.Errorf("no connection within %v", d.timeout) }

// secure speaks TLS on raw, and closes it if that fails.
func (d *dialer) secure(ctx context.Context, raw net.Conn) (net.Conn, error) {
	secured := tls.Client(raw, d.tls)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		if d.kind == HTTP2 && isNoApplicationProtocol(err) {
			return nil, fmt.Errorf("%w: it refused the protocol h2", ErrNotHTTP2)
		}
		return nil, orCause(ctx, err)
	}
	if chosen := secured.ConnectionState().NegotiatedProtocol; chosen != "h2" && d.kind == HTTP2 {
		_ = raw.Close() // without a farewell: nothing at all is said to this peer
		return nil, fmt.Errorf("%w: it chose the protocol %q", ErrNotHTTP2, chosen)
	}
	return secured, nil
}

// isNoApplicationProtocol reports whether the peer ended the handshake with the alert no_application_protocol. crypto/tls wraps the alert's
// number in a type that cannot be named; tls.AlertError is for QUIC alone.
func isNoApplicationProtocol(err error) bool {
	remote, ok := errors.AsType[*net.OpError](err)
	if !ok || remote.Op != "remote error" {
		return false
	}
	alert := reflect.ValueOf(remote.Err)
	return alert.Kind() == reflect.Uint8 && alert.Uint() == alertNoApplicationProtocol
}

// awaitGreeting waits for the peer's SETTINGS, so that no request is sent to a peer that may not understand it, and none beyond the
// number of streams that the peer allows.
func (d *dialer) awaitGreeting(ctx context.Context, conn *observedConn, limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-conn.greeted:
	case <-timer.C:
		if limit < minSettingsTimeout { // the connection took so long to open that this silence proves nothing
			return d.timeoutError()
		}
		return fmt.Errorf("%w: %w within %v", ErrNotHTTP2, errSilent, limit.Round(time.Millisecond))
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	switch conn.greeting {
	case greetingSettings:
		return nil
	case greetingHTTP1:
		return fmt.Errorf("%w: it answered with HTTP/1", ErrNotHTTP2)
	case greetingOther:
		return d.perhapsTLS("the answer is neither HTTP/2 nor HTTP/1")
	default:
		return d.perhapsTLS("connection closed before an answer")
	}
}

// perhapsTLS returns the error of a peer that behaves as one does that wants TLS, if it was not spoken to by that.
func (d *dialer) perhapsTLS(text string) error {
	if d.tls == nil {
		text += ", as by a server that wants TLS"
	}
	return errors.New(text)
}

// orCause prefers the reason why ctx ended over the error that its end caused.
func orCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
