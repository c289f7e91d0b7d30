package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

const (
	// envPrefix begins the name of every variable that sets a key.
	envPrefix = "GOPLT_"
	// PathVariable is the environment variable in which the goplt command looks for the path of the configuration file. [Load] passes over it.
	PathVariable = "GOPLT_CONFIG"
	// maxCandidates bounds the keys that are compared with the name of an unknown variable.
	maxCandidates = 5_000
)

// environReader takes values from environment variables.
type environReader struct {
	schema   *node
	names    map[kind][]string // that a variable may refer to in its own spelling
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
		path, key, err := r.lookup(name)
		if err != nil {
			r.problems = append(r.problems, err)
			continue
		}
		value, problem := envValue(key.typ, path, variables[name])
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

// lookup returns the key that a variable sets. An underscore stands for the step from section to key, for one in a key, and for '-', '_' and '.' in
// the name of a service or method, so names are not split but compared with those of all keys there are. Only if no key beneath a known name fits may
// the variable name a new service.
func (r *environReader) lookup(variable string) (path string, key *node, err error) {
	enter := func(path string) bool { return leads(variable, path) }
	for _, names := range []func(string, *node) []string{r.known, r.knownAndNew(variable)} {
		var matches []string
		for at, leaf := range r.schema.keys(walk{names, enter}) {
			if envName(at) == variable {
				matches, key = append(matches, at), leaf
			}
		}
		switch len(matches) {
		case 0:
		case 1:
			return matches[0], key, nil
		default:
			return "", nil, &Error{Source: variable, text: fmt.Sprintf("ambiguous environment variable %s: %s or %s; set the key in the file instead",
				escape(variable), display(matches[0]), display(matches[1]))}
		}
	}
	return "", nil, &Error{Source: variable, text: "unknown environment variable " + escape(variable) + r.hint(variable)}
}

// known returns the names of the entries that are known to be in a map.
func (r *environReader) known(_ string, n *node) []string { return r.names[n.kind] }

// knownAndNew returns the known names and that of the entry that the variable may mean besides.
func (r *environReader) knownAndNew(variable string) func(string, *node) []string {
	return func(path string, n *node) []string {
		names := r.names[n.kind]
		if text, ok := strings.CutPrefix(variable, envName(path)+"_"); ok {
			if !n.element.leaf() {
				text, _, _ = strings.Cut(text, "_") // what follows is the key beneath
			}
			if name, ok := n.kind.coin(text); ok && !slices.Contains(names, name) {
				return append(slices.Clip(names), name)
			}
		}
		return names
	}
}

// hint ends the message about the unknown variable.
func (r *environReader) hint(variable string) string {
	var candidates []string
	for path := range r.schema.keys(walk{names: r.knownAndNew(variable)}) {
		if len(candidates) == maxCandidates {
			break
		}
		candidates = append(candidates, strings.TrimPrefix(envName(path), envPrefix))
	}
	quote := func(name string) string { return envPrefix + name }
	hint := didYouMean(strings.TrimPrefix(clip(variable, maxKeyShown), envPrefix), candidates, "_", quote, nil)
	if missed := r.missed(variable); missed != "" {
		return hint + missed
	}
	if hint == "" {
		return "; want " + envPrefix + " and a key in capitals, such as " + envName("retry/max_attempts") + " for retry.max_attempts"
	}
	return hint
}

// missed says what to do about the map that the variable leads into without leading to an entry that is known, the innermost if there are more.
func (r *environReader) missed(variable string) (hint string) {
	enter := func(path string) bool { return leads(variable, path) }
	names := func(path string, n *node) []string {
		if !slices.ContainsFunc(r.names[n.kind], func(name string) bool { return enter(join(path, name)) }) {
			hint = n.kind.unknown(path)
		}
		return r.knownAndNew(variable)(path, n)
	}
	for range r.schema.keys(walk{names, enter}) { // names is what is called for
	}
	return hint
}

// leads reports whether the variable may be that of the key at a path or of one beneath.
func leads(variable, path string) bool {
	rest, ok := strings.CutPrefix(variable, envName(path))
	return ok && (rest == "" || rest[0] == '_')
}

// envName returns the name of the variable that sets the key at a path.
func envName(path string) string {
	return envPrefix + strings.ToUpper(strings.NewReplacer(separator, "_", "-", "_", ".", "_").Replace(path))
}
