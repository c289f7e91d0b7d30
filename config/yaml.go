package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Bounds on what a file may make the reader do, through aliases above all. Honest files are far below.
const (
	maxFileBytes    = 1 << 20
	maxNodes        = 20_000
	maxProblems     = 100
	maxUnknownDepth = 8
)

// yamlReader takes the values of one YAML document, with the line of each.
type yamlReader struct {
	schema   *node
	name     string // of the file, for messages
	values   map[string]any
	sources  map[string]string // of the values, and of all entries of maps
	names    map[kind][]string // of the entries of maps, with or without keys beneath
	problems []error
	nodes    int
}

// read takes the values from data. Without a document in it there are none.
func (r *yamlReader) read(data []byte) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return
	case err != nil:
		r.failf("%s: not YAML: %s", r.name, strings.TrimPrefix(err.Error(), "yaml: "))
		return
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		r.failf("%s: holds more than one YAML document; want one", r.name)
		return
	}
	r.section(r.schema, "", document.Content[0])
}

func (r *yamlReader) failf(format string, args ...any) {
	r.problems = append(r.problems, &Error{Source: r.name, text: fmt.Sprintf(format, args...)})
}

func (r *yamlReader) source(at *yaml.Node) string { return fmt.Sprintf("%s line %d", r.name, at.Line) }

func (r *yamlReader) problem(path string, at *yaml.Node, problem string) {
	if path == "" {
		r.problems = append(r.problems, &Error{Source: r.source(at), text: r.source(at) + ": " + problem})
		return
	}
	r.problems = append(r.problems, keyError(path, r.source(at), problem, nil))
}

// exhausted counts a node, and reports whether there were too many of them, or of problems, to go on.
func (r *yamlReader) exhausted() bool {
	r.nodes++
	if r.nodes == maxNodes {
		r.failf("%s: has more than %d values, aliases counted as often as they are used", r.name, maxNodes)
	}
	if len(r.problems) == maxProblems {
		r.failf("%s: has more problems than the %d named", r.name, maxProblems)
	}
	return r.nodes >= maxNodes || len(r.problems) >= maxProblems
}

// section takes what is beneath n, whose path is given, from a mapping. No value at all is an empty mapping, as when its keys are commented out.
func (r *yamlReader) section(n *node, path string, at *yaml.Node) {
	mapping := resolve(at)
	if isNull(mapping) {
		return
	}
	if mapping.Kind != yaml.MappingNode {
		problem := describe(path, mapping) + " is not a section of keys"
		if n.children != nil {
			problem += "; want some of " + strings.Join(n.names(), ", ") + " beneath"
		}
		r.problem(path, at, problem)
		return
	}
	seen := make(map[string]int, len(mapping.Content)/2)
	for pair := range slices.Chunk(mapping.Content, 2) {
		if r.exhausted() {
			return
		}
		name, value := resolve(pair[0]), pair[1]
		if problem := r.badName(n, path, name, seen); problem != "" {
			r.problem(path, pair[0], problem)
			continue
		}
		seen[name.Value] = pair[0].Line
		r.entry(n, join(path, name.Value), name.Value, pair[0], value)
	}
}

// badName says what is wrong with the name of a key beneath n, apart from being unknown.
func (r *yamlReader) badName(n *node, path string, name *yaml.Node, seen map[string]int) string {
	switch {
	case name.Kind != yaml.ScalarNode:
		return "a key is a name, not " + describe(path, name)
	case name.Tag == tagMerge:
		return `merge keys ("<<") are not supported; repeat the keys`
	case n.element == nil && strings.Contains(name.Value, separator):
		return quote(name.Value) + " is not the name of a key"
	case seen[name.Value] != 0:
		return fmt.Sprintf("key %s is set twice, first in line %d", quote(name.Value), seen[name.Value])
	case n.element != nil:
		if err := n.kind.validate(name.Value); err != nil {
			return err.Error()
		}
	}
	return ""
}

