package pool

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// sink is a connection that keeps what is written to it, until it fails.
type sink struct {
	net.Conn
	bytes.Buffer

	err error
}

func (s *sink) Write(b []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	return s.Buffer.Write(b)
}

func (s *sink) Read([]byte) (int, error) { return 0, io.EOF }

// sentByClient is what a client may send: the preface, and a request whose header takes three frames.
func sentByClient(tb testing.TB) []byte {
	tb.Helper()
	return join([]byte(http2.ClientPreface), frames(tb, func(f *http2.Framer) error {
		return errors.Join(
			f.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0}),
			f.WriteWindowUpdate(0, 1<<20),
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("block")}),
			f.WriteContinuation(1, false, nil),
			f.WriteContinuation(1, true, []byte("end of it")),
			f.WriteData(1, false, []byte(pingFrame+pingFrame)),
			f.WriteData(1, true, nil),
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: []byte("block"), EndHeaders: true, EndStream: true}),
			f.WriteRSTStream(3, http2.ErrCodeCancel),
		)
	}))
}

// pinged writes data in parts to a connection of which a ping is wanted before each, and returns what came out.
func pinged(data []byte, part func() int) (out []byte, pings uint64) {
	var written sink
	pace := newPingPace(Config{Kind: HTTP2, PingInterval: time.Hour, PingTimeout: time.Hour})
	c := observe(&written, HTTP2, pace)
	for rest := data; len(rest) > 0; {
		c.pings.wanted.Store(true)
		c.pings.sendWanted()
		n := min(max(part(), 1), len(rest))
		if wrote, err := c.Write(rest[:n]); wrote != n || err != nil {
			panic(err)
		}
		rest = rest[n:]
	}
	return written.Bytes(), pace.sent.Load()
}

// withoutPings reads frames after the preface, drops those of ours and returns the rest as bytes. It fails where a ping stands in the way:
// the framer knows what may follow what.
func withoutPings(t *testing.T, data []byte) (rest []byte, pings uint64) {
	t.Helper()
	rest, found := bytes.CutPrefix(data, []byte(http2.ClientPreface))
	if !found {
		t.Fatal("the preface is not whole")
	}
	kept := bytes.NewBufferString(http2.ClientPreface)
	reader := bytes.NewReader(rest)
	framer := http2.NewFramer(nil, reader)
	for reader.Len() > 0 {
		at := len(rest) - reader.Len()
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatalf("%x at %d: %v", data, at, err)
		}
		if _, ok := frame.(*http2.PingFrame); ok {
			pings++
		} else {
			kept.Write(rest[at : len(rest)-reader.Len()])
		}
	}
	return kept.Bytes(), pings
}

// TestPingsBetweenFrames: however writes cut the frames, pings go in between, and not within a field block.
func TestPingsBetweenFrames(t *testing.T) {
	t.Parallel()
	data := sentByClient(t)
	for cut := 1; cut <= len(data); cut++ {
		out, pings := pinged(data, func() int { return cut })
		rest, got := withoutPings(t, out)
		if !bytes.Equal(rest, data) || got != pings || pings == 0 {
			t.Errorf("in parts of %d: %d pings, want %d between the frames of\n%x, got\n%x", cut, got, pings, data, out)
		}
	}
	// Byte by byte, there is a place after the preface and after each frame but the two with more of their block to come, for the ping that
	// waited for it, and, but at the end, for the next.
	if _, pings := pinged(data, func() int { return 1 }); pings != 8+7 {
		t.Errorf("%d pings byte by byte, want 15", pings)
	}
}

// FuzzPingsBetweenFrames cuts what a client sends anywhere.
func FuzzPingsBetweenFrames(f *testing.F) {
	data := sentByClient(f)
	f.Add([]byte{24, 15, 13, 14, 9, 18})
	f.Add([]byte{1, 200})
	f.Fuzz(func(t *testing.T, cuts []byte) {
		out, pings := pinged(data, func() int {
			if len(cuts) == 0 {
				return len(data)
			}
			cut := int(cuts[0])
			cuts = cuts[1:]
			return cut
		})
		if rest, got := withoutPings(t, out); !bytes.Equal(rest, data) || got != pings {
			t.Errorf("%d pings, want %d between the frames of\n%x, got\n%x", got, pings, data, out)
		}
	})
}

// TestSlow: an interval that was complained of is doubled once, and never shortened.
func TestSlow(t *testing.T) {
	t.Parallel()
	pace := newPingPace(Config{Kind: HTTP2, PingInterval: 10 * time.Second})
	for _, step := range []struct{ complainedOf, want time.Duration }{
		{10 * time.Second, 20 * time.Second},
		{10 * time.Second, 20 * time.Second},
		{20 * time.Second, 40 * time.Second},
		{10 * time.Second, 40 * time.Second},
		{40 * time.Second, 80 * time.Second},
	} {
		pace.slow(step.complainedOf)
		if got := time.Duration(pace.interval.Load()); got != step.want {
			t.Errorf("after a complaint of %v: %v, want %v", step.complainedOf, got, step.want)
		}
	}
}

// TestNoPingAfterBrokenWrite: after a write that failed, nobody knows where a frame ends.
func TestNoPingAfterBrokenWrite(t *testing.T) {
	t.Parallel()
	written := &sink{err: io.ErrShortWrite}
	pace := newPingPace(Config{Kind: HTTP2, PingInterval: time.Hour})
	c := observe(written, HTTP2, pace)
	if _, err := c.Write([]byte(http2.ClientPreface)); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("got %v", err)
	}
	written.err = nil
	c.pings.wanted.Store(true)
	c.pings.sendWanted()
	if written.Len() > 0 || pace.sent.Load() > 0 {
		t.Errorf("wrote %x", written.Bytes())
	}
}

// FuzzSendScanner: any bytes, in any parts, tell the same as at once.
func FuzzSendScanner(f *testing.F) {
	f.Add(sentByClient(f), uint8(1))
	f.Add(sentByClient(f), uint8(30))
	f.Fuzz(func(t *testing.T, data []byte, part uint8) {
		whole, parts := newSendScanner(), newSendScanner()
		whole.scan(data)
		for rest := data; len(rest) > 0; {
			n := min(int(part)%32+1, len(rest))
			parts.scan(rest[:n])
			rest = rest[n:]
		}
		if whole != parts {
			t.Errorf("%x: at once %+v, in parts %+v", data, whole, parts)
		}
	})
}
