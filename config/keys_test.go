package config_test

import (
	"cmp"
	"fmt"
	"iter"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/pkg/registry/consul"
	"github.com/0x1d/goplt/pkg/rpc"
)

// keysOf yields each key of a struct, by the tags alone, and the value of its field. Maps are keys.
func keysOf(prefix string, value reflect.Value) iter.Seq2[string, reflect.Value] {
	return func(yield func(string, reflect.Value) bool) {
		for i := range value.NumField() {
			tag, tagged := value.Type().Field(i).Tag.Lookup("koanf")
			name, option, _ := strings.Cut(tag, ",")
			field := value.Field(i)
			switch {
			case !value.Type().Field(i).IsExported() || tag == "-":
				continue
			case !tagged:
				panic("no tag on " + value.Type().Field(i).Name + " of " + value.Type().String())
			case option == "squash":
				name = strings.TrimSuffix(prefix, ".")
			default:
				name = prefix + name
			}
			if field.Kind() != reflect.Struct {
				if !yield(name, field) {
					return
				}
				continue
			}
			if name != "" {
				name += "."
			}
			for key, field := range keysOf(name, field) {
				if !yield(key, field) {
					return
				}
			}
		}
	}
}

// valueOf returns the value of a key.
func valueOf(t *testing.T, config any, key string) any {
	t.Helper()
	for name, value := range keysOf("", reflect.ValueOf(config)) {
		if name == key {
			return value.Interface()
		}
	}
	t.Fatalf("no key %s", key)
	return nil
}

// texts are other values than the default, where one that is made from the type alone would not do.
var texts = map[string]string{
	"protocol": "grpc", "admission.max_concurrent_calls": "7", "retry.initial_backoff": "1ms", "balancer.policy": "random", "balancer.hash_balance": "2.5",
	"outlier.success_rate.enforcement_percent": "50", "outlier.failure_percentage.enforcement_percent": "50",
	"discovery.provider": "static", "log.level": "debug", "log.format": "json",
	"server.listen": "127.0.0.1:9090", "server.advertise": "10.0.0.1:80",
	"discovery.consul.address": "https://consul:8501", "discovery.consul.check.kind": "ttl", "discovery.consul.wait": "30s",
	"discovery.consul.consistency": "default", "discovery.consul.tagged_address": "wan",
	"target":      "memory:///other",
	"tls.enabled": "true", "server.tls.enabled": "true",
	"idempotency": "idempotent", "hedge.quantile": "0.5", // of a method
}

// companions have to be set together with a key.
var companions = map[string][]string{
	"admission.adaptive": {"admission.max_concurrent_calls"}, "admission.max_wait": {"admission.max_concurrent_calls"},
	"tls.ca_file": {"tls.enabled"}, "tls.server_name": {"tls.enabled"},
	"tls.cert_file": {"tls.enabled", "tls.key_file"}, "tls.key_file": {"tls.enabled", "tls.cert_file"},
	"discovery.consul.tls.ca_file": {"discovery.consul.address"}, "discovery.consul.tls.server_name": {"discovery.consul.address"},
	"discovery.consul.tls.ca_path":   {"discovery.consul.address"},
	"discovery.consul.tls.cert_file": {"discovery.consul.tls.key_file", "discovery.consul.address"},
	"discovery.consul.tls.key_file":  {"discovery.consul.tls.cert_file", "discovery.consul.address"},
	"server.tls.enabled":             {"server.tls.cert_file", "server.tls.key_file"},
	"server.tls.ca_file":             {"server.tls.enabled", "server.tls.cert_file", "server.tls.key_file"},
	"server.tls.cert_file":           {"server.tls.enabled", "server.tls.key_file"},
	"server.tls.key_file":            {"server.tls.enabled", "server.tls.cert_file"},
}

