package servicestest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
)

// halfClosed is a connection that takes all, and notes that it was closed for writing.
type halfClosed struct {
	net.Conn

	closed bool
}

func (c *halfClosed) Write(p []byte) (int, error) { return len(p), nil }

func (c *halfClosed) CloseWrite() error {
	c.closed = true
	return nil
}

// TestKillAwaitsTheWire: a connection is closed when what is to be passed on has left, which net/http can say too early, or when nobody waits.
func TestKillAwaitsTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, test := range []struct {
			after int
			gone  bool
		}{{0, false}, {4, false}, {4, true}} {
			ctx, leave := context.WithCancel(t.Context())
			conn := new(halfClosed)
			over := &wire{Conn: conn, moved: make(chan struct{})}
			request := httptest.NewRequestWithContext(context.WithValue(ctx, wireKey{}, net.Conn(over)), http.MethodPost, "/", http.NoBody)
			request.ProtoMajor = 2
			x := &exchange{proxy: &HTTPProxy{Proxy: new(Proxy)}, w: httptest.NewRecorder(), r: request, killed: true, killAfter: test.after}
			ended := make(chan any)
			go func() {
				defer func() { ended <- recover() }()
				x.kill(&http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(make([]byte, 10)))})
			}()
			frames := http2.NewFramer(over, nil)
			openBefore := func(what string, write func() error) {
				t.Helper()
				synctest.Wait()
				if conn.closed {
					t.Errorf("after %d: closed before %s", test.after, what)
				}
				if err := write(); err != nil {
					t.Fatal(err)
				}
			}
			data := func(n int) func() error {
				return func() error { return frames.WriteData(1, false, make([]byte, n)) }
			}
			openBefore("the headers", func() error { return frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true}) })
			if test.after > 0 {
				openBefore("the body", data(3))
				if test.gone {
					leave()
				} else {
					openBefore("the body's last byte", data(1))
				}
			}
			if end, _ := (<-ended).(error); !errors.Is(end, http.ErrAbortHandler) || !conn.closed {
				t.Errorf("ended with %v, closed %t", end, conn.closed)
			}
			leave()
		}
	})
}
