package snapshot_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/0x1d/goplt/internal/snapshot"
	"github.com/0x1d/goplt/pkg/registry"
)

const (
	key   = "consul:///auth?dc=eu&tag=blue"
	other = "consul:///audit"
)

// journal keeps what is logged.
type journal struct {
	mu    sync.Mutex
	lines bytes.Buffer
}

func (j *journal) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lines.Write(line)
}

// take returns the lines since the last call.
func (j *journal) take() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	lines := strings.FieldsFunc(j.lines.String(), func(char rune) bool { return char == '\n' })
	j.lines.Reset()
	return lines
}

func open(dir string, maxAge time.Duration) (*snapshot.Store, *journal) {
	logged := new(journal)
	return snapshot.Open(dir, maxAge, slog.New(slog.NewTextHandler(logged, nil))), logged
}

// full returns a set with every field in use.
func full() []registry.Instance {
	return []registry.Instance{
		{
			ID: "auth-1", Service: "auth", Host: "10.0.0.1", Port: 1, Weight: registry.MaxWeight, Zone: "eu-1a", Health: registry.HealthPassing,
			Tags: []string{"blue", "<&>"}, Metadata: map[string]string{"protocol": "http", "ü": "\u2028"}, Revision: 1<<64 - 1,
		},
		{ID: "auth 2@node", Service: "auth", Host: "fe80::1%eth0", Port: 65535, Health: registry.HealthWarning},
	}
}

// theFile returns the path of the only file in dir.
func theFile(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("files: %v, %v; want one", entries, err)
	}
	return filepath.Join(dir, entries[0].Name())
}

// pass lets synthetic time pass.
func pass(d time.Duration) { <-time.NewTimer(d).C }

func write(t *testing.T, file string, content []byte) {
	t.Helper()
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLoadReturnsWhatWasSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "cache", "goplt")
		before, _ := open(dir, time.Hour)
		if _, err := os.Stat(dir); err == nil {
			t.Error("Open did I/O")
		}
		if set, _, ok := before.Load(key); ok {
			t.Errorf("found %v where nothing was saved", set)
		}
		before.Save(other, full()[:1])
		before.Save(key, full()[:1])
		began := time.Now()
		before.Save(key, full())
		pass(time.Hour)

		after, logged := open(dir, time.Hour)
		for range 2 {
			set, saved, ok := after.Load(key)
			if diff := cmp.Diff(full(), set); !ok || diff != "" || !saved.Equal(began) {
				t.Errorf("Load: %t, saved %v, want %v; (-want +got):\n%s", ok, saved, began, diff)
			}
			set[0].Tags[0], set[0].Metadata["protocol"] = "changed", "changed"
		}
		after.Save(key, nil)
		if set, _, ok := after.Load(key); !ok || set == nil || len(set) != 0 {
			t.Errorf("an empty set is loaded as %#v, %t", set, ok)
		}
		if set, _, ok := after.Load(other); !ok || len(set) != 1 {
			t.Errorf("the set of another key is %v, %t", set, ok)
		}
		pass(time.Nanosecond)
		if set, _, ok := after.Load(other); ok {
			t.Errorf("found %v, which is too old", set)
		}
		if lines := logged.take(); len(lines) != 1 || !strings.Contains(lines[0], "too old") {
			t.Errorf("logged %q", lines)
		}
		forever, _ := open(dir, 0)
		if _, _, ok := forever.Load(other); !ok {
			t.Error("too old, without a maximum age")
		}
	})
}

func TestFilesAreTheirOwnersAlone(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "goplt")
	store, _ := open(dir, 0)
	store.Save(key, full())
	file := theFile(t, dir)
	for path, want := range map[string]os.FileMode{dir: os.ModeDir | 0o700, file: 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want mode %v", path, info.Mode(), err, want)
		}
	}
	if name := filepath.Base(file); !regexp.MustCompile(`^consul----auth-dc-eu-tag-blue-[0-9a-f]{32}\.json$`).MatchString(name) {
		t.Errorf("the file is named %s", name)
	}
}

// Whatever the key is, it names a file in the directory, and one of its own.
func TestNamesOfFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store, logged := open(dir, 0)
	keys := []string{"", ".", "..", "../x", "/etc/passwd", "a\x00b", "a\xffb", "ä", "A", "a", "CON", strings.Repeat("long", 200), strings.Repeat("long", 200) + "er"}
	for at, key := range keys {
		set := full()[:1]
		set[0].Port = at + 1
		store.Save(key, set)
	}
	for at, key := range keys {
		if set, _, ok := store.Load(key); !ok || set[0].Port != at+1 {
			t.Errorf("key %q: %v, %t", key, set, ok)
		}
	}
	if lines := logged.take(); len(lines) != 0 {
		t.Errorf("logged %q", lines)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != len(keys) {
		t.Errorf("%d files, want %d; %v", len(entries), len(keys), err)
	}
}

