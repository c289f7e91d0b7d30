package config_test

import (
	"os"
	"path/filepath"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/pkg/registry/consul"
)

// Whatever is in the file and the environment, Load returns: a valid configuration that survives being written and read again, or an error in
// text that a terminal can show.
func FuzzLoad(f *testing.F) {
	defaults, err := os.ReadFile("default.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(defaults, "GOPLT_TIMEOUT=1s")
	f.Add([]byte(everySource), "GOPLT_SERVICES_AUTH_RETRY_MAX_ATTEMPTS=2")
	f.Add([]byte("services: {a-b: &x {timeout: 1s}, c: *x}"), "GOPLT_SERVICES_A_B_TIMEOUT=1s")
	f.Add([]byte("retry: &r {x: *r, <<: *r}"), "GOPLT_DISCOVERY_STATIC_X=a:1,b:2")
	f.Add([]byte("? [a]\n: !!binary aGVsbG8=\n? {b: c}\n"), "GOPLT_SERVICES__=")
	f.Add([]byte(methodsOfTwoLayers), "GOPLT_SERVICES_AUTH_METHODS_GOPLT_AUTH_V1_AUTHSERVICE_LOGIN_TIMEOUT=1s")
	f.Add([]byte("methods: &m {a.b: {hedge: &h {delay: 1s}}, c: {timeout: 1s, hedge: *h}}\nservices: {a: {methods: *m}}"), "GOPLT_METHODS_A_B_TIMEOUT=1s")
	f.Add([]byte("\xfe\xff\x00a"), "GOPLT_\xff=\x00")
	f.Fuzz(func(t *testing.T, data []byte, variable string) {
		path := filepath.Join(t.TempDir(), "goplt.yaml")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		loaded, err := config.Load(path, []string{variable})
		if err != nil {
			if loaded != nil || !utf8.ValidString(err.Error()) {
				t.Errorf("error %q with %v", err, loaded)
			}
			return
		}
		if err := loaded.Validate(); err != nil {
			t.Errorf("loaded, but invalid: %v", err)
		}
		if err := os.WriteFile(path, []byte(loaded.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := config.Load(path, nil)
		if err != nil {
			t.Fatalf("%v\nin what was written:\n%s", err, loaded)
		}
		noToken := cmpopts.IgnoreFields(consul.Config{}, "Token")
		if diff := cmp.Diff(loaded, again, cmpopts.IgnoreUnexported(config.Config{}), noToken, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("differs after a round trip (-before +after):\n%s", diff)
		}
	})
}
