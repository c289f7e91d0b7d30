package config

import (
	"iter"
	"reflect"
	"strings"
)

// Source says where the value of a key comes from, such as "services.auth.timeout": "goplt.yaml line 3", "GOPLT_TIMEOUT", "default", or "program" if
// the program changed it. A service's key that is not overridden has the source of the key at the top level. It is empty for a key that
// does not exist.
func (c Config) Source(key string) string {
	view := viewOf(c)
	for path := range view.values {
		if display(path) != key {
			continue
		}
		if source := view.source(path); source != "" {
			return source
		}
		return sourceProgram
	}
	return ""
}

// The sources that are neither a line of a file nor a variable.
const (
	sourceDefault = "default"
	sourceProgram = "program"
)

// origin is where the value of a key came from, and the value, by which a later change in the program is noticed.
type origin struct {
	source string
	value  any
}

// A view is a configuration taken apart: the value of each leaf by its path.
type view struct {
	paths   []string // in the order of the structs, entries of maps sorted
	values  map[string]any
	origins map[string]origin
}

func viewOf(c Config) view {
	v := view{values: make(map[string]any), origins: c.origins}
	for path, value := range schemaOf(reflect.TypeFor[Config]()).values("", reflect.ValueOf(c)) {
		v.paths = append(v.paths, path)
		v.values[path] = value.Interface()
	}
	return v
}

// source returns where the value at a path comes from; empty if the program set it.
func (v view) source(path string) string {
	if origin, ok := v.origins[path]; ok {
		if reflect.DeepEqual(origin.value, v.values[path]) {
			return origin.source
		}
		return ""
	}
	if above, ok := inherited(path); ok && reflect.DeepEqual(v.values[path], v.values[above]) {
		return v.source(above)
	}
	return ""
}

// own reports whether the value at a path does not come from another key: that of a service may come from the top level, or be no target at all.
func (v view) own(path string) bool {
	if _, ok := v.origins[path]; ok {
		return true
	}
	if above, ok := inherited(path); ok {
		return !reflect.DeepEqual(v.values[path], v.values[above])
	}
	return !strings.HasPrefix(path, "services"+separator) || v.values[path] != ""
}

// shown yields the values that say all: those that are a key's own, and no secrets. Durations are texts.
func (v view) shown() iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		for _, path := range v.paths {
			if v.own(path) && !yield(path, plain(path, v.values[path])) {
				return
			}
		}
	}
}

// inherited returns the path at the top level from which a service's key has its value unless it is set for the service.
func inherited(path string) (above string, ok bool) {
	rest, ok := strings.CutPrefix(path, "services"+separator)
	if !ok {
		return "", false
	}
	_, above, ok = strings.Cut(rest, separator)
	return above, ok && above != "target"
}
