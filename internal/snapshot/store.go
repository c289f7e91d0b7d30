// Package snapshot keeps the last good set of instances of each watch on disk, so that a process which starts while its registry is down finds the
// instances that another run, or another process, saw last.
//
//	registry's watch ── Save(key, set) ──▶ DIR/auth-3f0a….json ──▶ Load(key) ── at the next start
//
// A snapshot is a convenience that must never hurt: what is wrong with a file costs a warning and leaves its reader without a snapshot, as if there
// were none. A set is stored and loaded whole or not at all. Any number of processes may share a directory: each file is replaced in one step by
// whoever saved last.
package snapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/0x1d/goplt/pkg/registry"
)

const (
	// maxBytes bounds a file, in writing and in reading: more than a hundred thousand instances.
	maxBytes = 32 << 20
	// abandonedAfter is the age at which a temporary file belongs to a process that was killed while it saved.
	abandonedAfter = time.Hour
	// temporary is in the names of files that are being written, and in no other.
	temporary = ".tmp-"
)

// Store is a directory of snapshots. It is safe for concurrent use, and starts nothing. A nil Store keeps nothing and finds nothing.
type Store struct {
	dir    string
	maxAge time.Duration
	logger *slog.Logger

	saving  sync.Mutex // held while saving, so that of two sets of a key the later one stays
	swept   bool       // abandoned files were removed
	failing bool       // the last Save failed, and was logged

	loading sync.Mutex        // never held while the disk is waited for
	warned  map[string]string // the last problem of each file, as logged
}

// Open returns the store in dir. It does no I/O: the directory is made, for its owner alone, by the first Save. Sets older than maxAge are not
// loaded; 0 means that they never are too old. The logger is told of files that cannot be used, and of Save's failure and recovery.
func Open(dir string, maxAge time.Duration, logger *slog.Logger) *Store {
	return &Store{dir: dir, maxAge: maxAge, logger: logger, warned: make(map[string]string)}
}

// Load returns the set that was saved last under key, and when. The set is the caller's to keep, in the order in which it was saved, and not nil; an
// empty one says that there were no instances. There is none (ok is false) if nobody saved any, or if the file is too old, from the future,
// truncated, corrupt, of another version or key, too large, or holds an instance that cannot be called. All but the first are logged, with the file
// and what is wrong with it, once for as long as they last.
func (s *Store) Load(key string) (set []registry.Instance, saved time.Time, ok bool) {
	if s == nil {
		return nil, time.Time{}, false
	}
	file := s.file(key)
	set, saved, err := s.load(file, key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, time.Time{}, false
	}
	s.loading.Lock()
	defer s.loading.Unlock()
	if err == nil {
		delete(s.warned, file)
		return set, saved, true
	}
	if problem := err.Error(); s.warned[file] != problem {
		s.warned[file] = problem
		s.logger.Warn("snapshot: a file of last good instances is ignored", "file", file, "error", err)
	}
	return nil, time.Time{}, false
}

func (s *Store) load(file, key string) (set []registry.Instance, saved time.Time, err error) {
	data, err := read(file)
	if err != nil {
		return nil, time.Time{}, err
	}
	set, saved, err = decode(data, key)
	if err != nil {
		return nil, time.Time{}, err
	}
	switch age := time.Since(saved); {
	case age < -clockSkew:
		return nil, time.Time{}, fmt.Errorf("it is from the future: saved %s", saved.Format(time.RFC3339))
	case s.maxAge > 0 && age > s.maxAge:
		return nil, time.Time{}, fmt.Errorf("it is too old: saved %s, more than %s ago", saved.Format(time.RFC3339), s.maxAge)
	}
	return set, saved, nil
}

// read returns the content of a regular file of at most [maxBytes].
func read(name string) ([]byte, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	tooLarge := fmt.Errorf("it is larger than %d MiB", maxBytes>>20)
	switch {
	case !info.Mode().IsRegular(): // to open a named pipe would hang
		return nil, errors.New("it is not a regular file")
	case info.Size() > maxBytes:
		return nil, tooLarge
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(file, maxBytes+1)) // it may grow
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	if len(data) > maxBytes {
		return nil, tooLarge
	}
	return data, nil
}

// Save makes set, which may be empty, the snapshot of key, taken now. Who sees the same set confirmed saves it again now and then, lest it become too
// old. It waits for the disk. A failure leaves the earlier snapshot as it is; it is logged when it begins, and its end too.
func (s *Store) Save(key string, set []registry.Instance) {
	if s == nil {
		return
	}
	s.saving.Lock()
	defer s.saving.Unlock()
	file := s.file(key)
	err := s.save(file, key, set)
	switch {
	case err != nil && !s.failing:
		s.logger.Warn("snapshot: the last good instances cannot be saved; trying again with each new set", "file", file, "error", err)
	case err == nil && s.failing:
		s.logger.Info("snapshot: the last good instances are saved again", "file", file)
	}
	s.failing = err != nil
}

func (s *Store) save(file, key string, set []registry.Instance) error {
	data, err := encode(key, time.Now(), set)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	s.sweep()
	return replace(file, data)
}

// replace puts data in the place of file, whole, also if the machine fails meanwhile: the name leads to the earlier content until all of the new
// one is on the disk. That the new name is, nobody waits for: the earlier content is as good.
func replace(file string, data []byte) (err error) {
	fresh, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+temporary+"*") // with mode 0600
	if err != nil {
		return err
	}
	_, err = fresh.Write(data)
	if err == nil {
		err = fresh.Sync()
	}
	if err = errors.Join(err, fresh.Close()); err == nil {
		err = os.Rename(fresh.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(fresh.Name()))
	}
	return nil
}

// sweep removes, once, what processes that were killed while they saved have left. The caller holds the mutex.
func (s *Store) sweep() {
	if s.swept {
		return
	}
	s.swept = true
	entries, _ := os.ReadDir(s.dir) // what cannot be listed stays: it is in nobody's way
	for _, entry := range entries {
		info, err := entry.Info()
		if err == nil && info.Mode().IsRegular() && strings.Contains(entry.Name(), extension+temporary) && time.Since(info.ModTime()) > abandonedAfter {
			_ = os.Remove(filepath.Join(s.dir, entry.Name()))
		}
	}
}

const extension = ".json"

// file returns the path of a key's file: what is readable of the key, for people, and a digest, which is the key's alone.
func (s *Store) file(key string) string {
	readable := strings.Map(func(char rune) rune {
		switch {
		case 'a' <= char && char <= 'z', 'A' <= char && char <= 'Z', '0' <= char && char <= '9', char == '-', char == '_', char == '.':
			return char
		default:
			return '-'
		}
	}, key)
	const enough = 60
	readable = strings.TrimLeft(readable[:min(len(readable), enough)], "-.")
	digest := sha256.Sum256([]byte(key))
	return filepath.Join(s.dir, readable+"-"+hex.EncodeToString(digest[:16])+extension)
}
