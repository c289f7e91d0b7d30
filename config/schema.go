package config

import (
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// separator stands between the parts of a path within this package. It cannot occur in the name of a service or method, as a dot can.
const separator = "/"

// A node is one place in the tree of keys that the tags of [Config] span: a struct with children, a map from names of one kind to entries, or a
// leaf that holds a value. An entry is a struct, in which there may be maps again, or a leaf.
type node struct {
	name     string
	typ      reflect.Type
	index    []int   // the field within the nearest struct above that is not squashed
	children []*node // of a struct, in the order of its fields
	element  *node   // of a map: what each name maps to
	kind     kind    // of a map: what its names are
}

// schemaOf returns the tree of the keys of typ, name being that of the key that has it. The structs are the program's own, so a field that no layer
// can fill is a mistake in the program.
func schemaOf(name string, typ reflect.Type) *node {
	n := &node{name: name, typ: typ}
	switch typ.Kind() {
	case reflect.Struct:
		n.addFields(typ, nil)
	case reflect.Map:
		if n.kind = kindOf(name); n.kind == "" {
			panic("config: no kind of names is known for the map " + name)
		}
		n.element = schemaOf("", typ.Elem())
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
			child := schemaOf(name, field.Type)
			child.index = index
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

// names lists what stands directly beneath a struct.
func (n *node) names() []string {
	names := make([]string, len(n.children))
	for i, child := range n.children {
		names[i] = child.name
	}
	return names
}

// A walk says which keys [node.keys] yields.
type walk struct {
	// names returns the names of the entries to look at of the map at a path. Nil means none.
	names func(path string, n *node) []string
	// enter reports whether to look at a path and what is beneath it. Nil means all.
	enter func(path string) bool
}

// keys yields the path and the node of each leaf beneath n, the root, in the order of the structs.
func (n *node) keys(w walk) iter.Seq2[string, *node] {
	return func(yield func(string, *node) bool) { n.eachKey("", w, yield) }
}

func (n *node) eachKey(path string, w walk, yield func(string, *node) bool) bool {
	switch {
	case w.enter != nil && path != "" && !w.enter(path):
		return true
	case n.leaf():
		return yield(path, n)
	case n.element != nil && w.names != nil:
		for _, name := range w.names(path, n) {
			if !n.element.eachKey(join(path, name), w, yield) {
				return false
			}
		}
	}
	for _, child := range n.children {
		if !child.eachKey(join(path, child.name), w, yield) {
			return false
		}
	}
	return true
}

// values yields the path and the value of each leaf beneath n, whose own path and value are given, and of each entry of a map, before what is beneath
// it; the entries of maps are sorted.
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
			if !n.element.leaf() && !yield(join(path, name), entries[name]) || !n.element.eachValue(join(path, name), entries[name], yield) {
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

// set puts a value of a leaf, or nil for an entry of a map without more ado, at a path beneath n into into, what n stands for. Entries of maps that
// are not there yet begin empty; those that are keep what else they hold.
func (n *node) set(into reflect.Value, path string, value any) {
	switch name, rest, _ := strings.Cut(path, separator); {
	case n.leaf():
		if list, isList := value.([]string); isList && len(list) == 0 {
			into.SetZero() // an empty list is no list, as in the defaults of the packages
			return
		}
		into.Set(reflect.ValueOf(value).Convert(n.typ))
	case path == "":
	case n.element != nil:
		if into.IsNil() {
			into.Set(reflect.MakeMap(n.typ))
		}
		entry := reflect.New(n.element.typ).Elem()
		if there := into.MapIndex(reflect.ValueOf(name)); there.IsValid() {
			entry.Set(there)
		}
		n.element.set(entry, rest, value)
		into.SetMapIndex(reflect.ValueOf(name), entry)
	default:
		child := n.child(name)
		child.set(into.FieldByIndex(child.index), rest, value)
	}
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
