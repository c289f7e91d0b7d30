package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/pkg/rpc"
)

// shedding is a server in a bubble of fake time, that sheds load, called without a network.
type shedding struct {
	*rpc.Server

	t   *testing.T
	log lines
}

// lines is a log, one line after the other, without times.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newShedding(t *testing.T, handlers *connect.Server, adjust func(*rpc.ServerConfig)) *shedding {
	t.Helper()
	s := &shedding{t: t}
	config := rpc.DefaultServerConfig()
	config.Shedding.Enabled = true
	if adjust != nil {
		adjust(&config)
	}
	logger := slog.New(slog.NewTextHandler(&s.log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, attr slog.Attr) slog.Attr {
		if attr.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return attr
	}}))
	server, err := rpc.NewServer(handlers, rpc.WithServerConfig(config), rpc.WithServerLogger(logger))
	if err != nil {
		t.Fatal(err)
	}
	s.Server = server
	return s
}

// call makes a call by Connect/JSON that has the time allowed, if any, and returns the status and the body of the answer.
func (s *shedding) call(ctx context.Context, spec connect.Spec, allowed time.Duration, body io.Reader) string {
	request := httptest.NewRequestWithContext(ctx, http.MethodPost, spec.Procedure, body)
	request.ProtoMajor = 2
	request.Header.Set("Content-Type", "application/json")
	if allowed > 0 {
		request.Header.Set("Connect-Timeout-Ms", fmt.Sprint(allowed.Milliseconds()))
	}
	recorder := httptest.NewRecorder()
	s.Handler().ServeHTTP(recorder, request)
	return fmt.Sprint(recorder.Code, " ", recorder.Body.String())
}

// each makes so many calls at a time and waits for all.
func (s *shedding) each(calls int, call func()) {
	var all sync.WaitGroup
	for range calls {
		all.Go(call)
	}
	all.Wait()
}

// TestServerSheddingEvidence: what has a server shed load is calls that run out of their time in its hands, and nothing else.
func TestServerSheddingEvidence(t *testing.T) {
	t.Parallel()
	hang := func(s *shedding, ctx context.Context, allowed time.Duration) {
		s.call(ctx, specHang, allowed, strings.NewReader(`"x"`))
	}
	for _, row := range []struct {
		name string
		call func(*shedding)
		want bool
	}{
		{"the caller's deadline", func(s *shedding) { hang(s, s.t.Context(), time.Second) }, true},
		{"request_timeout", func(s *shedding) { hang(s, s.t.Context(), 0) }, true},
		{"an answer after the deadline", func(s *shedding) { s.call(s.t.Context(), specHang, time.Second, strings.NewReader(`"deaf"`)) }, true},
		{"a caller that lets go at its deadline", func(s *shedding) {
			ctx, cancel := context.WithTimeout(s.t.Context(), 9*time.Second)
			defer cancel()
			withoutDeadline, giveUp := context.WithCancel(s.t.Context())
			defer giveUp()
			context.AfterFunc(ctx, giveUp)
			hang(s, withoutDeadline, 10*time.Second)
		}, true},
		{"a caller that gives up", func(s *shedding) {
			ctx, cancel := context.WithCancel(s.t.Context())
			time.AfterFunc(8*time.Second, cancel)
			hang(s, ctx, 10*time.Second)
		}, false},
		{"errors", func(s *shedding) { s.call(s.t.Context(), specFail, time.Second, strings.NewReader(`"plain"`)) }, false},
		{"panics", func(s *shedding) { s.call(s.t.Context(), specPanic, time.Second, strings.NewReader(`"luck"`)) }, false},
		{"messages that come late", func(s *shedding) {
			body, slow := io.Pipe()
			time.AfterFunc(2*time.Second, func() {
				_, _ = io.WriteString(slow, `"x"`)
				_ = slow.Close()
			})
			s.call(s.t.Context(), specEcho, time.Second, body)
		}, false},
		{"calls out of time on arrival", func(s *shedding) {
			ctx, cancel := context.WithDeadline(s.t.Context(), time.Now())
			defer cancel()
			hang(s, ctx, 0)
		}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				words, handlers := newWords()
				words.entered, words.left = make(chan string, 100), make(chan error, 100)
				time.AfterFunc(5*time.Second, func() { // for those that do not look at their deadline
					if strings.HasPrefix(row.name, "an answer") {
						close(words.release)
					}
				})
				s := newShedding(t, handlers, nil)
				s.each(50, func() { row.call(s) })
				if got := s.Status(); got.InFlight != 0 || got.Limit > 0 != row.want {
					t.Errorf("status %+v, want a limit: %t", got, row.want)
				}
			})
		})
	}
}

