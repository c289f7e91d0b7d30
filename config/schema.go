package config

import (
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/0x1d/goplt/pkg/rpc"
)

// separator stands between the parts of a path within this package. It cannot occur in the name of a service or method, as a dot can.
const separator = "/"

// A node is one place in the tree of keys that the tags of [Config] span: a struct with children, a map from names of services, or a leaf that
// holds a value.
type node struct {
	name     string
	typ      reflect.Type
	index    []int   // the field within the nearest struct above that is not squashed
	children []*node // of a struct, in the order of its fields
	element  *node   // of a map: what each name maps to
}

// schemaOf returns the tree of the keys of typ. The structs are the program's own, so a field of a kind that no layer can fill is a mistake in the
// program.
func schemaOf(typ reflect.Type) *node {
	n := &node{typ: typ}
	switch typ.Kind() {
	case reflect.Struct:
		n.addFields(typ, nil)
	case reflect.Map:
		n.element = schemaOf(typ.Elem())
	default:
		if want(typ) == "" {
			panic(fmt.Sprintf("config: no key can have the type %s", typ))
		}
	}
	return n
}

func (n *node) addFields(typ reflect.Type, above []int) {
	for i := range typ.NumField() {
		field := typ.Field(i)
		index := append(slices.Clip(above), i)
		name, options, tagged := strings.Cut(field.Tag.Get("koanf"), ",")
		switch {
		case tagged && options == "squash":
			n.addFields(field.Type, index)
		case name != "" && name != "-":
			child := schemaOf(field.Type)
			child.name, child.index = name, index
			n.children = append(n.children, child)
		}
	}
}

func (n *node) leaf() bool { return n.children == nil && n.element == nil }

// child returns the node beneath n that name leads to, or nil. Every name leads somewhere beneath a map.
func (n *node) child(name string) *node {
	if n.element != nil {
		return n.element
	}
	for _, child := range n.children {
		if child.name == name {
			return child
		}
	}
	return nil
}

// find returns the node at a path, or nil.
func (n *node) find(path string) *node {
	for part := range strings.SplitSeq(path, separator) {
		if n = n.child(part); n == nil {
			return nil
		}
	}
	return n
}

// childNames lists what stands directly beneath a struct.
func (n *node) childNames() []string {
	all := make([]string, len(n.children))
	for i, child := range n.children {
		all[i] = child.name
	}
	return all
}

// ofMethods reports whether n is a map by the names of methods, which are full protobuf names. Other maps are by the names of services.
func (n *node) ofMethods() bool {
	return n.element != nil && n.element.typ == reflect.TypeFor[rpc.MethodConfig]()
}

// names is what stands in the maps of a configuration.
type names struct{ services, methods []string }

func (of names) in(n *node) []string {
	if n.ofMethods() {
		return of.methods
	}
	return of.services
}

// keys yields the path of each leaf beneath n, path being that of n, for a map those beneath each of the given names.
func (n *node) keys(path string, known names) iter.Seq[string] {
	return func(yield func(string) bool) { n.eachKey(path, known, yield) }
}

func (n *node) eachKey(path string, known names, yield func(string) bool) bool {
	switch {
	case n.leaf():
		return yield(path)
	case n.element != nil:
		for _, name := range known.in(n) {
			if !n.element.eachKey(join(path, name), known, yield) {
				return false
			}
		}
	default:
		for _, child := range n.children {
			if !child.eachKey(join(path, child.name), known, yield) {
				return false
			}
		}
	}
	return true
}

// maps yields the path and the node of each map beneath n, whose own path is given.
func (n *node) maps(path string) iter.Seq2[string, *node] {
	return func(yield func(string, *node) bool) { n.eachMap(path, yield) }
}

func (n *node) eachMap(path string, yield func(string, *node) bool) bool {
	if n.element != nil && !yield(path, n) {
		return false
	}
	for _, child := range n.children {
		if !child.eachMap(join(path, child.name), yield) {
			return false
		}
	}
	return true
}

// values yields the path and the value of each leaf beneath n, whose own path and value are given; the entries of maps are sorted.
func (n *node) values(path string, value reflect.Value) iter.Seq2[string, reflect.Value] {
	return func(yield func(string, reflect.Value) bool) { n.eachValue(path, value, yield) }
}

func (n *node) eachValue(path string, value reflect.Value, yield func(string, reflect.Value) bool) bool {
	switch {
	case n.leaf():
		return yield(path, value)
	case n.element != nil:
		entries := make(map[string]reflect.Value, value.Len())
		for _, name := range value.MapKeys() {
			entries[name.String()] = value.MapIndex(name)
		}
		for _, name := range slices.Sorted(maps.Keys(entries)) {
			if !n.element.eachValue(join(path, name), entries[name], yield) {
				return false
			}
		}
	default:
		for _, child := range n.children {
			if !child.eachValue(join(path, child.name), value.FieldByIndex(child.index), yield) {
				return false
			}
		}
	}
	return true
}

// want describes the values of a leaf's type, or is empty if no leaf can have the type.
func want(typ reflect.Type) string {
	switch {
	case typ == reflect.TypeFor[time.Duration]():
		return "a duration such as 500ms, 30s or 1m30s"
	case typ.Kind() == reflect.String:
		return "text"
	case typ.Kind() == reflect.Bool:
		return "true or false"
	case typ.Kind() == reflect.Int:
		return "a whole number"
	case typ.Kind() == reflect.Uint:
		return "a whole number of 0 or more"
	case typ.Kind() == reflect.Float64:
		return "a number"
	case typ == reflect.TypeFor[[]string]():
		return "a list such as [a, b]"
	default:
		return ""
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + separator + name
}

// display writes a path as users write it.
func display(path string) string { return strings.ReplaceAll(path, separator, ".") }

// secret reports whether the value at a path must not be shown.
func secret(path string) bool {
	switch path[strings.LastIndex(path, separator)+1:] {
	case "token", "password", "secret":
		return true
	}
	return false
}
