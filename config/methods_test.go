package config_test

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/pkg/rpc"
)

const query, audit = "goplt.audit.v1.AuditService.Query", "goplt.audit.v1.AuditService"

// Methods stand under their full names, at the top level and beneath a service, whose entries go over those of the top level key by key.
func TestMethods(t *testing.T) {
	loaded := load(t, `
methods:
  goplt.audit.v1.AuditService.Query:
    timeout: 30s
    hedge: {delay: 50ms, quantile: 0.95}
  goplt.audit.v1.AuditService.Record:
services:
  audit:
    methods:
      goplt.audit.v1.AuditService.Query:
        hedge: {delay: 20ms}
      goplt.audit.v1.AuditService: {attempt_timeout: 1s}
  auth:
    timeout: 1s
`)
	everyone := rpc.MethodConfig{Timeout: 30 * time.Second, Hedge: rpc.HedgeConfig{Delay: 50 * time.Millisecond, Quantile: 0.95}}
	ours := everyone
	ours.Hedge.Delay = 20 * time.Millisecond
	for _, row := range []struct {
		of   string
		got  map[string]rpc.MethodConfig
		want map[string]rpc.MethodConfig
	}{
		{"all", loaded.Defaults.Methods, map[string]rpc.MethodConfig{query: everyone, audit + ".Record": {}}},
		{"audit", loaded.Client("audit").Methods, map[string]rpc.MethodConfig{
			query: ours, audit + ".Record": {}, audit: {AttemptTimeout: time.Second},
		}},
		{"auth", loaded.Client("auth").Methods, map[string]rpc.MethodConfig{query: everyone, audit + ".Record": {}}},
		{"another", loaded.Client("billing").Methods, map[string]rpc.MethodConfig{query: everyone, audit + ".Record": {}}},
	} {
		if diff := gocmp.Diff(row.want, row.got); diff != "" {
			t.Errorf("methods of %s (-want +got):\n%s", row.of, diff)
		}
	}
	for key, want := range map[string]string{
		"methods." + query + ".timeout":                          "line 4",
		"methods." + query + ".attempt_timeout":                  "default",
		"methods." + audit + ".Record.timeout":                   "default",
		"services.audit.methods." + query + ".hedge.delay":       "line 11",
		"services.audit.methods." + query + ".hedge.quantile":    "line 5",
		"services.audit.methods." + audit + ".attempt_timeout":   "line 12",
		"services.audit.methods." + audit + ".hedge.max_hedges":  "default",
		"services.auth.methods." + query + ".hedge.delay":        "line 5",
		"services.auth.methods." + audit + ".Nothing.max_hedges": "",
	} {
		if got := loaded.Source(key); !strings.HasSuffix(got, want) || (want == "") != (got == "") {
			t.Errorf("source of %s is %q, want %q", key, got, want)
		}
	}
	again := load(t, loaded.String())
	if diff := gocmp.Diff(loaded.Services, again.Services); diff != "" {
		t.Errorf("what is written reads differently (-written +read):\n%s", diff)
	}
}

// Every key of a method can be set in the file and, for a method that stands there, in the environment, for all clients and for one service.
func TestEveryKeyOfAMethod(t *testing.T) {
	text, err := os.ReadFile("default.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for key, field := range keysOf("", reflect.ValueOf(rpc.MethodConfig{})) {
		want, value, inYAML := another(t, "methods."+key, field)
		for _, section := range []string{"", "services.audit."} {
			t.Run(section+key, func(t *testing.T) {
				indent := strings.Repeat("  ", strings.Count(section, "."))
				file := func(entry string) string {
					above := ""
					if section != "" {
						above = "services:\n  audit:\n"
					}
					return above + indent + "methods:\n" + indent + "  " + query + ":" + entry
				}
				nested := strings.ReplaceAll(document(key, inYAML), "\n", "\n    "+indent)
				for source, loaded := range map[string]*config.Config{
					"file":        load(t, file("\n    "+indent+strings.TrimRight(nested, " "))),
					"environment": load(t, file(""), variable(section+"methods."+query+"."+key)+"="+value),
				} {
					methods := loaded.Defaults.Methods
					if section != "" {
						if len(methods) != 0 {
							t.Errorf("from the %s: all clients have methods too: %v", source, methods)
						}
						methods = loaded.Client("audit").Methods
					}
					if got := valueOf(t, methods[query], key); !gocmp.Equal(got, want) {
						t.Errorf("from the %s: %v, want %v", source, got, want)
					}
				}
			})
		}
		if name := key[strings.LastIndex(key, ".")+1:]; !strings.Contains(string(text), "\n#   "+name) && !strings.Contains(string(text), "\n#     "+name) {
			t.Errorf("default.yaml does not say what %s is", key)
		}
	}
}

func TestErrorsOfMethods(t *testing.T) {
	for _, row := range []struct {
		file    string
		environ []string
		want    string
	}{
		{
			"methods: {/goplt.auth.v1.AuthService/Login: {timeout: 1s}}", nil,
			`methods in FILE line 1: "/goplt.auth.v1.AuthService/Login" is not the full name of a method or service, such as goplt.auth.v1.AuthService.Login`,
		},
		{
			"methods: {a-b: {timeout: 1s}}", nil,
			`methods.a-b: "a-b" is not the full name of a method or service, such as goplt.auth.v1.AuthService.Login`,
		},
		{"methods:\n  a.B.C:\n    timeot: 1s", nil, `unknown key "methods.a.B.C.timeot" in FILE line 3: did you mean "methods.a.B.C.timeout"?`},
		{"methods:\n  a.B.C:\n    hedge:\n      quantile: 1", nil, `methods.a.B.C.hedge.quantile in FILE line 4: 1 is not 0, or above 0 and below 1`},
		{"methods:\n  a.B.C:\n    timeout: -1s", nil, `methods.a.B.C.timeout in FILE line 3: -1s is not 0 or more`},
		{
			"services:\n  auth:\n    methods:\n      a.B.C: {idempotency: maybe}", nil,
			`services.auth.methods.a.B.C.idempotency in FILE line 4: "maybe" is not one of idempotent, not_idempotent, or empty`,
		},
		{"methods: 5", nil, `methods in FILE line 1: 5 is not a section of keys`},
		{
			"",
			[]string{"GOPLT_METHODS_A_B_C_TIMEOUT=1s"},
			"unknown environment variable GOPLT_METHODS_A_B_C_TIMEOUT; a method has to stand under methods in the file first",
		},
		{
			"methods: {a.B.C: }",
			[]string{"GOPLT_METHODS_A_B_C_TIMEOUT=fast"},
			`methods.a.B.C.timeout in GOPLT_METHODS_A_B_C_TIMEOUT: "fast" is not a duration such as 500ms, 30s or 1m30s`,
		},
		{
			"methods: {a.B.C: , a.b.c: }",
			[]string{"GOPLT_METHODS_A_B_C_TIMEOUT=1s"},
			"ambiguous environment variable GOPLT_METHODS_A_B_C_TIMEOUT: methods.a.B.C.timeout or methods.a.b.c.timeout; set the key in the file instead",
		},
	} {
		t.Run(row.file+strings.Join(row.environ, " "), func(t *testing.T) {
			path := t.TempDir() + "/goplt.yaml"
			if err := os.WriteFile(path, []byte(row.file), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := config.Load(path, row.environ)
			if got := strings.ReplaceAll(fmt.Sprint(err), path, "FILE"); got != row.want {
				t.Errorf("got  %s\nwant %s", got, row.want)
			}
		})
	}
}