// TestServerSheddingConfig: each key, other than at its default, decides.
func TestServerSheddingConfig(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name           string
		set            func(*rpc.SheddingConfig)
		inTime, late   int
		pause          time.Duration // before as many are late again
		again          int
		after          time.Duration
		want, byItself bool // whether there is a limit, and whether there would be by the default
	}{
		{"failure_rate above", func(c *rpc.SheddingConfig) { c.FailureRate = 0.5 }, 60, 40, 0, 0, 0, false, true},
		{"failure_rate below", func(c *rpc.SheddingConfig) { c.FailureRate = 0.02 }, 95, 5, 0, 0, 0, true, false},
		{"min_calls above", func(c *rpc.SheddingConfig) { c.MinCalls = 100 }, 0, 50, 0, 0, 0, false, true},
		{"min_calls below", func(c *rpc.SheddingConfig) { c.MinCalls = 5 }, 0, 10, 0, 0, 0, true, false},
		{"window longer", func(c *rpc.SheddingConfig) { c.Window = time.Minute }, 0, 12, 30 * time.Second, 12, 0, true, false},
		{"window shorter", func(c *rpc.SheddingConfig) { c.Window = time.Second }, 0, 12, 5 * time.Second, 12, 0, false, true},
		{"window longer, at the end", func(c *rpc.SheddingConfig) { c.Window = time.Minute }, 0, 50, 0, 0, 30 * time.Second, true, false},
		{"window shorter, at the end", func(c *rpc.SheddingConfig) { c.Window = time.Second }, 0, 50, 0, 0, 5 * time.Second, false, true},
	} {
		for _, byDefault := range []bool{false, true} {
			t.Run(fmt.Sprint(row.name, ", default ", byDefault), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					words, handlers := newWords()
					words.entered, words.left = make(chan string, 1000), make(chan error, 1000)
					want := row.byItself
					s := newShedding(t, handlers, func(config *rpc.ServerConfig) {
						if !byDefault {
							want = row.want
							row.set(&config.Shedding)
						}
					})
					late := func() { s.call(t.Context(), specHang, time.Second, strings.NewReader(`"x"`)) }
					s.each(row.inTime, func() { s.call(t.Context(), specEcho, time.Second, strings.NewReader(`"x"`)) })
					s.each(row.late, late)
					<-time.NewTimer(row.pause).C
					s.each(row.again, late)
					<-time.NewTimer(row.after).C
					if got := s.Status(); got.Limit > 0 != want {
						t.Errorf("status %+v, want a limit: %t", got, want)
					}
				})
			})
		}
	}
}

// TestServerShedsUnknownMethods: of a known service, they are the caller's to serve, and count.
func TestServerShedsUnknownMethods(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		words, handlers := newWords()
		s := newShedding(t, handlers, func(config *rpc.ServerConfig) { config.MaxConcurrentCalls = 1 })
		unknown := connect.Spec{Procedure: "/test.v1.Words/Unheard"}
		if got := s.call(t.Context(), unknown, 0, strings.NewReader("{}")); !strings.Contains(got, `"unimplemented"`) {
			t.Errorf("got %s, want it unimplemented", got)
		}
		var busy sync.WaitGroup
		busy.Go(func() { s.call(t.Context(), specHang, 0, strings.NewReader(`"x"`)) })
		<-words.entered
		if got := s.call(t.Context(), unknown, 0, strings.NewReader("{}")); !strings.Contains(got, `"resource_exhausted"`) {
			t.Errorf("with as many calls as there may be: got %s, want it rejected", got)
		}
		close(words.release)
		busy.Wait()
	})
}

