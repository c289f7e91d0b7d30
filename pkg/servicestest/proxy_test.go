package servicestest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/0x1d/goplt/pkg/servicestest"
)

// startTCP serves each connection by serve until the test ends, and returns the address.
func startTCP(t *testing.T, serve func(conn *net.TCPConn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			stop := context.AfterFunc(t.Context(), func() { conn.Close() })
			serving.Go(func() {
				defer conn.Close()
				defer stop()
				serve(conn.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		serving.Wait()
	})
	return listener.Addr().String()
}

// echo sends back each line.
func echo(conn *net.TCPConn) { _, _ = io.Copy(conn, conn) }

// lines is a client of echo.
type lines struct {
	*net.TCPConn

	in *bufio.Reader
}

func dialLines(t *testing.T, addr string) *lines {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	return &lines{conn.(*net.TCPConn), bufio.NewReader(conn)}
}

func (l *lines) send(t *testing.T, text string) {
	t.Helper()
	if _, err := l.Write([]byte(text + "\n")); err != nil {
		t.Fatal(err)
	}
}

func (l *lines) expect(t *testing.T, want string) {
	t.Helper()
	if got, err := l.in.ReadString('\n'); got != want+"\n" || err != nil {
		t.Fatalf("read %q, %v, want %q", got, err, want)
	}
}

// expectNothing checks that nothing comes for a while.
func (l *lines) expectNothing(t *testing.T) {
	t.Helper()
	l.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := l.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %d bytes, %v, want nothing", n, err)
	}
	l.SetReadDeadline(time.Now().Add(10 * time.Second))
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

func awaitThat(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(10 * time.Second); !holds(); <-ticker.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func TestProxyPassesOn(t *testing.T) {
	proxy := servicestest.StartProxy(t, startTCP(t, echo))
	client := dialLines(t, proxy.Addr)
	client.send(t, "hello")
	client.expect(t, "hello")
	awaitThat(t, "6 bytes counted in both directions", func() bool { return proxy.FromClients.Load() == 6 && proxy.FromServer.Load() == 6 })
	if accepted, open := proxy.Accepted.Load(), proxy.Open.Load(); accepted != 1 || open != 1 {
		t.Errorf("%d connections accepted, %d open, want 1 and 1", accepted, open)
	}
	// A FIN is passed on as one: the server has the end of the request, and can still answer.
	client.send(t, "last")
	client.CloseWrite()
	client.expect(t, "last")
	if _, err := client.in.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want the server's FIN", err)
	}
	awaitThat(t, "the connection to be over", func() bool { return proxy.Open.Load() == 0 && proxy.ClosedByClient.Load() == 1 })
}

func TestProxyPassesOnMuch(t *testing.T) {
	proxy := servicestest.StartProxy(t, startTCP(t, echo))
	client := dialLines(t, proxy.Addr)
	sent := strings.Repeat("0123456789abcdef", 1<<18) // 4 MiB
	var writing sync.WaitGroup
	writing.Go(func() {
		_, _ = io.WriteString(client, sent)
		client.CloseWrite()
	})
	got, err := io.ReadAll(client)
	writing.Wait()
	if err != nil || string(got) != sent {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
}

// TestProxyPassesOnResets: who is reset on one side is reset on the other, whichever side it is.
func TestProxyPassesOnResets(t *testing.T) {
	ended := make(chan error, 1)
	proxy := servicestest.StartProxy(t, startTCP(t, func(conn *net.TCPConn) {
		line, err := bufio.NewReader(conn).ReadString('\n')
		if line == "reset me\n" {
			conn.SetLinger(0)
			return
		}
		if err == nil {
			_, err = conn.Read(make([]byte, 1))
		}
		ended <- err
	}))
	byServer := dialLines(t, proxy.Addr)
	byServer.send(t, "reset me")
	if _, err := byServer.in.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client got %v, want a reset", err)
	}
	byClient := dialLines(t, proxy.Addr)
	byClient.send(t, "stay")
	awaitThat(t, "the line to be passed on", func() bool { return proxy.FromClients.Load() == int64(len("reset me\nstay\n")) })
	byClient.SetLinger(0)
	byClient.Close()
	if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the server got %v, want a reset", err)
	}
}

func TestProxyWithoutServer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	client, err := net.Dial("tcp", servicestest.StartProxy(t, listener.Addr().String()).Addr)
	if err == nil {
		_, err = client.Read(make([]byte, 1))
		client.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

func TestProxyFreeze(t *testing.T) {
	proxy := servicestest.StartProxy(t, startTCP(t, echo))
	client, leaving := dialLines(t, proxy.Addr), dialLines(t, proxy.Addr)
	client.send(t, "before")
	client.expect(t, "before")
	thaw := proxy.Freeze()
	again := proxy.Freeze()
	client.send(t, "meanwhile")
	late := dialLines(t, proxy.Addr) // is accepted
	late.send(t, "late")
	client.expectNothing(t)
	late.expectNothing(t)
	leaving.Close() // shows, although the server does not hear of it
	awaitThat(t, "the client's end to be noted", func() bool { return proxy.ClosedByClient.Load() == 1 })
	if got := proxy.Open.Load(); got != 3 {
		t.Errorf("%d connections are open, want all 3", got)
	}
	thaw()
	thaw()
	client.expectNothing(t) // for the other freeze
	again()
	client.expect(t, "meanwhile")
	late.expect(t, "late")
	awaitThat(t, "the end to be passed on", func() bool { return proxy.Open.Load() == 2 })
}

func TestProxySlowDrip(t *testing.T) {
	proxy := servicestest.StartProxy(t, startTCP(t, echo))
	client := dialLines(t, proxy.Addr)
	const every = 5 * time.Millisecond
	end := proxy.SlowDrip(1, every)
	began := time.Now()
	client.send(t, "123456789")
	client.expect(t, "123456789")
	if took := time.Since(began); took < 10*every { // each byte on both ways, which overlap
		t.Errorf("10 bytes took %v, want at least %v", took, 10*every)
	}
	hold := proxy.SlowDrip(1, time.Hour)
	client.send(t, "at last")
	client.expectNothing(t)
	end() // the slower one decides
	client.expectNothing(t)
	hold()
	client.expect(t, "at last")
}

func TestProxyRefuse(t *testing.T) {
	proxy := servicestest.StartProxy(t, startTCP(t, echo))
	client := dialLines(t, proxy.Addr)
	client.send(t, "before")
	client.expect(t, "before")
	accept := proxy.Refuse()
	if conn, err := net.Dial("tcp", proxy.Addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dialled %v, %v, want connection refused", conn, err)
	}
	client.send(t, "still there")
	client.expect(t, "still there")
	accept()
	back := dialLines(t, proxy.Addr)
	back.send(t, "back")
	back.expect(t, "back")
}

func TestProxyDropConnections(t *testing.T) {
	proxy := servicestest.StartProxy(t, startTCP(t, echo))
	first, second := dialLines(t, proxy.Addr), dialLines(t, proxy.Addr)
	awaitThat(t, "both to be accepted", func() bool { return proxy.Open.Load() == 2 })
	if got := proxy.DropConnections(); got != 2 {
		t.Errorf("%d connections dropped, want 2", got)
	}
	for _, client := range []*lines{first, second} {
		if _, err := client.in.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v, want a reset", err)
		}
	}
	if got := proxy.ClosedByClient.Load(); got != 0 {
		t.Errorf("%d connections closed by the client", got)
	}
	third := dialLines(t, proxy.Addr)
	third.send(t, "new")
	third.expect(t, "new")
}

// TestProxyBlackHole: the client's own kernel tells that nothing is acknowledged, which is what it is about.
func TestProxyBlackHole(t *testing.T) {
	proxy := servicestest.StartProxy(t, startTCP(t, echo))
	client := dialLines(t, proxy.Addr)
	client.send(t, "before")
	client.expect(t, "before")
	heal := proxy.BlackHole(t)
	client.send(t, "meanwhile")
	client.expectNothing(t)
	if got := proxy.FromClients.Load(); got != int64(len("before\n")) {
		t.Errorf("%d bytes passed on", got)
	}
	if conn, err := net.DialTimeout("tcp", proxy.Addr, 50*time.Millisecond); !isTimeout(err) {
		t.Errorf("dialled %v, %v, want no answer", conn, err)
	}
	heal()
	client.expect(t, "meanwhile") // is sent again
	back := dialLines(t, proxy.Addr)
	back.send(t, "back")
	back.expect(t, "back")
}

// TestProxyBlackHoleAndRefuse: faults end one by one, and what listens again in a black hole is in it.
func TestProxyBlackHoleAndRefuse(t *testing.T) {
	proxy := servicestest.StartProxy(t, startTCP(t, echo))
	accept, again := proxy.Refuse(), proxy.Refuse()
	heal, other := proxy.BlackHole(t), proxy.BlackHole(t)
	accept()
	if conn, err := net.Dial("tcp", proxy.Addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dialled %v, %v, want connection refused", conn, err)
	}
	again()
	for _, heals := range []func(){heal, other} {
		if conn, err := net.DialTimeout("tcp", proxy.Addr, 50*time.Millisecond); !isTimeout(err) {
			t.Errorf("dialled %v, %v, want no answer", conn, err)
		}
		heals()
	}
	client := dialLines(t, proxy.Addr)
	client.send(t, "well")
	client.expect(t, "well")
}

func TestProxyClear(t *testing.T) {
	proxy := servicestest.StartProxy(t, startTCP(t, echo))
	thaw := proxy.Freeze()
	proxy.SlowDrip(1, time.Hour)
	proxy.Refuse()
	proxy.Clear()
	thaw() // nothing more to end
	client := dialLines(t, proxy.Addr)
	client.send(t, "well")
	client.expect(t, "well")
}

func TestProxyClose(t *testing.T) {
	proxy, err := servicestest.NewProxy("http://" + startTCP(t, echo))
	if err != nil {
		t.Fatal(err)
	}
	client := dialLines(t, proxy.Addr)
	client.send(t, "held")
	proxy.Freeze()
	proxy.Refuse()
	for range 2 {
		if err := proxy.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := io.Copy(io.Discard, client); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want the end", err)
	}
	if got := proxy.Open.Load(); got != 0 {
		t.Errorf("%d connections are open", got)
	}
	if want := "http://" + proxy.Addr; proxy.URL != want {
		t.Errorf("URL %s, want %s", proxy.URL, want)
	}
}

func TestProxyUpstreamInvalid(t *testing.T) {
	for _, upstream := range []string{"", "127.0.0.1", "127.0.0.1:", ":80", "http://127.0.0.1", "ftp://127.0.0.1:21", "http://"} {
		for kind, start := range map[string]func() error{
			"proxy":   func() error { _, err := servicestest.NewProxy(upstream); return err },
			"gateway": func() error { _, err := servicestest.NewHTTPProxy(upstream); return err },
		} {
			if err := start(); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", upstream)) {
				t.Errorf("%s in front of %q: %v, want an error that names it", kind, upstream, err)
			}
		}
	}
}
