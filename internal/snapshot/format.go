package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/0x1d/goplt/pkg/registry"
)

const (
	// version is that of the format. It changes with every change of [body] that an earlier program would misread.
	version = 1
	// clockSkew is how far a set may seem to be from the future: its clock may be another machine's, and clocks are set back.
	clockSkew = time.Minute
)

// envelope is the content of a file. Whatever the version, it has the version.
type envelope struct {
	Version int `json:"version"`
	// SHA256 is the digest of Body as it stands in the file, in hexadecimal: a disk's error may leave valid JSON with another port in it.
	SHA256 string          `json:"sha256"`
	Body   json.RawMessage `json:"body"`
}

// body is what a snapshot says.
type body struct {
	Key   string     `json:"key"`
	Saved time.Time  `json:"saved"`
	Set   []instance `json:"set"`
}

// instance is a [registry.Instance] as it is stored. The two convert into each other only while they have the same fields: a field that is added
// there cannot be forgotten here.
type instance struct {
	ID       string            `json:"id"`
	Service  string            `json:"service"`
	Host     string            `json:"host"`
	Port     int               `json:"port"`
	Weight   int               `json:"weight"`
	Zone     string            `json:"zone,omitempty"`
	Health   registry.Health   `json:"health,omitempty"`
	Tags     []string          `json:"tags,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Revision uint64            `json:"revision,omitempty"`
}

// encode returns the content of a file that [decode] takes.
func encode(key string, saved time.Time, set []registry.Instance) ([]byte, error) {
	if err := check(set); err != nil {
		return nil, err
	}
	stored := make([]instance, len(set))
	for at := range set {
		stored[at] = instance(set[at])
	}
	inner, err := json.Marshal(body{Key: key, Saved: saved.UTC(), Set: stored})
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(inner)
	data, err := json.Marshal(envelope{Version: version, SHA256: hex.EncodeToString(digest[:]), Body: inner})
	if err == nil && len(data) > maxBytes {
		err = fmt.Errorf("%d instances take more than %d MiB", len(set), maxBytes>>20)
	}
	return data, err
}

// decode returns what the content of a file says of key. Whatever the content, it does not panic, and a set that it returns is one that [check]
// takes.
func decode(data []byte, key string) (set []registry.Instance, saved time.Time, err error) {
	var outer struct {
		Version json.RawMessage `json:"version"`
	}
	if err := json.Unmarshal(data, &outer); err != nil {
		return nil, time.Time{}, fmt.Errorf("it is truncated or corrupt: %w", err)
	}
	if string(outer.Version) != strconv.Itoa(version) {
		return nil, time.Time{}, fmt.Errorf("it is of version %.20q; want %d", outer.Version, version)
	}
	var whole envelope
	if err := json.Unmarshal(data, &whole); err != nil {
		return nil, time.Time{}, fmt.Errorf("it is corrupt: %w", err)
	}
	if digest := sha256.Sum256(whole.Body); hex.EncodeToString(digest[:]) != whole.SHA256 {
		return nil, time.Time{}, errors.New("it is corrupt: its content does not have the digest that it names")
	}
	return decodeBody(whole.Body, key)
}

func decodeBody(data []byte, key string) (set []registry.Instance, saved time.Time, err error) {
	var inner body
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields() // of a program that has more to say, and so a set that would be incomplete
	switch err := decoder.Decode(&inner); {
	case err != nil:
		return nil, time.Time{}, fmt.Errorf("it is corrupt: %w", err)
	case inner.Key != string([]rune(key)): // as JSON has it: what is no UTF-8 is replaced
		return nil, time.Time{}, fmt.Errorf("it is the snapshot of %.200q, not of %.200q", inner.Key, key)
	case inner.Saved.IsZero() || inner.Set == nil:
		return nil, time.Time{}, errors.New("it is corrupt: it has no time or no set")
	}
	set = make([]registry.Instance, len(inner.Set))
	for at := range inner.Set {
		set[at] = registry.Instance(inner.Set[at])
	}
	if err := check(set); err != nil {
		return nil, time.Time{}, err
	}
	return set, inner.Saved, nil
}

// check reports why a set is none that a watcher may return: one of its instances cannot be called, or two have the same ID. IDs are not held to the
// rules of [registry.Instance.Validate], as those are for registrations: registries find instances that others registered by rules of their own.
func check(set []registry.Instance) error {
	taken := make(map[string]bool, len(set))
	for at := range set {
		instance := &set[at]
		err := registry.ValidateAddress(instance.Addr())
		switch {
		case err != nil:
		case instance.ID == "":
			err = errors.New("it has no ID")
		case taken[instance.ID]:
			err = errors.New("another one has this ID")
		case instance.Service == "":
			err = errors.New("it has no service")
		case instance.Weight < 0 || instance.Weight > registry.MaxWeight:
			err = fmt.Errorf("weight %d is not within 0 to %d", instance.Weight, registry.MaxWeight)
		case !known(instance.Health):
			err = fmt.Errorf("health %.20q is none", instance.Health)
		}
		if err != nil {
			return fmt.Errorf("instance %.255q: %w", instance.ID, err)
		}
		taken[instance.ID] = true
	}
	return nil
}

func known(health registry.Health) bool {
	switch health {
	case registry.HealthUnknown, registry.HealthPassing, registry.HealthWarning, registry.HealthCritical:
		return true
	default:
		return false
	}
}