// TestServerSheds: a call beyond the limit is rejected, health is not, streams are not; and when the load is less, all are served. The log says
// when it begins and when it ends.
func TestServerSheds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		words, handlers := newWords()
		words.entered, words.left = make(chan string, 1000), make(chan error, 1000)
		s := newShedding(t, handlers, nil)
		s.each(50, func() { s.call(t.Context(), specHang, time.Second, strings.NewReader(`"x"`)) })
		limit := s.Status().Limit
		if limit == 0 {
			t.Fatal("no limit after 50 calls out of time")
		}
		if got := s.log.String(); got != "" {
			t.Errorf("logged before a call was rejected: %s", got)
		}
		var busy sync.WaitGroup
		for range limit {
			busy.Go(func() {
				if got := s.call(t.Context(), specHang, 5*time.Second, strings.NewReader(`"x"`)); got != `200 "x"` {
					t.Errorf("a call within the limit: got %s", got)
				}
			})
		}
		synctest.Wait()
		want := `429 {"code":"resource_exhausted","message":"the server sheds load: it has more calls than it can serve before their deadlines",`
		for range 3 {
			if got := s.call(t.Context(), specEcho, time.Second, strings.NewReader(`"x"`)); !strings.HasPrefix(got, want) {
				t.Errorf("a call beyond the limit: got %s\nwant %s", got, want)
			}
		}
		if got := s.call(t.Context(), connect.Spec{Procedure: "/grpc.health.v1.Health/Check"}, 0, strings.NewReader("{}")); got != `200 {"status":"SERVING"}` {
			t.Errorf("health: got %s", got)
		}
		if got := s.call(t.Context(), specStay, time.Second, strings.NewReader("")); strings.Contains(got, "sheds") {
			t.Errorf("a stream: got %s", got)
		}
		if got := s.Status(); !got.Shedding || got.Rejected != 3 || got.InFlight != int64(limit) || got.Limit != limit {
			t.Errorf("status %+v, want %d in flight and 3 rejected", got, limit)
		}
		close(words.release)
		busy.Wait()
		if got := s.call(t.Context(), specEcho, time.Second, strings.NewReader(`"x"`)); got != `200 "x"` {
			t.Errorf("a call once others have ended: got %s", got)
		}
		<-time.NewTimer(10*time.Second + 1).C
		synctest.Wait()
		if got := s.Status(); got.Shedding || got.Limit != 0 {
			t.Errorf("status %+v, 10s after the last rejection", got)
		}
		wantLog := `level=WARN msg="rpc: the server sheds load" because="it has more calls than it can serve before their deadlines"
level=INFO msg="rpc: the server sheds load no more" rejected=3 for=0s
`
		if got := s.log.String(); got != wantLog {
			t.Errorf("logged\n%swant\n%s", got, wantLog)
		}
	})
}

