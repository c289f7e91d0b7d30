package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/0x1d/goplt/pkg/registry"
)

const (
	// envPrefix begins the name of every variable that sets a key.
	envPrefix = "GOPLT_"
	// PathVariable is the environment variable in which the goplt command looks for the path of the configuration file. [Load] passes over it.
	PathVariable = "GOPLT_CONFIG"
)

// environReader takes values from environment variables.
type environReader struct {
	schema   *node
	known    names // that a variable may refer to in its own spelling
	values   map[string]any
	sources  map[string]string
	problems []error
}

// read takes the values from environ, in the form of [os.Environ]. Of a variable that is set twice the last holds, as in [os/exec.Cmd].
func (r *environReader) read(environ []string) {
	variables := make(map[string]string)
	for _, entry := range environ {
		if name, text, ok := strings.Cut(entry, "="); ok && strings.HasPrefix(name, envPrefix) && name != PathVariable {
			variables[name] = text
		}
	}
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		path, err := r.lookup(name)
		if err != nil {
			r.problems = append(r.problems, err)
			continue
		}
		value, problem := envValue(r.schema.find(path).typ, path, variables[name])
		if problem != "" {
			r.problems = append(r.problems, keyError(path, name, problem, nil))
			continue
		}
		r.values[path], r.sources[path] = value, name
	}
}

func envValue(typ reflect.Type, path, text string) (value any, problem string) {
	if typ.Kind() == reflect.Slice {
		return parseList(text), ""
	}
	return parse(typ, text, show(path, text))
}

// lookup returns the path of the key that the variable with a name sets. An underscore stands for the step from section to key, for one in a key,
// and for '-', '_' and '.' in the name of a service or method, so names are not split but compared with those of all keys there are.
func (r *environReader) lookup(name string) (path string, err error) {
	var matches, known []string
	for path := range r.schema.keys("", r.known) {
		if envName(path) == name {
			matches = append(matches, path)
		}
		known = append(known, strings.TrimPrefix(envName(path), envPrefix))
	}
	if len(matches) == 0 {
		for path := range r.newService(name) {
			if envName(path) == name {
				return path, nil
			}
			known = append(known, strings.TrimPrefix(envName(path), envPrefix))
		}
	}
	switch len(matches) {
	case 0:
		return "", &Error{Source: name, text: "unknown environment variable " + escape(name) + r.hint(name, known)}
	case 1:
		return matches[0], nil
	default:
		return "", &Error{Source: name, text: fmt.Sprintf("ambiguous environment variable %s: %s or %s; set the key in the file instead",
			name, display(matches[0]), display(matches[1]))}
	}
}

// hint ends the message about the unknown variable with a name, known being those that could be meant, without the prefix.
func (r *environReader) hint(name string, known []string) string {
	quote := func(name string) string { return envPrefix + name }
	hint := didYouMean(strings.TrimPrefix(clip(name), envPrefix), known, "_", quote, nil)
	aboutKnown := func(service string) bool { return strings.HasPrefix(name, envName(join("services", service))+"_") }
	switch {
	case strings.HasPrefix(name, envPrefix+"SERVICES_") && !slices.ContainsFunc(r.known.services, aboutKnown):
		return hint + "; a service with '-', '_' or '.' in its name has to stand under services in the file first"
	case strings.Contains(name, "METHODS_"):
		return hint + "; a method has to stand under methods in the file first"
	case hint == "":
		return "; want " + envPrefix + " and a key in capitals, such as " + envName("retry/max_attempts") + " for retry.max_attempts"
	}
	return hint
}

// newService yields the keys of the service that a variable names and the reader does not know: it can have a name of one word only, so that where
// the name ends is never a guess.
func (r *environReader) newService(name string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for path, n := range r.schema.maps("") {
			rest, ok := strings.CutPrefix(name, envName(path)+"_")
			if !ok || n.ofMethods() {
				continue
			}
			word := rest
			if !n.element.leaf() {
				word, _, _ = strings.Cut(rest, "_")
			}
			if strings.Contains(word, "_") || registry.ValidateServiceName(word) != nil {
				continue
			}
			service := strings.ToLower(word)
			if !n.element.eachKey(join(path, service), r.known, yield) {
				return
			}
		}
	}
}

// envName returns the name of the variable that sets the key at a path.
func envName(path string) string {
	return envPrefix + strings.ToUpper(strings.NewReplacer(separator, "_", "-", "_", ".", "_").Replace(path))
}
