package main

import (
	"encoding/json"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/0x1d/goplt/internal/consultest/script"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/services"
)

// TestBadInput pins what the command says, and how it exits, when its user is mistaken.
func TestBadInput(t *testing.T) {
	addr, _ := startServe(t)
	at := "static://" + addr
	nobody := "static://" + unusedAddr(t)
	fixed := writeFile(t, "fixed.yaml", "timeout: 1s\ndiscovery:\n  provider: static\n")
	inMemory := writeFile(t, "memory.yaml", "discovery: {provider: memory}\n")
	for _, test := range []struct {
		name string
		args []string
		code int
		want string // what standard error must hold
	}{
		{"no such command", []string{"bogus"}, exitUsage, `goplt: unknown command "bogus"; see goplt --help`},
		{"no such flag", []string{"call", "--bogus"}, exitUsage, "goplt: unknown flag: --bogus"},
		{"no arguments", []string{"call"}, exitUsage, "goplt: want goplt call SERVICE.Method [JSON] [flags], got 0 arguments"},
		{"too many arguments", []string{"version", "x"}, exitUsage, "got 1 arguments"},
		{"no method", []string{"call", "auth"}, exitUsage, `"auth" does not name a method; want SERVICE.Method, such as auth.Login`},
		{"unknown service", []string{"call", "aut.Login"}, exitUsage, `unknown service "aut"; known services: auth, identity, authz, audit`},
		{"unknown method", []string{"call", "auth.Logn"}, exitUsage, `unknown method "Logn" of service auth; its methods: Login, RefreshToken`},
		{
			"unknown field",
			[]string{"call", "auth.Login", `{"emil":"x"}`},
			exitUsage,
			`the JSON does not fit goplt.auth.v1.LoginRequest: (line 1:2): unknown field "emil"; its fields: email, password`,
		},
		{"empty JSON", []string{"call", "auth.Login", " "}, exitUsage, `the JSON is empty; want an object such as {}, with the fields: email, password`},
		{"wrong type", []string{"call", "auth.Login", `{"email":1}`}, exitUsage, `the JSON does not fit goplt.auth.v1.LoginRequest`},
		{
			"a password of the wrong type",
			[]string{"call", "auth.Login", `{"password":271828}`},
			exitUsage,
			`invalid value for string field password; its fields: email, password`,
		},
		{"no JSON", []string{"curl", "auth.Login", `email=x`}, exitUsage, `the JSON does not fit goplt.auth.v1.LoginRequest`},
		{"output", []string{"version", "--output", "xml"}, exitUsage, `--output "xml" is not one of text, json`},
		{"protocol", []string{"config", "--protocol", "soap"}, exitUsage, `--protocol "soap" is not one of auto, grpc, http`},
		{"log level", []string{"config", "--log-level", "loud"}, exitUsage, `--log-level "loud" is not one of debug, info, warn, error`},
		{"timeout", []string{"call", "auth.Login", "--timeout", "-1s"}, exitUsage, `--timeout -1s is negative`},
		{"timeout without a unit", []string{"call", "auth.Login", "--timeout", "5"}, exitUsage, `invalid argument "5" for "--timeout"`},
		{"registry is no URL", []string{"config", "--registry", "127.0.0.1:8500"}, exitUsage, `"127.0.0.1:8500" is not a URL; want consul://HOST:PORT`},
		{"registry scheme", []string{"config", "--registry", "etcd://x"}, exitUsage, `--registry "etcd://x": unknown scheme "etcd"`},
		{"registry with a path", []string{"config", "--registry", "consul://x:1/auth"}, exitUsage, `has more than an address`},
		{"static without an address", []string{"config", "--registry", "static://"}, exitUsage, `no addresses`},
		{"interval without watch", []string{"resolve", "auth", "--interval", "1s"}, exitUsage, "--interval goes with --watch"},
		{"interval", []string{"resolve", "auth", "--watch", "--interval", "1ms"}, exitUsage, "--interval 1ms is not at least 10ms"},
		{"target", []string{"resolve", "consul:///../kv/x"}, exitUsage, `service name "../kv/x" holds ".."`},
		{"target of http", []string{"resolve", "http://foo"}, exitUsage, `scheme "http" is not one of consul, static, memory; want consul:///auth`},
		{"target scheme", []string{"resolve", "etcd:///auth", "--registry", at}, exitUsage, `etcd`},
		{"no configuration file", []string{"config", "--config", "/nonexistent/goplt.yaml"}, exitUsage, "/nonexistent/goplt.yaml"},
		{"unknown service to serve", []string{"serve", "--services", "auth,mail"}, exitUsage, `unknown service "mail"; known services: auth, identity`},
		{"registry that registers nothing", []string{"serve", "--registry", at}, exitUsage, `a static registry registers no server: want --registry consul://`},
		{
			"configuration that registers nothing",
			[]string{"serve", "--config", fixed},
			exitUsage,
			`discovery.provider in ` + fixed + ` line 3 is static, which registers no server; want consul, or --registry consul://HOST:PORT`,
		},
		{
			"configuration that registers in memory",
			[]string{"serve", "--config", inMemory},
			exitUsage,
			`discovery.provider in ` + inMemory + ` line 1 is memory, in which only this process would find its servers; want consul`,
		},
		{
			"target of a registry that is not configured",
			[]string{"resolve", "consul:///auth", "--config", fixed},
			exitUsage,
			`scheme "consul" is not that of this registry, "static"; discovery.provider in ` + fixed + ` line 3 is static`,
		},
		{
			"target to watch of a registry that is not chosen",
			[]string{"resolve", "consul:///auth", "--watch", "--registry", at},
			exitUsage,
			`scheme "consul" is not that of this registry, "static"; --registry is static`,
		},
		{"demo with a flag", []string{"demo", "--protocol", "http"}, exitUsage, `demo runs on the embedded defaults and takes no --protocol`},
		{"port out of range", []string{"serve", "--listen", "127.0.0.1:99999"}, exitUsage, `host:port with a port within 0 to 65535`},
		{"service twice", []string{"serve", "--services", "auth,auth"}, exitUsage, `--services names "auth" twice`},
		{"listen", []string{"serve", "--listen", "nowhere"}, exitUsage, `goplt: --listen "nowhere" is not host:port`},
		{"listen on a port alone", []string{"serve", "--listen", "8080"}, exitUsage, `--listen "8080" is not host:port with a port within 0 to 65535, such as`},
		{"port taken", []string{"serve", "--listen", addr}, exitFailed, "address already in use"},
		{"nobody there", []string{"call", "auth.ValidateToken", "--registry", nobody}, exitFailed, "not sent"},
		{"wrong password", []string{"call", "auth.Login", `{"email":"a@b.c","password":"x"}`, "--registry", at}, exitFailed, "auth.Login: unauthenticated"},
		{"empty email", []string{"call", "auth.Login", `{}`, "--registry", at}, exitFailed, "auth.Login: invalid_argument: "},
		{"forged token", []string{"call", "auth.ValidateToken", `{"token":"x.y.z"}`, "--registry", at}, exitFailed, "auth.ValidateToken: unauth"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := execute(t, test.args...)
			if got.code != test.code || !strings.Contains(got.stderr, test.want) || got.stdout != "" {
				t.Errorf("exit %d, stdout %q, stderr %q; want exit %d and %q", got.code, got.stdout, got.stderr, test.code, test.want)
			}
			if strings.Count(got.stderr, "\n") > 1+strings.Count(test.want, "\n") && !strings.Contains(got.stderr, "level=") {
				t.Errorf("more than one line: %q", got.stderr)
			}
		})
	}
}

