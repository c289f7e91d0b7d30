package snapshot

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/0x1d/goplt/pkg/registry"
)

// Whatever is in a file, it is refused, or it is a set that would be saved and loaded just so.
func FuzzDecode(f *testing.F) {
	const key = "auth"
	whole, err := encode(key, time.Unix(1e9, 0), []registry.Instance{
		{ID: "1", Service: "auth", Host: "::1", Port: 1, Weight: 1, Health: registry.HealthPassing, Tags: []string{"a"}, Metadata: map[string]string{"b": "c"}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	for _, body := range []string{
		`{"key":"auth","saved":"2001-09-09T01:46:40Z","set":[{"id":"1","service":"auth","host":"::1","port":1,"weight":1}]}`,
		`{"key":"auth","saved":"2001-09-09T01:46:40Z","set":[]}`,
		`{"key":"auth","saved":"2001-09-09T01:46:40Z","set":[null]}`,
		`{"key":"auth","saved":"2001-09-09T01:46:40Z","set":null}`,
		`{"key":"auth","saved":"2001-09-09T01:46:40Z","set":[{"more":1}]}`,
		`{"version":1,"sha256":"","body":null}`,
		`null`, `[]`, `{}`, ``,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, parse := range []func([]byte, string) ([]registry.Instance, time.Time, error){decode, decodeBody} { // the digest keeps most from the body
			set, saved, err := parse(data, key)
			if err != nil {
				if set != nil || !saved.IsZero() {
					t.Errorf("refused (%v), and yet there is %v, %v", err, set, saved)
				}
				continue
			}
			again, err := encode(key, saved, set)
			if err != nil {
				t.Fatalf("what was loaded cannot be saved: %v", err)
			}
			twice, when, err := decode(again, key)
			if err != nil || !when.Equal(saved) || !cmp.Equal(set, twice, cmpopts.EquateEmpty()) {
				t.Errorf("loaded %v at %v, saved and loaded again %v at %v, %v", set, saved, twice, when, err)
			}
		}
	})
}
