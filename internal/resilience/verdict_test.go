package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"

	"github.com/0x1d/goplt/internal/resilience"
)

// TestClassify is the table of what is safe to send again.
func TestClassify(t *testing.T) {
	t.Parallel()
	refused := http2.StreamError{StreamID: 1, Code: http2.ErrCodeRefusedStream}
	reset := http2.StreamError{StreamID: 1, Code: http2.ErrCodeCancel}
	goAway := errors.New("http2: Transport received Server's graceful shutdown GOAWAY")
	for _, row := range []struct {
		name     string
		evidence resilience.Evidence
		want     resilience.Verdict
	}{
		{"nothing left", resilience.Evidence{}, resilience.NotSent},
		{"dial failed", resilience.Evidence{Err: &net.OpError{Op: "dial", Err: errors.New("refused")}}, resilience.NotSent},
		{"reset before the message left", resilience.Evidence{Err: reset}, resilience.NotSent},
		{"refused before the message left", resilience.Evidence{Err: refused}, resilience.Refused},
		{"refused", resilience.Evidence{Sent: true, Err: refused}, resilience.Refused},
		{"refused, wrapped", resilience.Evidence{Sent: true, Err: fmt.Errorf("post: %w", refused)}, resilience.Refused},
		{"GOAWAY below our stream", resilience.Evidence{Sent: true, Err: goAway}, resilience.Refused},
		{"the same, wrapped", resilience.Evidence{Sent: true, Err: fmt.Errorf("post: %w", goAway)}, resilience.Refused},
		{"a text that only holds it", resilience.Evidence{Sent: true, Err: errors.New("peer says: " + goAway.Error())}, resilience.MaybeProcessed},
		{"reset", resilience.Evidence{Sent: true, Err: reset}, resilience.MaybeProcessed},
		{"connection lost", resilience.Evidence{Sent: true, Err: io.ErrUnexpectedEOF}, resilience.MaybeProcessed},
		{"time ran out", resilience.Evidence{Sent: true, Err: context.DeadlineExceeded}, resilience.MaybeProcessed},
		{"sent, and no error", resilience.Evidence{Sent: true}, resilience.MaybeProcessed},
		{"answered", resilience.Evidence{Sent: true, Answered: true}, resilience.Processed},
		{"answered before the message left", resilience.Evidence{Answered: true}, resilience.Processed},
		{"answered, then lost", resilience.Evidence{Sent: true, Answered: true, Err: io.ErrUnexpectedEOF}, resilience.Processed},
		{"answered, then refused", resilience.Evidence{Sent: true, Answered: true, Err: refused}, resilience.Processed},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			if got := resilience.Classify(row.evidence); got != row.want {
				t.Errorf("got %s, want %s", got, row.want)
			}
		})
	}
}

func TestVerdict(t *testing.T) {
	t.Parallel()
	for verdict, want := range map[resilience.Verdict]struct {
		text       string
		unexecuted bool
	}{
		resilience.NotSent: {"not sent", true}, resilience.Refused: {"refused", true},
		resilience.MaybeProcessed: {"maybe processed", false}, resilience.Processed: {"processed", false}, 7: {"unknown", false},
	} {
		if verdict.String() != want.text || verdict.Unexecuted() != want.unexecuted {
			t.Errorf("%d: %s, unexecuted %t, want %+v", verdict, verdict, verdict.Unexecuted(), want)
		}
	}
}

// TestNetHTTPRefusals pins how net/http tells that a peer has not processed a request, by having one say so. It fails if a new version of
// Go tells it otherwise.
func TestNetHTTPRefusals(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		say  func(framer *http2.Framer, stream uint32) error // the peer's whole answer to a request; it then closes the connection
		want resilience.Verdict
		text string // what the error begins with
	}{
		{
			"REFUSED_STREAM",
			func(framer *http2.Framer, stream uint32) error {
				return framer.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
			},
			resilience.Refused, "stream error: stream ID ",
		},
		{
			"another reset",
			func(framer *http2.Framer, stream uint32) error {
				return framer.WriteRSTStream(stream, http2.ErrCodeInternal)
			},
			resilience.MaybeProcessed, "stream error: stream ID ",
		},
		{
			"GOAWAY below the stream",
			func(framer *http2.Framer, stream uint32) error {
				return framer.WriteGoAway(stream-1, http2.ErrCodeNo, nil)
			},
			resilience.Refused, "http2: Transport received Server's graceful shutdown GOAWAY",
		},
		{
			"GOAWAY at the stream, then the end",
			func(framer *http2.Framer, stream uint32) error {
				return framer.WriteGoAway(stream, http2.ErrCodeNo, nil)
			},
			resilience.MaybeProcessed, "http2: server sent GOAWAY and closed the connection",
		},
		{
			"the end",
			func(*http2.Framer, uint32) error { return nil },
			resilience.MaybeProcessed, "unexpected EOF",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			err := refusedCall(t, row.say)
			if err == nil || !strings.HasPrefix(err.Error(), row.text) {
				t.Fatalf("got %v, want %s…", err, row.text)
			}
			if got := resilience.Classify(resilience.Evidence{Sent: true, Err: err}); got != row.want {
				t.Errorf("%v: got %s, want %s", err, got, row.want)
			}
			_, isReset := errors.AsType[http2.StreamError](err)
			if want := strings.HasPrefix(row.text, "stream error"); isReset != want {
				t.Errorf("%v is an http2.StreamError: %t, want %t", err, isReset, want)
			}
		})
	}
}

// refusedCall has net/http make a request of a peer that answers it by say, and returns the error.
func refusedCall(t *testing.T, say func(*http2.Framer, uint32) error) error {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var peer sync.WaitGroup
	peer.Go(func() {
		conn, err := listener.Accept()
		if err != nil {
			t.Errorf("accept: %v", err)
			return
		}
		defer func() { _ = conn.Close() }()
		if err := answerOnce(conn, say); err != nil {
			t.Errorf("peer: %v", err)
		}
	})
	defer peer.Wait()
	defer func() { _ = listener.Close() }()

	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	client, err := transport.NewClientConn(t.Context(), "http", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if err := client.Reserve(); err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://peer.test/", strings.NewReader("request"))
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.RoundTrip(request)
	if err == nil {
		_ = response.Body.Close()
	}
	return err
}

// answerOnce reads a request as a whole, answers it by say, and, once the client has had the time to act on that, returns.
func answerOnce(conn net.Conn, say func(*http2.Framer, uint32) error) error {
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return err
	}
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(); err != nil {
		return err
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return err
		}
		if data, ok := frame.(*http2.DataFrame); ok && data.StreamEnded() {
			if err := say(framer, data.StreamID); err != nil {
				return err
			}
			break
		}
	}
	// A ping is answered only when everything before it has been acted on.
	if err := framer.WritePing(false, [8]byte{1}); err != nil {
		return err
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return nil //nolint:nilerr // the client may close the connection as soon as it knows
		}
		if ping, ok := frame.(*http2.PingFrame); ok && ping.IsAck() {
			return nil
		}
	}
}
