package config_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/pkg/rpc"
)

const (
	loginMethod    = "goplt.auth.v1.AuthService.Login"
	validateMethod = "goplt.auth.v1.AuthService.ValidateToken"
	queryMethod    = "goplt.audit.v1.AuditService.Query"
)

const methodsOfTwoLayers = `
methods:
  goplt.auth.v1.AuthService: {timeout: 4s}
  goplt.auth.v1.AuthService.Login:
  goplt.audit.v1.AuditService.Query: {timeout: 5s, hedge: {delay: 50ms, max_hedges: 2}}
services:
  auth:
    methods:
      goplt.auth.v1.AuthService.Login: {idempotency: not_idempotent}
      goplt.auth.v1.AuthService.ValidateToken: {}
      goplt.audit.v1.AuditService.Query: {hedge: {delay: 0s}}
  identity: {methods: {}}
`

// A service's entry for a method begins with the top level's, and so key by key; an entry without a key is an entry.
func TestMethodsOfServices(t *testing.T) {
	loaded, err := config.Load(inFile(t, methodsOfTwoLayers), []string{
		"GOPLT_METHODS_GOPLT_AUTH_V1_AUTHSERVICE_LOGIN_ATTEMPT_TIMEOUT=1s",
		"GOPLT_SERVICES_AUTH_METHODS_GOPLT_AUTH_V1_AUTHSERVICE_LOGIN_TIMEOUT=2s",
		"GOPLT_SERVICES_LEDGER_METHODS_GOPLT_AUTH_V1_AUTHSERVICE_VALIDATETOKEN_HEDGE_MAX_HEDGES=3",
	})
	if err != nil {
		t.Fatal(err)
	}
	top := map[string]rpc.MethodConfig{
		"goplt.auth.v1.AuthService": {Timeout: 4 * time.Second},
		loginMethod:                 {AttemptTimeout: time.Second},
		queryMethod:                 {Timeout: 5 * time.Second, Hedge: rpc.HedgeConfig{Delay: 50 * time.Millisecond, MaxHedges: 2}},
	}
	auth := maps.Clone(top)
	auth[loginMethod] = rpc.MethodConfig{Timeout: 2 * time.Second, AttemptTimeout: time.Second, Idempotency: rpc.IdempotencyNotIdempotent}
	auth[validateMethod] = rpc.MethodConfig{}
	auth[queryMethod] = rpc.MethodConfig{Timeout: 5 * time.Second, Hedge: rpc.HedgeConfig{MaxHedges: 2}}
	ledger := maps.Clone(top)
	ledger[validateMethod] = rpc.MethodConfig{Hedge: rpc.HedgeConfig{MaxHedges: 3}}
	for service, want := range map[string]map[string]rpc.MethodConfig{"auth": auth, "identity": top, "ledger": ledger, "not named": top} {
		if diff := cmp.Diff(want, loaded.Client(service).Methods); diff != "" {
			t.Errorf("methods of %s (-want +got):\n%s", service, diff)
		}
	}
	if diff := cmp.Diff(top, loaded.Defaults.Methods); diff != "" {
		t.Errorf("methods of the top level (-want +got):\n%s", diff)
	}
	for key, want := range map[string]string{
		"methods.goplt.auth.v1.AuthService.timeout":                     "goplt.yaml line 3",
		"methods." + loginMethod + ".timeout":                           "default",
		"methods." + loginMethod + ".attempt_timeout":                   "GOPLT_METHODS_GOPLT_AUTH_V1_AUTHSERVICE_LOGIN_ATTEMPT_TIMEOUT",
		"services.auth.methods." + loginMethod + ".attempt_timeout":     "GOPLT_METHODS_GOPLT_AUTH_V1_AUTHSERVICE_LOGIN_ATTEMPT_TIMEOUT",
		"services.auth.methods." + loginMethod + ".timeout":             "GOPLT_SERVICES_AUTH_METHODS_GOPLT_AUTH_V1_AUTHSERVICE_LOGIN_TIMEOUT",
		"services.auth.methods." + loginMethod + ".idempotency":         "goplt.yaml line 9",
		"services.auth.methods." + loginMethod + ".hedge.delay":         "default",
		"services.auth.methods." + validateMethod + ".timeout":          "default",
		"services.auth.methods." + queryMethod + ".hedge.delay":         "goplt.yaml line 11",
		"services.auth.methods." + queryMethod + ".hedge.max_hedges":    "goplt.yaml line 5",
		"services.identity.methods." + queryMethod + ".timeout":         "goplt.yaml line 5",
		"services.ledger.methods." + validateMethod + ".hedge.quantile": "default",
		"services.ledger.target":                                        "default",
		"methods." + validateMethod + ".timeout":                        "",
		"methods." + loginMethod:                                        "",
	} {
		if got := loaded.Source(key); got != want {
			t.Errorf("source of %s is %q, want %q", key, got, want)
		}
	}
}

