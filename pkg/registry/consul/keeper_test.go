package consul_test

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/consul"
)

// tokenFile returns the path of a token file, and a function that writes it.
func tokenFile(t *testing.T, token string) (file string, rotate func(token string)) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "token")
	rotate = func(token string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rotate(token)
	return file, rotate
}

// onlyToken lets the fake agent answer to one token, and 403 to others.
func onlyToken(token string) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		if r.Header.Get("X-Consul-Token") == token {
			return nil, nil // the fake agent answers
		}
		return reply(http.StatusForbidden, "ACL not found"), nil
	}
}

// Access that is denied is logged once and asked for with backoff; once the token file holds another token, at once.
func TestUpkeepRecoversWithAnotherToken(t *testing.T) {
	for _, check := range []consul.CheckKind{consul.CheckGRPC, consul.CheckTTL, consul.CheckNone} {
		t.Run(string(check), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				file, rotate := tokenFile(t, "first")
				f := newFakeAgent()
				r, logged := open(t, f, kind(check), func(c *consul.Config) {
					c.TokenFile, c.VerifyInterval, c.Check.TTL = file, time.Minute, 3*time.Minute
				})
				register(t, r, instance())
				pass(time.Hour)
				f.answerWith(onlyToken("second"))
				f.set() // and so the agent has forgotten
				pass(time.Hour)
				if got := logged.count("cannot be kept up"); got != 1 {
					t.Errorf("an hour of denied access is logged %d times", got)
				}
				denied := f.asked("/v1/agent/")
				pass(time.Hour)
				asked := len(f.asked("/v1/agent/")) - len(denied)
				if asked > 2*2*60+2 || asked < 60 {
					t.Errorf("%d requests in another hour of denied access", asked)
				}
				rotate("second")
				pass(time.Second)
				if got := found(t, r).ID; got != "auth-1" {
					t.Errorf("a second after the rotation, found %q", got)
				}
				if got := logged.count("in order again"); got != 1 {
					t.Errorf("the recovery is logged %d times", got)
				}
			})
		})
	}
}

// The agent tells the servers of an instance with the token that registered it. After a rotation that one may be deleted, so the instance is
// registered with the new one though nothing is wrong.
func TestRotatedTokenRegistersAgain(t *testing.T) {
	for _, check := range []consul.CheckKind{consul.CheckGRPC, consul.CheckTTL, consul.CheckNone} {
		synctest.Test(t, func(t *testing.T) {
			file, rotate := tokenFile(t, "first")
			f := newFakeAgent()
			r, logged := open(t, f, kind(check), func(c *consul.Config) { c.TokenFile = file })
			registration := register(t, r, instance())
			if err := registration.Update(t.Context(), 3, nil); err != nil {
				t.Fatal(err)
			}
			pass(time.Minute)
			rotate("second")
			pass(10 * time.Second)
			sent := f.asked(registerPath)
			if len(sent) != 3 || sent[2].Header.Get("X-Consul-Token") != "second" || sent[2].body != sent[1].body {
				t.Errorf("%s: registered %d times, want a third time, as before, with the new token", check, len(sent))
			}
			pass(time.Hour)
			if got := len(f.asked(registerPath)); got != 3 {
				t.Errorf("%s: registered %d times, where the token stayed", check, got)
			}
			if got := logged.count("level="); got != 0 {
				t.Errorf("%s: logged:\n%s", check, logged.lines.String())
			}
		})
	}
}

// Another reason to fail is news.
func TestUpkeepLogsEachReasonOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent()
		r, logged := open(t, f)
		register(t, r, instance())
		for _, code := range []int{http.StatusInternalServerError, http.StatusForbidden, http.StatusBadRequest, http.StatusServiceUnavailable} {
			f.answerWith(always(code, "no"))
			pass(5 * time.Minute)
		}
		f.answerWith(nil)
		pass(5 * time.Minute)
		for text, want := range map[string]int{"cannot be kept up": 4, "level=ERROR": 2, "level=WARN": 2, "in order again": 1} {
			if got := logged.count(text); got != want {
				t.Errorf("%q is logged %d times, want %d:\n%s", text, got, want, logged.lines.String())
			}
		}
	})
}

