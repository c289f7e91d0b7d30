package main

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
)

// pemFiles are certificates and keys that the suite hands over by value, in files, which is how goplt is configured. It is for one goroutine
// at a time.
type pemFiles struct{ dir string }

func newPEMFiles() (*pemFiles, error) {
	dir, err := os.MkdirTemp("", "conformance")
	return &pemFiles{dir: dir}, err
}

// file returns the name of the file that holds content, and no name for nothing.
func (p *pemFiles) file(content []byte) (string, error) {
	if len(content) == 0 {
		return "", nil
	}
	sum := sha256.Sum256(content)
	name := filepath.Join(p.dir, hex.EncodeToString(sum[:8])+".pem")
	if _, err := os.Stat(name); err == nil {
		return name, nil
	}
	return name, os.WriteFile(name, content, 0o600)
}

func (p *pemFiles) remove() error { return os.RemoveAll(p.dir) }