// TestServerSheddingNews: one line when it begins and one when it ends, however often calls are rejected in between.
func TestServerSheddingNews(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		words, handlers := newWords()
		s := newShedding(t, handlers, func(config *rpc.ServerConfig) {
			config.MaxConcurrentCalls, config.Shedding.Enabled, config.RequestTimeout = 1, false, 0
		})
		for range 2 {
			ctx, cancel := context.WithCancel(t.Context())
			var hanging sync.WaitGroup
			hanging.Go(func() { s.call(ctx, specHang, 0, strings.NewReader(`"x"`)) })
			<-words.entered
			for range 30 {
				<-time.NewTimer(9 * time.Second).C
				for range 10 {
					if got := s.call(t.Context(), specEcho, 0, strings.NewReader(`"x"`)); !strings.HasPrefix(got, "429 ") {
						t.Fatalf("got %s, want it rejected", got)
					}
				}
			}
			cancel()
			hanging.Wait()
			<-time.NewTimer(time.Minute).C
		}
		episode := regexp.MustCompile(`^(level=WARN msg="rpc: the server sheds load" because="max_concurrent_calls is 1, and so many are in flight"
level=INFO msg="rpc: the server sheds load no more" rejected=300 for=4m21s
){2}$`) // from the first rejection to the last
		if got := s.log.String(); !episode.MatchString(got) {
			t.Errorf("logged\n%s", got)
		}
		if got := s.Status(); got.Rejected != 600 || got.Shedding {
			t.Errorf("status %+v, want 600 rejected", got)
		}
	})
}

// TestServerGoodput: through all of the server's layers, an overloaded server answers as many calls in time as it has room for.
func TestServerGoodput(t *testing.T) {
	t.Parallel()
	for _, enabled := range []bool{false, true} {
		t.Run(fmt.Sprint("shedding ", enabled), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				workers := make(chan struct{}, 4) // which do 40 calls a second
				handlers := connect.NewServer()
				handlers.Register(unary(specEcho, func(ctx context.Context, text string) (string, error) {
					select {
					case workers <- struct{}{}:
					case <-ctx.Done():
						return "", ctx.Err()
					}
					<-time.NewTimer(100 * time.Millisecond).C
					<-workers
					return text, errors.Join(ctx.Err())
				}))
				s := newShedding(t, handlers, func(config *rpc.ServerConfig) { config.Shedding.Enabled = enabled })
				var all sync.WaitGroup
				var mu sync.Mutex
				served := 0
				for at := range 3000 { // 100 a second, of which those of the last 20 seconds are counted
					all.Go(func() {
						if got := s.call(t.Context(), specEcho, 2*time.Second, strings.NewReader(`"x"`)); got == `200 "x"` && at >= 1000 {
							mu.Lock()
							defer mu.Unlock()
							served++
						}
					})
					<-time.NewTimer(10 * time.Millisecond).C
				}
				all.Wait()
				if enabled && served < 700 || !enabled && served > 100 {
					t.Errorf("%d calls answered in time, of the 800 that can be", served)
				}
				t.Logf("%d of 800", served)
			})
		})
	}
}

// TestServerSheddingInterceptors: the time that interceptors take is the server's, with the message unread, and where little is left for the
// handler.
func TestServerSheddingInterceptors(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name                         string
		take, allowed, message, left time.Duration
		want                         bool
	}{
		{"all of the time", time.Second, time.Second, 0, 0, true},
		{"more than that", 2 * time.Second, time.Second, 0, 0, true},
		{"all but little of it", 990 * time.Millisecond, time.Second, 0, 0, true},
		{"until the caller lets go", 950 * time.Millisecond, time.Second, time.Minute, 955 * time.Millisecond, true},
		{"a part, and the message comes late", 900 * time.Millisecond, time.Second, 2 * time.Second, 0, false},
		{"a part, and the caller gives up", 500 * time.Millisecond, time.Second, 0, 600 * time.Millisecond, false},
		{"little", time.Millisecond, 10 * time.Second, 0, 0, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				taken := time.Millisecond
				handlers := connect.NewServer(func(next connect.ServerFunc) connect.ServerFunc {
					return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
						<-time.NewTimer(taken).C
						return next(ctx, spec, stream)
					}
				})
				handlers.Register(unary(specEcho, func(ctx context.Context, text string) (string, error) {
					<-time.NewTimer(100 * time.Millisecond).C
					return text, ctx.Err()
				}))
				s := newShedding(t, handlers, nil)
				call := func(allowed, message, left time.Duration) string {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					if left > 0 {
						defer time.AfterFunc(left, cancel).Stop()
					}
					body, slow := io.Pipe()
					defer time.AfterFunc(message, func() {
						_, _ = io.WriteString(slow, `"x"`)
						_ = slow.Close()
					}).Stop()
					defer context.AfterFunc(ctx, func() { _ = slow.CloseWithError(context.Canceled) })()
					return s.call(ctx, specEcho, allowed, body)
				}
				if got := call(time.Minute, 0, 0); got != `200 "x"` { // how long the method takes is known from then on
					t.Fatalf("a patient call: got %s", got)
				}
				taken = row.take
				s.each(50, func() { call(row.allowed, row.message, row.left) })
				if got := s.Status(); got.InFlight != 0 || got.Limit > 0 != row.want {
					t.Errorf("status %+v, want a limit: %t", got, row.want)
				}
			})
		})
	}
}