// Hundreds of servers that were deployed at once share an agent. Neither their looks at it nor their return after its restart come at once.
func TestManyDoNotComeAtOnce(t *testing.T) {
	for _, check := range []consul.CheckKind{consul.CheckGRPC, consul.CheckTTL} {
		t.Run(string(check), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const servers = 300
				f := newFakeAgent()
				r, _ := open(t, f, kind(check))
				registrations := make([]registry.Registration, servers)
				for number := range servers {
					given := instance()
					given.ID, given.Port = fmt.Sprintf("auth-%d", number), number+1
					registrations[number] = register(t, r, given)
				}
				most := func(path string, since time.Time) (total, most int) { // in any tenth of a second
					tenths := make(map[time.Duration]int)
					for _, asked := range f.asked(path) {
						if !asked.at.Before(since) {
							total++
							tenths[asked.at.Sub(since)/(100*time.Millisecond)]++
						}
					}
					for _, count := range tenths {
						most = max(most, count)
					}
					return total, most
				}
				pass(20 * time.Second)
				began := time.Now()
				pass(20 * time.Second)
				if total, peak := most("/v1/agent/", began); peak > 30 || total < 2*servers {
					t.Errorf("%d looks at the agent in 20s, %d of them in a tenth of a second; want at most 30", total, peak)
				}
				f.answerWith(always(http.StatusInternalServerError, "down"))
				f.set()
				for _, registration := range registrations { // they lose their database at the same moment, and fail to say so
					registration.SetHealth(registry.HealthWarning, "no database")
				}
				pass(30 * time.Second)
				f.answerWith(nil)
				began = time.Now()
				pass(10 * time.Second)
				total, peak := most(registerPath, began)
				if total != servers {
					t.Errorf("%d of %d are registered again after verify_interval", total, servers)
				}
				if peak > 40 {
					t.Errorf("%d of %d register within a tenth of a second", peak, servers)
				}
				t.Logf("most in a tenth of a second: %d", peak)
			})
		})
	}
}

// The certificate and the authority of the agent rotate while an instance is registered: with the next connection.
func TestUpkeepGoesOnWithAnotherCertificate(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	old, current := newAuthority(t), newAuthority(t)
	files := consul.TLSConfig{
		CAFile: filepath.Join(directory, "ca.pem"), CertFile: filepath.Join(directory, "cert.pem"), KeyFile: filepath.Join(directory, "key.pem"),
		ServerName: "agent",
	}
	agent := newFakeAgent()
	beaten := make(chan struct{}, 1)
	agent.answerWith(func(r *http.Request) (*http.Response, error) {
		if strings.HasPrefix(r.URL.Path, beatPath) {
			select {
			case beaten <- struct{}{}:
			default:
			}
		}
		return nil, nil // the fake agent answers
	})
	var mu sync.Mutex
	issuer := old
	server := httptest.NewUnstartedServer(agent)
	server.TLS = &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			mu.Lock()
			defer mu.Unlock()
			return &tls.Config{
				Certificates: []tls.Certificate{issuer.issue(t, "agent")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: issuer.pool,
				MinVersion: tls.VersionTLS12,
			}, nil
		},
	}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	old.write(t, files)
	r := over(t, server.URL, kind(consul.CheckTTL), func(c *consul.Config) { c.TLS, c.Check.TTL = files, time.Second })
	registration := register(t, r, instance())
	<-beaten

	mu.Lock()
	issuer = current
	mu.Unlock()
	current.write(t, files)
	server.CloseClientConnections()
	for len(beaten) > 0 {
		<-beaten
	}
	<-beaten
	if err := registration.Update(t.Context(), 3, nil); err != nil {
		t.Errorf("update: %v", err)
	}
	if got := found(t, r); got.Weight != 3 || got.Health == registry.HealthCritical {
		t.Errorf("found %+v", got)
	}
}