func TestWhatCannotBeUsedIsIgnoredWithOneWarning(t *testing.T) {
	t.Parallel()
	good := func(t *testing.T) (content []byte) {
		t.Helper()
		dir := t.TempDir()
		store, _ := open(dir, 0)
		store.Save(key, full())
		content, err := os.ReadFile(theFile(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		return content
	}(t)
	for want, content := range map[string][]byte{
		"truncated or corrupt: unexpected end": good[:len(good)-1],
		"truncated or corrupt: invalid":        append(slices.Clone(good), '}'),
		"does not have the digest":             bytes.Replace(good, []byte("65535"), []byte("65534"), 1),
		"of version":                           bytes.Replace(good, []byte(`"version":1`), []byte(`"version":2`), 1),
		"larger than 32 MiB":                   append(slices.Clone(good), bytes.Repeat([]byte(" "), 32<<20)...),
		"truncated or corrupt":                 nil,
	} {
		dir := t.TempDir()
		store, logged := open(dir, 0)
		store.Save(key, full())
		file := theFile(t, dir)
		write(t, file, content)
		for range 2 {
			if set, saved, ok := store.Load(key); ok || set != nil || !saved.IsZero() {
				t.Errorf("%s: loaded %v, %v, %t", want, set, saved, ok)
			}
		}
		lines := logged.take()
		if len(lines) != 1 || !strings.Contains(lines[0], want) || !strings.Contains(lines[0], file) || !strings.Contains(lines[0], "level=WARN") {
			t.Errorf("logged %q, want one warning that says %q of %s", lines, want, file)
		}
		store.Save(key, full())
		if _, _, ok := store.Load(key); !ok {
			t.Errorf("%s: not mended by the next Save", want)
		}
		write(t, file, content)
		store.Load(key)
		if lines := logged.take(); len(lines) != 1 {
			t.Errorf("%s, a second time after it was well: logged %q", want, lines)
		}
	}
}

// Each byte of a file that is lost, and each that changes, is noticed.
func TestTruncatedOrChangedAnywhere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store, _ := open(dir, 0)
	store.Save(key, full())
	file := theFile(t, dir)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for at := range good {
		changed := slices.Clone(good)
		changed[at] ^= 0x01
		for what, content := range map[string][]byte{"cut off": good[:at], "changed": changed} {
			write(t, file, content)
			if set, _, ok := store.Load(key); ok {
				if what == "changed" && cmp.Equal(set, full()) {
					continue // the name of a key in another case, say
				}
				t.Errorf("%s at byte %d, still loaded: %v", what, at, set)
			}
		}
	}
}

func TestLoadRefusesAnotherKeysFileAndWhatIsNoFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store, logged := open(dir, 0)
	store.Save(key, full())
	file := theFile(t, dir)
	expect := func(want string) {
		t.Helper()
		if _, _, ok := store.Load(key); ok {
			t.Errorf("loaded; want %q", want)
		}
		if lines := logged.take(); len(lines) != 1 || !strings.Contains(lines[0], want) {
			t.Errorf("logged %q, want %q", lines, want)
		}
	}
	elsewhere, _ := open(t.TempDir(), 0)
	elsewhere.Save(other, full())
	stranger, _ := open(dir, 0)
	stranger.Save(other, full())
	entries, err := filepath.Glob(filepath.Join(dir, "consul----audit-*"))
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
	if err := os.Rename(entries[0], file); err != nil {
		t.Fatal(err)
	}
	expect("not of")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(file, 0o700); err != nil {
		t.Fatal(err)
	}
	expect("not a regular file")
}

func TestFromTheFuture(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store, _ := open(dir, 0)
	store.Save(key, full()) // by the machine's clock
	for ahead, want := range map[time.Duration]bool{time.Minute: true, time.Minute + time.Second: false} {
		synctest.Test(t, func(t *testing.T) { // where it is the year 2000
			later, logged := open(dir, 0)
			if _, _, ok := later.Load(key); ok {
				t.Error("loaded what is decades ahead")
			}
			if lines := logged.take(); len(lines) != 1 || !strings.Contains(lines[0], "from the future") {
				t.Errorf("logged %q", lines)
			}
		})
		near := t.TempDir()
		synctest.Test(t, func(*testing.T) {
			pass(ahead)
			ahead, _ := open(near, 0)
			ahead.Save(key, full())
		})
		synctest.Test(t, func(t *testing.T) {
			behind, _ := open(near, time.Hour)
			if _, _, ok := behind.Load(key); ok != want {
				t.Errorf("saved %v ahead: loaded %t, want %t", ahead, ok, want)
			}
		})
	}
}