// TestServerSheddingImpatience: calls with less time than their method takes have no others rejected. They are of the method, not of the server.
func TestServerSheddingImpatience(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		handlers := connect.NewServer()
		for spec, takes := range map[connect.Spec]time.Duration{specEcho: time.Millisecond, specRead: 20 * time.Millisecond} {
			handlers.Register(unary(spec, func(ctx context.Context, text string) (string, error) {
				if text == "bad" {
					return "", connect.NewError(connect.CodeInvalidArgument, "bad")
				}
				<-time.NewTimer(takes).C
				return text, ctx.Err()
			}))
		}
		s := newShedding(t, handlers, nil)
		var all sync.WaitGroup
		offer := func(calls int, spec connect.Spec, allowed time.Duration, want string) {
			for range calls {
				all.Go(func() {
					if got := s.call(t.Context(), spec, allowed, strings.NewReader(`"x"`)); !strings.HasPrefix(got, want) {
						t.Errorf("%s within %s: got %s, want %s", spec.Procedure, allowed, got, want)
					}
				})
			}
		}
		offer(1, specRead, time.Second, "200 ")
		s.call(t.Context(), specRead, time.Second, strings.NewReader(`"bad"`)) // which says not how fast it can be
		for range 50 {
			<-time.NewTimer(100 * time.Millisecond).C
			offer(50, specEcho, time.Second, "200 ")
			offer(10, specRead, time.Second, "200 ")
			offer(30, specRead, 5*time.Millisecond, "504 ")
			for range 20 { // of whose time most is over when the message is there
				all.Go(func() {
					body, slow := io.Pipe()
					time.AfterFunc(50*time.Millisecond, func() {
						_, _ = io.WriteString(slow, `"x"`)
						_ = slow.Close()
					})
					if got := s.call(t.Context(), specRead, 55*time.Millisecond, body); !strings.HasPrefix(got, "504 ") {
						t.Errorf("got %s, want it out of time", got)
					}
				})
			}
		}
		all.Wait()
		if got := s.Status(); got.Rejected > 0 || got.Limit > 0 {
			t.Errorf("status %+v, want nothing rejected", got)
		}
	})
}

// TestServerSheddingFarDeadline: a timeout that gRPC allows, of 292 years, is none that a server falls over.
func TestServerSheddingFarDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, handlers := newWords()
		s := newShedding(t, handlers, func(config *rpc.ServerConfig) { config.RequestTimeout = 0 })
		<-time.NewTimer(time.Hour).C
		request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, specEcho.Procedure, strings.NewReader("\x00\x00\x00\x00\x03\x0a\x01x"))
		request.ProtoMajor = 2
		request.Header.Set("Content-Type", "application/grpc")
		request.Header.Set("Grpc-Timeout", "2562047H")
		recorder := httptest.NewRecorder()
		s.Handler().ServeHTTP(recorder, request)
		if got := recorder.Result().Trailer.Get("Grpc-Status"); got != "0" {
			t.Errorf("grpc-status %q, want 0; logged %s", got, s.log.String())
		}
	})
}