// unusedAddr returns an address at which nobody listens.
func unusedAddr(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

func TestCall(t *testing.T) {
	addr, _ := startServe(t)
	login := `{"email":"ada@example.com","password":"correct horse battery staple"}`
	for _, protocol := range []string{"auto", "grpc", "http"} {
		t.Run(protocol, func(t *testing.T) {
			got := execute(t, "call", "auth.Login", login, "--registry", "static://"+addr, "--protocol", protocol, "--output", "json")
			var answer struct {
				Tokens struct {
					AccessToken string `json:"accessToken"`
				} `json:"tokens"`
			}
			if err := json.Unmarshal([]byte(got.stdout), &answer); err != nil || got.code != exitOK {
				t.Fatalf("%+v: %v", got, err)
			}
			token, err := json.Marshal(map[string]string{"token": answer.Tokens.AccessToken})
			if err != nil {
				t.Fatal(err)
			}
			got = executeWith(t, nil, strings.NewReader(string(token)),
				"call", "auth.ValidateToken", "-", "--registry", "static://"+addr, "--protocol", protocol)
			if got.code != exitOK || !strings.Contains(got.stdout, `"userId": "usr_ada"`) {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestCallFailureAsJSON(t *testing.T) {
	got := execute(t, "call", "auth.ValidateToken", "--registry", "static://"+unusedAddr(t), "--output", "json")
	var shown struct {
		Code     string
		Attempts []struct{ Verdict, Protocol string }
	}
	if err := json.Unmarshal([]byte(got.stderr), &shown); err != nil {
		t.Fatalf("%v in %q", err, got.stderr)
	}
	if got.code != exitFailed || shown.Code != "unavailable" || len(shown.Attempts) != 3 ||
		shown.Attempts[0].Verdict != "not sent" || shown.Attempts[0].Protocol != "grpc" {
		t.Errorf("exit %d, %+v", got.code, shown)
	}
}

// TestCurlCommand executes what goplt curl prints, for every procedure.
func TestCurlCommand(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed; CI has it")
	}
	addr, _ := startServe(t)
	for _, service := range services.Names() {
		methods := methodsOf(service)
		for i := range methods.Len() {
			name := service + "." + string(methods.Get(i).Name())
			t.Run(name, func(t *testing.T) {
				got := execute(t, "curl", name, "{}", "--registry", "static://"+addr)
				if got.code != exitOK || !strings.HasPrefix(got.stdout, "curl ") {
					t.Fatalf("%+v", got)
				}
				line := strings.TrimSpace(got.stdout) + ` --http1.1 --write-out '\n%{http_version} %{http_code} %{content_type}'`
				out, err := exec.CommandContext(t.Context(), "sh", "-c", line).CombinedOutput()
				if err != nil {
					t.Fatalf("%s: %v\n%s", line, err, out)
				}
				body, summary, _ := strings.Cut(string(out), "\n")
				if !json.Valid([]byte(body)) || !strings.HasPrefix(summary, "1.1 ") || !strings.HasSuffix(summary, " application/json") {
					t.Errorf("answer %q", out)
				}
				if strings.Contains(body, `"unimplemented"`) || strings.Contains(summary, " 415 ") || strings.Contains(summary, " 500 ") {
					t.Errorf("answer %q", out)
				}
			})
		}
	}
}

func TestCurlQuotesForTheShell(t *testing.T) {
	got := execute(t, "curl", "auth.Login", `{"email":"o'neil@example.com"}`, "--registry", "static://127.0.0.1:1")
	want := `curl --silent --show-error --header 'Content-Type: application/json' --data '{"email":"o'\''neil@example.com"}' ` +
		`'http://127.0.0.1:1/goplt.auth.v1.AuthService/Login'` + "\n"
	if got.code != exitOK || got.stdout != want {
		t.Errorf("got  %s\nwant %s", got.stdout, want)
	}
}

func TestCurlOverTLS(t *testing.T) {
	path := writeFile(t, "goplt.yaml", "tls: {enabled: true, ca_file: ca.pem, cert_file: c.pem, key_file: k.pem, server_name: auth.internal}\n")
	got := execute(t, "curl", "auth.Login", "--registry", "static://127.0.0.1:1", "--config", path)
	want := `curl --silent --show-error --header 'Content-Type: application/json' --data '{}' --cacert 'ca.pem' --cert 'c.pem' --key 'k.pem' ` +
		`--connect-to 'auth.internal:1:127.0.0.1:1' 'https://auth.internal:1/goplt.auth.v1.AuthService/Login'` + "\n"
	if got.code != exitOK || got.stdout != want {
		t.Errorf("got  %s%s\nwant %s", got.stdout, got.stderr, want)
	}
}

func TestResolve(t *testing.T) {
	got := execute(t, "resolve", "static:///127.0.0.1:1,[::1]:2", "--output", "json")
	var found []instanceView
	if err := json.Unmarshal([]byte(got.stdout), &found); err != nil || got.code != exitOK {
		t.Fatalf("%+v: %v", got, err)
	}
	if len(found) != 2 || found[0].Addr != "127.0.0.1:1" || found[1].Addr != "[::1]:2" {
		t.Errorf("%+v", found)
	}
	got = execute(t, "resolve", "auth", "--registry", "static://127.0.0.1:1")
	if got.code != exitOK || !strings.Contains(got.stdout, "INSTANCE") || !strings.Contains(got.stdout, "127.0.0.1:1") {
		t.Errorf("%+v", got)
	}
}

func TestResolveShowsHealth(t *testing.T) {
	entry := func(id, status string) *api.ServiceEntry {
		return &api.ServiceEntry{
			Node:    &api.Node{Node: "n", Address: "127.0.0.1"},
			Service: &api.AgentService{ID: id, Service: "auth", Address: "127.0.0.1", Port: 80},
			Checks:  api.HealthChecks{{CheckID: "c", Status: status, ServiceID: id}},
		}
	}
	agent := script.Start(t, entry("a", api.HealthPassing), entry("b", api.HealthWarning))
	got := execute(t, "resolve", "auth", "--registry", "consul://"+agent.Address, "--output", "json")
	var found []instanceView
	if err := json.Unmarshal([]byte(got.stdout), &found); err != nil || got.code != exitOK {
		t.Fatalf("%+v: %v", got, err)
	}
	if len(found) != 2 || found[0].Health != registry.HealthPassing || found[1].Health != registry.HealthWarning {
		t.Errorf("%+v", found)
	}
	got = execute(t, "resolve", "auth", "--registry", "consul://"+agent.Address)
	if got.code != exitOK || !strings.Contains(got.stdout, "HEALTH") || !strings.Contains(got.stdout, " warning ") {
		t.Errorf("%+v", got)
	}
}

func TestConfig(t *testing.T) {
	path := writeFile(t, "goplt.yaml", "timeout: 3s\ndiscovery:\n  consul:\n    token: hush\n")
	got := executeWith(t, []string{"GOPLT_CONFIG=" + path, "GOPLT_RETRY_MAX_ATTEMPTS=2"}, strings.NewReader(""), "config")
	if got.code != exitOK || strings.Contains(got.stdout, "hush") {
		t.Fatalf("%+v", got)
	}
	for _, want := range []string{"timeout: 3s", "max_attempts: 2", "[redacted]", "GOPLT_RETRY_MAX_ATTEMPTS"} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("%q is not in\n%s", want, got.stdout)
		}
	}
	got = execute(t, "config", "--output", "json", "--protocol", "http")
	if got.code != exitOK || !json.Valid([]byte(got.stdout)) || !strings.Contains(got.stdout, `"http"`) {
		t.Errorf("%+v", got)
	}
}

func TestCompletionOfArguments(t *testing.T) {
	for args, want := range map[string]string{
		"call au":            "auth.Login\n",
		"curl id":            "identity.VerifyEmail\n",
		"config --protocol ": "grpc\n",
		"call x --output ":   "json\n",
	} {
		got := execute(t, append([]string{"__complete"}, strings.Split(args, " ")...)...)
		if got.code != exitOK || !strings.Contains(got.stdout, want) {
			t.Errorf("%s: %+v, want %q", args, got, want)
		}
	}
}

func TestCallByPath(t *testing.T) {
	addr, _ := startServe(t)
	got := execute(t, "call", "/goplt.authz.v1.AuthzService/HasPermission", `{"userId":"usr_ada","permission":"a:b"}`, "--registry", "static://"+addr)
	if got.code != exitOK || !strings.Contains(got.stdout, "true") {
		t.Errorf("%+v", got)
	}
}

func TestVersionAndCompletionAndHelp(t *testing.T) {
	if got := execute(t, "--version"); got.code != exitOK || !strings.HasPrefix(got.stdout, "goplt version ") {
		t.Errorf("%+v", got)
	}
	if got := execute(t, "version"); got.code != exitOK || !strings.HasPrefix(got.stdout, "goplt ") {
		t.Errorf("%+v", got)
	}
	if got := execute(t, "version", "--output", "json"); got.code != exitOK || !json.Valid([]byte(got.stdout)) {
		t.Errorf("%+v", got)
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if got := execute(t, "completion", shell); got.code != exitOK || len(got.stdout) < 1000 {
			t.Errorf("%s: exit %d, %d bytes", shell, got.code, len(got.stdout))
		}
	}
	got := execute(t)
	for _, command := range []string{"demo", "serve", "call", "resolve", "curl", "config", "version", "completion"} {
		if !strings.Contains(got.stdout, command) {
			t.Errorf("help does not name %s", command)
		}
	}
}

func TestServeSomeServices(t *testing.T) {
	addr, _ := startServe(t, "--services", "authz")
	if got := execute(t, "call", "authz.HasPermission", `{"userId":"usr_ada","permission":"a:b"}`, "--registry", "static://"+addr); got.code != exitOK {
		t.Errorf("%+v", got)
	}
	got := execute(t, "call", "auth.Login", `{"email":"a@b.c","password":"x"}`, "--registry", "static://"+addr)
	if got.code != exitFailed || !strings.Contains(got.stderr, "unimplemented") {
		t.Errorf("%+v", got)
	}
}

func TestServePrintsMail(t *testing.T) {
	addr, stderr := startServe(t)
	if got := execute(t, "call", "identity.RequestPasswordReset", `{"email":"ada@example.com"}`, "--registry", "static://"+addr); got.code != exitOK {
		t.Fatalf("%+v", got)
	}
	stderr.await(t, "mail to ada@example.com: password reset token ")
}

func TestDemo(t *testing.T) {
	got := execute(t, "demo")
	if got.code != exitOK || !strings.Contains(got.stdout, "failed calls: 0") || !strings.Contains(got.stdout, "All of it held") {
		t.Errorf("exit %d\n%s%s", got.code, got.stdout, got.stderr)
	}
}
