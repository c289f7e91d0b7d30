package consul_test

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/consul"
)

func refuse(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }

// saved runs a registry that sees entries and closes, with snapshots in the directory that it returns.
func saved(t *testing.T, target string, entries ...*api.ServiceEntry) (directory string, set []registry.Instance) {
	t.Helper()
	directory = t.TempDir()
	r, _ := open(t, newFakeAgent(entries...), in(directory))
	w := watch(t, r, target)
	set, err := w.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil { // at once: what is to be written is
		t.Fatal(err)
	}
	return directory, set
}

func in(directory string) func(*consul.Config) {
	return func(c *consul.Config) { c.Snapshot.Dir = directory }
}

func TestStartWhileConsulIsDown(t *testing.T) {
	for name, script := range map[string]func(*http.Request) (*http.Response, error){
		"out of reach": refuse,
		"no leader":    always(http.StatusInternalServerError, "No cluster leader"),
		"forbidden":    always(http.StatusForbidden, "ACL not found"),
		"truncated":    always(http.StatusOK, `[{"Node"`),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				directory, before := saved(t, "auth", entry("1", 80, api.HealthPassing), entry("2", 80, api.HealthWarning))
				f := newFakeAgent(entry("2", 80), entry("3", 80))
				f.answerWith(script)
				r, logged := open(t, f, in(directory))
				w := watch(t, r)
				restored, err := w.Next(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(before, restored); diff != "" {
					t.Errorf("the snapshot's set (-saved +restored):\n%s", diff)
				}
				expectError(t, w, nil)
				if status := statusOf(t, r, consul.StateSnapshot); status.Instances != 2 || status.Err == nil || !status.Answered.IsZero() {
					t.Errorf("the status is %+v", status)
				}
				untilQuiet(t, w, time.Minute)
				if got := logged.count("the instances are those of a snapshot"); got != 1 {
					t.Errorf("the snapshot is logged %d times", got)
				}
				f.answerWith(nil)
				for {
					if set, err := w.Next(t.Context()); err == nil {
						if len(set) != 2 || set[1].ID != "3" {
							t.Errorf("Consul's first answer is %v", set)
						}
						break
					}
				}
				statusOf(t, r, consul.StateOK)
			})
		})
	}
}

// Consul that comes back without its state is about to have it again.
func TestFirstAnswerIsEmptyAfterASnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		directory, _ := saved(t, "auth", entry("1", 80))
		f := newFakeAgent()
		f.answerWith(always(http.StatusForbidden, "no")) // which is no outage, and so no reason by itself
		r, _ := open(t, f, in(directory))
		w := watch(t, r)
		expect(t, w, "1")
		f.answerWith(nil)
		began := time.Now()
		for {
			set, err := w.Next(t.Context())
			if err == nil && len(set) == 0 {
				break
			}
		}
		if took := time.Since(began); took < time.Minute || took > 100*time.Second {
			t.Errorf("the empty set came after %v, want a minute", took)
		}
	})
}

// A first answer, though it is that there are none, leaves no need for a snapshot; nor is a snapshot for another question or too old.
func TestSnapshotIsNotUsed(t *testing.T) {
	for name, row := range map[string]struct {
		target string
		change func(*consul.Config)
		script func(*http.Request) (*http.Response, error)
		age    time.Duration
	}{
		"Consul answers":   {"auth", nil, nil, 0},
		"another question": {"consul:///auth?tag=blue", nil, refuse, 0},
		"another agent":    {"auth", func(c *consul.Config) { c.Address = "other:8500" }, refuse, 0},
		"too old":          {"auth", nil, refuse, 25 * time.Hour},
		"switched off":     {"auth", func(c *consul.Config) { c.Snapshot.Dir = "" }, refuse, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				directory, _ := saved(t, "auth", entry("1", 80))
				pass(row.age) // of the test's own time
				f := newFakeAgent()
				f.answerWith(row.script)
				changes := []func(*consul.Config){in(directory)}
				if row.change != nil {
					changes = append(changes, row.change)
				}
				r, _ := open(t, f, changes...)
				w := watch(t, r, row.target)
				if row.script == nil {
					expect(t, w)
				} else {
					expectError(t, w, nil)
				}
			})
		})
	}
}

// What is saved is what Consul says is well, at most once a second, and again where it does not change.
func TestWhatIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		directory := t.TempDir()
		read := func() []byte {
			t.Helper()
			files, err := os.ReadDir(directory)
			if err != nil || len(files) > 1 {
				t.Fatalf("%d files, %v", len(files), err)
			}
			if len(files) == 0 {
				return nil
			}
			content, err := os.ReadFile(directory + "/" + files[0].Name())
			if err != nil {
				t.Fatal(err)
			}
			return content
		}
		f := newFakeAgent(twoWith(api.HealthPassing)...)
		r, _ := open(t, f, in(directory))
		w := watch(t, r)
		expect(t, w, "1", "2")
		if read() != nil {
			t.Error("saved at once; want a second later")
		}
		pass(1100 * time.Millisecond) // of the test's own time, here and below
		first := read()
		if first == nil {
			t.Fatal("nothing is saved")
		}
		pass(50 * time.Minute)
		if !bytes.Equal(read(), first) {
			t.Error("saved again without need")
		}
		pass(12 * time.Minute)
		second := read()
		if bytes.Equal(second, first) {
			t.Error("a set that does not change grows old")
		}
		f.set()
		expect(t, w)
		pass(2 * time.Second)
		if !bytes.Equal(read(), second) {
			t.Error("an empty set is saved")
		}
		f.set(twoWith(api.HealthPassing)...)
		expect(t, w, "1", "2")
		f.set(twoWith(api.HealthCritical)...)
		expectHealth(t, w, "1 passing 5", "2 critical 5")
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		f.answerWith(refuse)
		again, _ := open(t, f, in(directory))
		expectHealth(t, watch(t, again), "1 passing 5") // who fails is kept for a while, and not saved
	})
}

// A snapshot of a datacenter is for when none answers.
func TestSnapshotInAChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		directory, _ := saved(t, "consul:///auth?dc=eu", entry("old", 80))
		f := datacenters()
		f.cut("eu")
		r, _ := open(t, f, in(directory))
		w := watch(t, r, chained)
		for {
			set, err := w.Next(t.Context())
			if err == nil && set[0].ID == "us-1" {
				break
			} else if err == nil {
				t.Fatalf("the set is %v", set)
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		directory, _ := saved(t, "consul:///auth?dc=us", entry("old", 80))
		f := datacenters()
		f.cut("eu", "us", "ap")
		r, _ := open(t, f, in(directory))
		w := watch(t, r, chained)
		for {
			if set, err := w.Next(t.Context()); err == nil {
				if set[0].ID != "old" {
					t.Errorf("the set is %v", set)
				}
				break
			}
		}
		f.cut("eu", "us")
		for {
			if set, err := w.Next(t.Context()); err == nil {
				if set[0].ID != "ap-1" {
					t.Errorf("the set is %v", set)
				}
				break
			}
		}
	})
}
