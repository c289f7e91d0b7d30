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
	for path, value := range view.values {
		if display(path) != key || value == (entry{}) {
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

// entry is the value of an entry of a map whose own values stand beneath it.
type entry struct{}

// A view is a configuration taken apart: the value of each leaf, and an [entry] for each entry of a map of sections, by its path.
type view struct {
	paths   []string // in the order of the structs, entries of maps sorted, each before what is beneath
	values  map[string]any
	origins map[string]origin
}

func viewOf(c Config) view {
	v := view{values: make(map[string]any), origins: c.origins}
	for path, value := range schemaOf("", reflect.TypeFor[Config]()).values("", reflect.ValueOf(c)) {
		v.paths = append(v.paths, path)
		if value.Kind() == reflect.Struct {
			v.values[path] = entry{}
			continue
		}
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
	if v.own(path) {
		return ""
	}
	if above, ok := v.above(path); ok {
		return v.source(above)
	}
	return sourceDefault
}

// own reports whether the value at a path was set there, or differs from what it is where nobody sets it: beneath the name of a service what stands
// at the top level, and where nothing does so beneath the name of an entry, the zero value.
func (v view) own(path string) bool {
	value, there := v.values[path]
	if _, set := v.origins[path]; set || !there {
		return true
	}
	if above, ok := v.above(path); ok {
		return !reflect.DeepEqual(value, v.values[above])
	}
	return value == (entry{}) || !v.beneathEntry(path) || !reflect.ValueOf(value).IsZero()
}

// above returns the path at the top level from which what is at a path beneath a service has its value unless it is set for the service.
func (v view) above(path string) (above string, ok bool) {
	rest, ok := strings.CutPrefix(path, "services"+separator)
	if !ok {
		return "", false
	}
	if _, above, ok = strings.Cut(rest, separator); ok {
		_, ok = v.values[above]
	}
	return above, ok
}

// beneathEntry reports whether a path leads through an entry of a map.
func (v view) beneathEntry(path string) bool {
	for at := strings.LastIndex(path, separator); at > 0; at = strings.LastIndex(path[:at], separator) {
		if v.values[path[:at]] == (entry{}) {
			return true
		}
	}
	return false
}

// shown yields the values that say all: those that are a key's own, and no secrets. Durations are texts, and an entry beneath which there would be
// nothing is an empty map.
func (v view) shown() iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		for at, path := range v.paths {
			value := v.values[path]
			if !v.own(path) || value == (entry{}) && v.ownBeneath(at) {
				continue
			}
			if !yield(path, plain(path, value)) {
				return
			}
		}
	}
}

// ownBeneath reports whether anything beneath the entry at a place in paths is its own.
func (v view) ownBeneath(at int) bool {
	for _, path := range v.paths[at+1:] {
		if !strings.HasPrefix(path, v.paths[at]+separator) {
			break
		}
		if v.own(path) {
			return true
		}
	}
	return false
}