func (r *yamlReader) entry(parent *node, path, name string, key, value *yaml.Node) {
	n := parent.child(name)
	if n == nil {
		r.unknown(path, key, value, 0)
		return
	}
	if parent.element != nil {
		r.names[parent.kind] = append(r.names[parent.kind], name)
	}
	if !n.leaf() {
		before := len(r.values)
		r.section(n, path, value)
		if parent.element != nil {
			r.sources[path] = r.source(key)
			if len(r.values) == before {
				r.values[path] = map[string]any{} // there, with nothing set
			}
		}
		return
	}
	got, problem := leafValue(n.typ, path, resolve(value))
	if problem != "" {
		r.problem(path, key, problem)
		return
	}
	r.values[path], r.sources[path] = got, r.source(key)
}

// unknown reports a key that does not exist; if it is a section, each key in it, because what was meant is clearer from those.
func (r *yamlReader) unknown(path string, key, value *yaml.Node, depth int) {
	mapping := resolve(value)
	if mapping.Kind != yaml.MappingNode || len(mapping.Content) == 0 || depth == maxUnknownDepth {
		r.problems = append(r.problems, unknownKey(path, r.source(key), suggestKey(r.schema, path)))
		return
	}
	for pair := range slices.Chunk(mapping.Content, 2) {
		if r.exhausted() {
			return
		}
		r.unknown(join(path, resolve(pair[0]).Value), pair[0], pair[1], depth+1)
	}
}

// leafValue takes the value of a key of type typ.
func leafValue(typ reflect.Type, path string, value *yaml.Node) (got any, problem string) {
	shown := describe(path, value)
	switch {
	case isNull(value):
		return nil, "has no value; want " + want(typ)
	case typ.Kind() == reflect.Slice && value.Kind == yaml.SequenceNode:
		return listValue(path, value)
	case typ.Kind() == reflect.Slice || value.Kind != yaml.ScalarNode:
		return nil, shown + " is not " + want(typ)
	case slices.Contains(yamlTags(typ), value.ShortTag()):
		return parse(typ, value.Value, shown)
	case typ.Kind() == reflect.String:
		return nil, shown + " is not text; put it in quotes"
	}
	problem = shown + " is not " + want(typ)
	if _, misfit := parse(typ, value.Value, shown); misfit == "" && value.ShortTag() == tagText {
		problem += "; remove the quotes"
	}
	return nil, problem
}

// YAML's types of scalars, as [yaml.Node.ShortTag] names them.
const (
	tagText   = "!!str"
	tagWhole  = "!!int"
	tagNumber = "!!float"
	tagTruth  = "!!bool"
	tagNull   = "!!null"
	tagMerge  = "!!merge"
)

// yamlTags returns the types of YAML in which the values of typ are written. A number is let through to where a duration's unit is missed, and a
// fraction to where it is seen not to be whole.
func yamlTags(typ reflect.Type) []string {
	switch {
	case typ == reflect.TypeFor[time.Duration]():
		return []string{tagText, tagWhole, tagNumber}
	case typ.Kind() == reflect.String:
		return []string{tagText}
	case typ.Kind() == reflect.Bool:
		return []string{tagTruth}
	default:
		return []string{tagWhole, tagNumber}
	}
}

func listValue(path string, list *yaml.Node) (got any, problem string) {
	entries := make([]string, 0, len(list.Content))
	for i, entry := range list.Content {
		entry = resolve(entry)
		if entry.Kind != yaml.ScalarNode || entry.ShortTag() != tagText {
			return nil, fmt.Sprintf("entry %d, %s, is not text; put it in quotes", i+1, describe(path, entry))
		}
		entries = append(entries, entry.Value)
	}
	return entries, ""
}

// resolve follows an alias to the node that it stands for; an anchor never stands on an alias.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == tagNull }

// describe writes a node for a message.
func describe(path string, n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a section of keys"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(n):
		return "nothing"
	case n.ShortTag() == tagText || secret(path):
		return show(path, n.Value)
	default:
		return clip(n.Value, maxShown)
	}
}