// Of methods is written what is set, and that there is an entry.
func TestMethodsAreWritten(t *testing.T) {
	loaded, err := config.Load(inFile(t, methodsOfTwoLayers), []string{"GOPLT_METHODS_GOPLT_AUDIT_V1_AUDITSERVICE_QUERY_ATTEMPT_TIMEOUT=2s"})
	if err != nil {
		t.Fatal(err)
	}
	service := loaded.Service("authz")
	service.Client.Methods["x.Y"] = rpc.MethodConfig{}
	service.Client.Methods[loginMethod] = rpc.MethodConfig{Idempotency: rpc.IdempotencyIdempotent}
	loaded.Services["authz"] = service
	for _, want := range []string{
		`
methods:
  goplt.audit.v1.AuditService.Query:
    timeout: 5s # goplt.yaml line 5
    attempt_timeout: 2s # GOPLT_METHODS_GOPLT_AUDIT_V1_AUDITSERVICE_QUERY_ATTEMPT_TIMEOUT
    hedge:
      delay: 50ms # goplt.yaml line 5
      max_hedges: 2 # goplt.yaml line 5
  goplt.auth.v1.AuthService:
    timeout: 4s # goplt.yaml line 3
  goplt.auth.v1.AuthService.Login: {} # goplt.yaml line 4
discovery:
`, `
services:
  auth:
    methods:
      goplt.audit.v1.AuditService.Query:
        hedge:
          delay: 0s # goplt.yaml line 11
      goplt.auth.v1.AuthService.Login:
        idempotency: not_idempotent # goplt.yaml line 9
      goplt.auth.v1.AuthService.ValidateToken: {} # goplt.yaml line 10
  authz:
    methods:
      goplt.auth.v1.AuthService.Login:
        idempotency: idempotent # program
      x.Y: {} # program
  identity: {} # goplt.yaml line 12
`,
	} {
		if !strings.Contains(loaded.String(), want) {
			t.Errorf("lacks:\n%s\ngot:\n%s", want, loaded)
		}
	}
	again := load(t, loaded.String())
	for _, name := range slices.Collect(maps.Keys(loaded.Services)) {
		if diff := cmp.Diff(loaded.Services[name], again.Services[name]); diff != "" {
			t.Errorf("%s differs after a round trip (-before +after):\n%s", name, diff)
		}
	}
	if diff := cmp.Diff(loaded.Defaults, again.Defaults); diff != "" {
		t.Errorf("the defaults differ after a round trip (-before +after):\n%s", diff)
	}
}

// A change to what Service returns changes nothing else.
func TestServiceIsACopy(t *testing.T) {
	loaded := load(t, methodsOfTwoLayers)
	for _, name := range []string{"auth", "not named"} {
		loaded.Service(name).Client.Methods[queryMethod] = rpc.MethodConfig{}
	}
	if diff := cmp.Diff(load(t, methodsOfTwoLayers).Client("auth"), loaded.Client("auth")); diff != "" {
		t.Errorf("auth changed (-before +after):\n%s", diff)
	}
	if loaded.Defaults.Methods[queryMethod].Timeout != 5*time.Second {
		t.Error("the defaults changed")
	}
}