// another returns a value that differs from a default, and the texts that set it in the environment and in YAML.
func another(t *testing.T, key string, value reflect.Value) (want any, variable, inYAML string) {
	t.Helper()
	text := texts[key]
	switch value := value.Interface().(type) {
	case time.Duration:
		if text == "" {
			text = (value + time.Second).String()
		}
		duration, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		return duration, text, text
	case bool:
		text = fmt.Sprint(!value)
		return !value, text, text
	case int:
		number, err := strconv.Atoi(cmp.Or(text, fmt.Sprint(value+1)))
		if err != nil {
			t.Fatal(err)
		}
		return number, fmt.Sprint(number), fmt.Sprint(number)
	case uint:
		text = fmt.Sprint(value + 1)
		return value + 1, text, text
	case float64:
		if text == "" {
			text = fmt.Sprint(value / 2)
		}
		number, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatal(err)
		}
		return number, text, text
	case []string:
		return []string{"a", "b"}, "a, b", "[a, b]"
	}
	if value.Kind() != reflect.String {
		t.Fatalf("no other value for %s, a %s", key, value.Type())
	}
	if text == "" {
		text = "other"
	}
	return reflect.ValueOf(text).Convert(value.Type()).Interface(), text, text
}

func variable(key string) string {
	return "GOPLT_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// document writes YAML that sets a key, which stands beneath sections, if any are given.
func document(key, value string, sections ...string) string {
	var text strings.Builder
	parts := slices.Concat(sections, strings.Split(key, "."))
	for depth, part := range parts {
		fmt.Fprintf(&text, "%s%s:", strings.Repeat("  ", depth), part)
		if depth < len(parts)-1 {
			text.WriteString("\n")
		}
	}
	return text.String() + " " + value + "\n"
}

// Every key of the structs, whoever adds one, can be set in the file and in the environment, and its field alone then differs.
func TestEveryKeyCanBeSet(t *testing.T) {
	defaults := config.Default()
	for key, field := range keysOf("", reflect.ValueOf(*defaults)) {
		if field.Kind() == reflect.Map || key == "server.tls.server_name" {
			continue // tests of their own
		}
		want, text, inYAML := another(t, key, field)
		var environ []string
		changed := []string{key}
		for _, other := range companions[key] {
			environ = append(environ, variable(other)+"="+cmp.Or(texts[other], "other"))
			changed = append(changed, other)
		}
		t.Run(key, func(t *testing.T) {
			fromFile := load(t, document(key, inYAML), environ...)
			fromEnvironment := load(t, "", append(environ, variable(key)+"="+text)...)
			for source, loaded := range map[string]*config.Config{"file": fromFile, "environment": fromEnvironment} {
				if got := valueOf(t, *loaded, key); !gocmp.Equal(got, want) {
					t.Errorf("from the %s: %v, want %v", source, got, want)
				}
				for other, field := range keysOf("", reflect.ValueOf(*loaded)) {
					if was := valueOf(t, *defaults, other); !slices.Contains(changed, other) && !gocmp.Equal(field.Interface(), was) {
						t.Errorf("from the %s: %s changed too, from %v to %v", source, other, was, field)
					}
				}
			}
			if got := fromFile.Source(key); !strings.HasSuffix(got, fmt.Sprintf("goplt.yaml line %d", strings.Count(key, ".")+1)) {
				t.Errorf("source %q, want the line", got)
			}
			if got := fromEnvironment.Source(key); got != variable(key) {
				t.Errorf("source %q, want %s", got, variable(key))
			}
			if got := defaults.Source(key); got != "default" {
				t.Errorf("source %q, want default", got)
			}
		})
	}
}

// Every key of a client can be overridden for a service, which changes that service's client and nothing else.
func TestEveryKeyCanBeOverridden(t *testing.T) {
	defaults := config.Default()
	for key, field := range keysOf("", reflect.ValueOf(config.ServiceConfig{Client: defaults.Defaults})) {
		if field.Kind() == reflect.Map {
			continue // TestEveryKeyOfAMethodCanBeOverridden
		}
		want, text, inYAML := another(t, key, field)
		full := "services.billing." + key
		var environ []string
		changed := []string{key}
		for _, other := range companions[key] {
			environ = append(environ, variable("services.billing."+other)+"="+cmp.Or(texts[other], "other"))
			changed = append(changed, other)
		}
		t.Run(key, func(t *testing.T) {
			for source, loaded := range map[string]*config.Config{
				"file":        load(t, document(full, inYAML), environ...),
				"environment": load(t, "", append(environ, variable(full)+"="+text)...),
			} {
				if got := valueOf(t, loaded.Service("billing"), key); !gocmp.Equal(got, want) {
					t.Errorf("from the %s: %v, want %v", source, got, want)
				}
				for other, field := range keysOf("", reflect.ValueOf(loaded.Service("billing"))) {
					was := valueOf(t, defaults.Service("billing"), other)
					if !slices.Contains(changed, other) && !gocmp.Equal(field.Interface(), was) {
						t.Errorf("from the %s: %s changed too, from %v to %v", source, other, was, field)
					}
				}
				if diff := gocmp.Diff(defaults.Defaults, loaded.Defaults); diff != "" {
					t.Errorf("from the %s: the defaults changed:\n%s", source, diff)
				}
				if diff := gocmp.Diff(defaults.Client("auth"), loaded.Client("auth")); diff != "" {
					t.Errorf("from the %s: another service changed:\n%s", source, diff)
				}
			}
		})
	}
}

// Every key of a method can be set, in the file and in the environment, and its field alone then differs from nothing.
func TestEveryKeyOfAMethodCanBeSet(t *testing.T) {
	const method = "goplt.auth.v1.AuthService.ValidateToken"
	for key, field := range keysOf("", reflect.ValueOf(rpc.MethodConfig{})) {
		want, text, inYAML := another(t, key, field)
		full := "methods." + method + "." + key
		t.Run(key, func(t *testing.T) {
			fromFile := load(t, document(key, inYAML, "methods", method))
			fromEnvironment := load(t, "methods: {"+method+": }", variable(full)+"="+text)
			for source, loaded := range map[string]*config.Config{"file": fromFile, "environment": fromEnvironment} {
				for other, field := range keysOf("", reflect.ValueOf(loaded.Defaults.Methods[method])) {
					if got := field.Interface(); other == key && !gocmp.Equal(got, want) || other != key && !field.IsZero() {
						t.Errorf("from the %s: %s is %v", source, other, got)
					}
				}
				if diff := gocmp.Diff(loaded.Defaults, loaded.Client("auth")); diff != "" {
					t.Errorf("from the %s: does not hold for a service:\n%s", source, diff)
				}
			}
			if got := fromFile.Source(full); !strings.HasSuffix(got, fmt.Sprintf("goplt.yaml line %d", strings.Count(key, ".")+3)) {
				t.Errorf("source %q, want the line", got)
			}
			if got := fromEnvironment.Source(full); got != variable(full) {
				t.Errorf("source %q, want %s", got, variable(full))
			}
		})
	}
}

// Every key of a method can be overridden for a service, where the others remain those of the top level.
func TestEveryKeyOfAMethodCanBeOverridden(t *testing.T) {
	const method = "goplt.auth.v1.AuthService.ValidateToken"
	const file = "methods: {" + method + ": {timeout: 2s, attempt_timeout: 1s, hedge: {delay: 5ms, quantile: 0.9, max_hedges: 2}}}\n"
	was := rpc.MethodConfig{
		Timeout: 2 * time.Second, AttemptTimeout: time.Second,
		Hedge: rpc.HedgeConfig{Delay: 5 * time.Millisecond, Quantile: 0.9, MaxHedges: 2},
	}
	for key, field := range keysOf("", reflect.ValueOf(was)) {
		want, text, inYAML := another(t, key, field)
		t.Run(key, func(t *testing.T) {
			for source, loaded := range map[string]*config.Config{
				"file":        load(t, file+document(key, inYAML, "services", "billing", "methods", method)),
				"environment": load(t, file, variable("services.billing.methods."+method+"."+key)+"="+text),
			} {
				for other, field := range keysOf("", reflect.ValueOf(loaded.Client("billing").Methods[method])) {
					if expected := valueOf(t, was, other); other != key && !gocmp.Equal(field.Interface(), expected) {
						t.Errorf("from the %s: %s changed too, from %v to %v", source, other, expected, field)
					} else if other == key && !gocmp.Equal(field.Interface(), want) {
						t.Errorf("from the %s: %s is %v, want %v", source, key, field, want)
					}
				}
				for name, client := range map[string]rpc.ClientConfig{"the top level": loaded.Defaults, "another service": loaded.Client("auth")} {
					if diff := gocmp.Diff(map[string]rpc.MethodConfig{method: was}, client.Methods); diff != "" {
						t.Errorf("from the %s: %s changed:\n%s", source, name, diff)
					}
				}
			}
		})
	}
}

// default.yaml is the reference: each key stands in it, beneath a comment that says more than its name; those of a method in the example that stands
// before methods.
func TestEveryKeyIsDocumented(t *testing.T) {
	text, err := os.ReadFile("default.yaml")
	if err != nil {
		t.Fatal(err)
	}
	comments := expectDocumented(t, string(text), "", reflect.ValueOf(config.Config{}))
	for _, key := range []string{"methods", "discovery.static", "services"} {
		example := exampleIn(comments[key])
		loaded := load(t, strings.Repeat("discovery:\n", strings.Count(key, "."))+example)
		switch key {
		case "methods":
			for method := range loaded.Defaults.Methods {
				_, keys, _ := strings.Cut(example, method+":\n")
				expectDocumented(t, keys, "methods.<name>.", reflect.ValueOf(rpc.MethodConfig{}))
			}
		default:
			if len(loaded.Services)+len(loaded.Discovery.Static) == 0 {
				t.Errorf("default.yaml has no example of %s", key)
			}
		}
	}
}

// expectDocumented checks that a text has the keys of a struct, in their order, each beneath a comment, and returns the comments.
func expectDocumented(t *testing.T, text, prefix string, of reflect.Value) (comments map[string]string) {
	t.Helper()
	var file yaml.Node
	if err := yaml.Unmarshal([]byte(text), &file); err != nil {
		t.Fatal(err)
	}
	comments = make(map[string]string)
	var order []string
	var walk func(prefix string, mapping *yaml.Node)
	walk = func(prefix string, mapping *yaml.Node) {
		for pair := range slices.Chunk(mapping.Content, 2) {
			key := prefix + pair[0].Value
			if pair[1].Kind == yaml.MappingNode && len(pair[1].Content) > 0 {
				walk(key+".", pair[1])
				continue
			}
			comments[key] = pair[0].HeadComment
			order = append(order, key)
		}
	}
	walk(prefix, file.Content[0])
	var keys []string
	for key := range keysOf(prefix, of) {
		keys = append(keys, key)
		prose, _, _ := strings.Cut(comments[key], "\n#   ") // without an example
		if _, there := comments[key]; !there {
			t.Errorf("default.yaml lacks the key %s", key)
		} else if len(strings.Fields(prose)) < 4 || !strings.HasSuffix(prose, ".") && !strings.HasSuffix(prose, ":") {
			t.Errorf("default.yaml says of %s only %q", key, prose)
		}
	}
	if diff := gocmp.Diff(keys, order); diff != "" {
		t.Errorf("default.yaml has not the keys of the structs in their order (-structs +file):\n%s", diff)
	}
	return comments
}

// exampleIn returns the YAML that stands in a comment: the lines that are set off by more than one space.
func exampleIn(comment string) string {
	var text strings.Builder
	for line := range strings.Lines(comment) {
		if line, ok := strings.CutPrefix(line, "#   "); ok {
			text.WriteString("  " + line)
		}
	}
	return text.String()
}

// The defaults of default.yaml are those of the packages that use them.
func TestDefaults(t *testing.T) {
	got := config.Default()
	if diff := gocmp.Diff(rpc.DefaultClientConfig(), got.Defaults); diff != "" {
		t.Errorf("client (-rpc +default.yaml):\n%s", diff)
	}
	if diff := gocmp.Diff(rpc.DefaultServerConfig(), got.Server); diff != "" {
		t.Errorf("server (-rpc +default.yaml):\n%s", diff)
	}
	if want := (config.LogConfig{Level: "info", Format: "text"}); got.Log != want {
		t.Errorf("log is %+v, want %+v", got.Log, want)
	}
	if diff := gocmp.Diff(consul.DefaultConfig(), got.Discovery.Consul); diff != "" {
		t.Errorf("discovery.consul (-consul +default.yaml):\n%s", diff)
	}
	if got.Discovery.Provider != config.ProviderConsul || len(got.Discovery.Static) != 0 || len(got.Services) != 0 {
		t.Errorf("discovery is %+v, services are %+v, want Consul and nothing else", got.Discovery, got.Services)
	}
}

func TestNamesOfVariablesAreUnique(t *testing.T) {
	keys := make(map[string]string)
	for key := range keysOf("", reflect.ValueOf(config.Config{})) {
		if other, taken := keys[variable(key)]; taken {
			t.Errorf("%s sets both %s and %s", variable(key), key, other)
		}
		keys[variable(key)] = key
	}
	for key := range keysOf("methods.x.", reflect.ValueOf(rpc.MethodConfig{})) {
		if other, taken := keys[variable(key)]; taken {
			t.Errorf("%s sets both %s and %s", variable(key), key, other)
		}
		keys[variable(key)] = key
	}
}