// What Load would refuse is not saved, and what was saved before stays.
func TestSaveRefusesWhatCannotBeCalled(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(set []registry.Instance){
		"no ID":           func(set []registry.Instance) { set[1].ID = "" },
		"another one has": func(set []registry.Instance) { set[1].ID = set[0].ID },
		"no service":      func(set []registry.Instance) { set[1].Service = "" },
		"port":            func(set []registry.Instance) { set[1].Port = 0 },
		"host":            func(set []registry.Instance) { set[1].Host = "a b" },
		"weight 65536":    func(set []registry.Instance) { set[1].Weight = 65536 },
		"weight -1":       func(set []registry.Instance) { set[1].Weight = -1 },
		"health":          func(set []registry.Instance) { set[1].Health = "well" },
	} {
		store, logged := open(t.TempDir(), 0)
		store.Save(key, full())
		wrong := full()
		change(wrong)
		store.Save(key, wrong)
		if lines := logged.take(); len(lines) != 1 || !strings.Contains(lines[0], want) {
			t.Errorf("logged %q, want %q", lines, want)
		}
		if set, _, ok := store.Load(key); !ok || !cmp.Equal(set, full()) {
			t.Errorf("%s: what was saved before is now %v, %t", want, set, ok)
		}
	}
}

func TestSaveLogsChangesOfState(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	dir := filepath.Join(parent, "snapshots")
	write(t, dir, nil) // a file where the directory is to be
	store, logged := open(dir, 0)
	for _, step := range []struct {
		does func()
		want string
	}{
		{func() {}, "cannot be saved"},
		{func() {}, ""},
		{func() { _ = os.Remove(dir) }, "saved again"},
		{func() {}, ""},
		{func() { _ = os.RemoveAll(dir); write(t, dir, nil) }, "cannot be saved"},
	} {
		step.does()
		store.Save(key, full())
		lines := logged.take()
		if step.want == "" && len(lines) > 0 || step.want != "" && (len(lines) != 1 || !strings.Contains(lines[0], step.want)) {
			t.Errorf("logged %q, want %q", lines, step.want)
		}
	}
}

// Stores share nothing but the directory, as processes do.
func TestManyShareADirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const stores, rounds = 4, 25
	var group sync.WaitGroup
	for number := range stores {
		store, logged := open(dir, 0)
		group.Go(func() {
			// Each set is told by its size, and its instances say it too.
			set := make([]registry.Instance, 1+number*100)
			for at := range set {
				set[at] = full()[0]
				set[at].ID, set[at].Port = fmt.Sprint(at), len(set)
			}
			for range rounds {
				store.Save(key, set)
				loaded, _, ok := store.Load(key)
				if !ok || len(loaded) == 0 || loaded[len(loaded)-1].Port != len(loaded) {
					t.Errorf("loaded %d instances, %t", len(loaded), ok)
				}
			}
			if lines := logged.take(); len(lines) != 0 {
				t.Errorf("logged %q", lines)
			}
		})
	}
	group.Wait()
	theFile(t, dir) // nothing temporary is left
}

func TestAbandonedFilesAreRemoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	earlier := time.Now().Add(-2 * time.Hour)
	for name, when := range map[string]time.Time{"auth-1.json.tmp-1": earlier, "auth-1.json.tmp-2": time.Now(), "theirs.txt": earlier} {
		write(t, filepath.Join(dir, name), nil)
		if err := os.Chtimes(filepath.Join(dir, name), when, when); err != nil {
			t.Fatal(err)
		}
	}
	store, _ := open(dir, 0)
	store.Save("k", full())
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), "k-") {
			names = append(names, entry.Name())
		}
	}
	if want := []string{"auth-1.json.tmp-2", "theirs.txt"}; !slices.Equal(names, want) {
		t.Errorf("left are %v, want %v", names, want)
	}
}

func TestNilStore(t *testing.T) {
	t.Parallel()
	var store *snapshot.Store
	store.Save(key, full())
	if set, _, ok := store.Load(key); ok {
		t.Errorf("loaded %v", set)
	}
}