func TestErrorsOfMethods(t *testing.T) {
	for name, test := range map[string]errorTest{
		"key misspelt": {
			file: "methods:\n  goplt.auth.v1.AuthService.Login:\n    timeouts: 1s\n    hegde: {delay: 1s}",
			want: `unknown key "methods.goplt.auth.v1.AuthService.Login.timeouts" in goplt.yaml line 3: ` +
				`did you mean "methods.goplt.auth.v1.AuthService.Login.timeout"?
unknown key "methods.goplt.auth.v1.AuthService.Login.hegde.delay" in goplt.yaml line 4: ` +
				`did you mean "methods.goplt.auth.v1.AuthService.Login.hedge.delay"?`,
		},
		"key near nothing": {
			file: "methods: {goplt.auth.v1.AuthService.Login: {colour: red}}",
			want: `unknown key "methods.goplt.auth.v1.AuthService.Login.colour" in goplt.yaml line 1; ` +
				`want one of attempt_timeout, hedge, idempotency, timeout`,
		},
		"key of a service's method misspelt": {
			file: "services: {identity: {methods: {goplt.identity.v1.IdentityService.RequestPasswordReset: {attempts_timeout: 1s}}}}",
			want: `unknown key "services.identity.methods.goplt.identity.v1.IdentityService.RequestPasswordReset.attempts_timeout" in goplt.yaml line 1: ` +
				`did you mean "services.identity.methods.goplt.identity.v1.IdentityService.RequestPasswordReset.attempt_timeout"?`,
		},
		"key outside its section": {
			file: "methods: {goplt.auth.v1.AuthService.Login: {delay: 1s}}",
			want: `unknown key "methods.goplt.auth.v1.AuthService.Login.delay" in goplt.yaml line 1: ` +
				`did you mean "methods.goplt.auth.v1.AuthService.Login.hedge.delay"?`,
		},
		"key beneath no method": {
			file: "hedge: {delay: 1s}", want: `unknown key "hedge.delay" in goplt.yaml line 1: did you mean "methods.<method>.hedge.delay"?`,
		},
		"key of a service beneath no method": {
			file: "services: {auth: {hedge: {delay: 1s}}}",
			want: `unknown key "services.auth.hedge.delay" in goplt.yaml line 1: did you mean "services.auth.methods.<method>.hedge.delay"?`,
		},
		"key of a service at the top level": {
			file: "target: auth", want: `unknown key "target" in goplt.yaml line 1: did you mean "services.<service>.target"?`,
		},
		"section misspelt": {
			file: "method: {goplt.auth.v1.AuthService.Login: {timeout: 1s}}",
			want: `unknown key "method.goplt.auth.v1.AuthService.Login.timeout" in goplt.yaml line 1: ` +
				`did you mean "methods.goplt.auth.v1.AuthService.Login.timeout"?`,
		},
		"sections in place of dots": {
			file: "methods: {goplt: {auth: {v1: {AuthService: {Login: {timeout: 1s, hedge: {delay: 1s}}}}}}}",
			want: `unknown key "methods.goplt.auth.v1.AuthService.Login.timeout" in goplt.yaml line 1; ` +
				`a name is one key: did you mean "goplt.auth.v1.AuthService.Login"?
unknown key "methods.goplt.auth.v1.AuthService.Login.hedge.delay" in goplt.yaml line 1; ` +
				`a name is one key: did you mean "goplt.auth.v1.AuthService.Login"?`,
		},
		"method beneath its service": {
			file: "services: {auth: {methods: {goplt.auth.v1.AuthService: {Login: {timeout: 1s}}}}}",
			want: `unknown key "services.auth.methods.goplt.auth.v1.AuthService.Login.timeout" in goplt.yaml line 1; ` +
				`a name is one key: did you mean "goplt.auth.v1.AuthService.Login"?`,
		},
		"no section": {
			file: "methods: {goplt.auth.v1.AuthService.Login: 1s}",
			want: `methods.goplt.auth.v1.AuthService.Login in goplt.yaml line 1: "1s" is not a section of keys; ` +
				`want some of timeout, attempt_timeout, idempotency, hedge beneath`,
		},
		"path in place of a name": {
			file: "methods:\n  /goplt.auth.v1.AuthService/Login: {timeout: 1s}",
			want: `methods in goplt.yaml line 2: "/goplt.auth.v1.AuthService/Login" is not the full name of a method or service, ` +
				`such as goplt.auth.v1.AuthService.Login`,
		},
		"no name": {
			file: "services: {auth: {methods: {'my service': {}, '': {}}}}",
			want: `services.auth.methods in goplt.yaml line 1: "my service" is not the full name of a method or service, such as goplt.auth.v1.AuthService.Login
services.auth.methods in goplt.yaml line 1: "" is not the full name of a method or service, such as goplt.auth.v1.AuthService.Login`,
		},
		"long name": {
			file: "methods: {" + strings.Repeat("a.", 200) + "b: {}}",
			want: "methods in goplt.yaml line 1: the name of a method is 401 bytes long; at most 255 are allowed",
		},
		"method twice": {
			file: "methods:\n  goplt.auth.v1.AuthService.Login: {}\n  goplt.auth.v1.AuthService.Login: {}\n",
			want: `methods in goplt.yaml line 3: key "goplt.auth.v1.AuthService.Login" is set twice, first in line 2`,
		},
		"no unit": {
			file: "methods: {goplt.auth.v1.AuthService.Login: {timeout: 30}}",
			want: "methods.goplt.auth.v1.AuthService.Login.timeout in goplt.yaml line 1: 30 has no unit; want " + durations,
		},
		"impossible values": {
			file: "methods:\n  goplt.auth.v1.AuthService.Login:\n    timeout: -1s\n    idempotency: maybe\n    hedge:\n      quantile: 1\n      max_hedges: 5",
			want: `methods.goplt.auth.v1.AuthService.Login.timeout in goplt.yaml line 3: -1s is not 0 or more
methods.goplt.auth.v1.AuthService.Login.idempotency in goplt.yaml line 4: "maybe" is not one of "idempotent", "not_idempotent" and "", ` +
				`which means what the method declares
methods.goplt.auth.v1.AuthService.Login.hedge.quantile in goplt.yaml line 6: 1 is not at least 0 and below 1
methods.goplt.auth.v1.AuthService.Login.hedge.max_hedges in goplt.yaml line 7: 5 is not within 0 to 4`,
		},
		"impossible together, of two layers": {
			file: "methods: {a.B.C: {hedge: {delay: 1s}}}\nservices:\n  auth: {methods: {a.B.C: {idempotency: not_idempotent}}}",
			want: `services.auth.methods.a.B.C.idempotency in goplt.yaml line 3: "not_idempotent" is not possible with a hedge, ` +
				`which may execute a call twice; remove hedge.delay and hedge.quantile, or set them to 0`,
		},
		"impossible at the top level is reported once, not for each service": {
			file: "methods: {a.B.C: {timeout: -1s}}\nservices: {auth: {protocol: grpc}, audit: {methods: {a.B.C: {timeout: -1s}}}}",
			want: `methods.a.B.C.timeout in goplt.yaml line 1: -1s is not 0 or more
services.audit.methods.a.B.C.timeout in goplt.yaml line 2: -1s is not 0 or more`,
		},

		"variable of a method that the file does not name": {
			environ: []string{"GOPLT_METHODS_GOPLT_AUTH_V1_AUTHSERVICE_LOGIN_TIMEOUT=1s"},
			want: "unknown environment variable GOPLT_METHODS_GOPLT_AUTH_V1_AUTHSERVICE_LOGIN_TIMEOUT; " +
				"a method has to stand under methods in the file first, by its full name",
		},
		"variable of a service's method that the file does not name": {
			environ: []string{"GOPLT_SERVICES_LEDGER_METHODS_GOPLT_AUTH_V1_AUTHSERVICE_LOGIN_TIMEOUT=1s"},
			want: "unknown environment variable GOPLT_SERVICES_LEDGER_METHODS_GOPLT_AUTH_V1_AUTHSERVICE_LOGIN_TIMEOUT; " +
				"a method has to stand under services.ledger.methods in the file first, by its full name",
		},
		"variable of a method misspelt": {
			file:    "methods: {goplt.auth.v1.AuthService.Login: {}}",
			environ: []string{"GOPLT_METHODS_GOPLT_AUTH_V1_AUTHSERVICE_LOGN_TIMEOUT=1s"},
			want: "unknown environment variable GOPLT_METHODS_GOPLT_AUTH_V1_AUTHSERVICE_LOGN_TIMEOUT: " +
				"did you mean GOPLT_METHODS_GOPLT_AUTH_V1_AUTHSERVICE_LOGIN_TIMEOUT?; " +
				"a method has to stand under methods in the file first, by its full name",
		},
		"variable of a method's key misspelt": {
			file:    "methods: {goplt.auth.v1.AuthService.Login: {}}",
			environ: []string{"GOPLT_SERVICES_AUTH_METHODS_GOPLT_AUTH_V1_AUTHSERVICE_LOGIN_ATTEMPT_TIMOUT=1s"},
			want: "unknown environment variable GOPLT_SERVICES_AUTH_METHODS_GOPLT_AUTH_V1_AUTHSERVICE_LOGIN_ATTEMPT_TIMOUT: " +
				"did you mean GOPLT_SERVICES_AUTH_METHODS_GOPLT_AUTH_V1_AUTHSERVICE_LOGIN_ATTEMPT_TIMEOUT?",
		},
		"variable of two methods": {
			file:    "methods: {goplt.auth.v1.AuthService.Login: {}}\nservices: {auth: {methods: {goplt.auth.v1.AuthService.login: {}}}}",
			environ: []string{"GOPLT_METHODS_GOPLT_AUTH_V1_AUTHSERVICE_LOGIN_TIMEOUT=1s"},
			want: "ambiguous environment variable GOPLT_METHODS_GOPLT_AUTH_V1_AUTHSERVICE_LOGIN_TIMEOUT: " +
				"methods.goplt.auth.v1.AuthService.Login.timeout or methods.goplt.auth.v1.AuthService.login.timeout; set the key in the file instead",
		},
		"variable of a method or of its service": {
			file:    "methods: {a.B: {}, a.B.Attempt: {}}",
			environ: []string{"GOPLT_METHODS_A_B_ATTEMPT_TIMEOUT=1s"},
			want: "ambiguous environment variable GOPLT_METHODS_A_B_ATTEMPT_TIMEOUT: methods.a.B.attempt_timeout or methods.a.B.Attempt.timeout; " +
				"set the key in the file instead",
		},
		"variable impossible": {
			file:    "methods: {a.B.C: {}}",
			environ: []string{"GOPLT_METHODS_A_B_C_HEDGE_QUANTILE=95"},
			want:    "methods.a.B.C.hedge.quantile in GOPLT_METHODS_A_B_C_HEDGE_QUANTILE: 95 is not at least 0 and below 1",
		},
	} {
		t.Run(name, test.run)
	}
}
