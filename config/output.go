package config

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// YAML writes the configuration to w in the form of a configuration file: every key, in the order of the structs, with its source in a comment
// behind it. Of services and methods only what is set for them is written, and {} where that is nothing. Secrets are written as "[redacted]".
func (c Config) YAML(w io.Writer) error {
	root := &yaml.Node{Kind: yaml.MappingNode}
	view := viewOf(c)
	for path, value := range view.shown() {
		source := view.source(path)
		if source == "" {
			source = sourceProgram
		}
		if err := addLeaf(root, strings.Split(path, separator), value, source); err != nil {
			return fmt.Errorf("write configuration: %w", err)
		}
	}
	encoder := yaml.NewEncoder(w)
	encoder.SetIndent(2)
	if err := encoder.Encode(root); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if err := encoder.Close(); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}

// addLeaf adds a value to a mapping. Leaves come in order, so the section that parts lead into is the mapping's last entry or a new one.
func addLeaf(mapping *yaml.Node, parts []string, value any, comment string) error {
	key := &yaml.Node{}
	if err := key.Encode(parts[0]); err != nil {
		return err
	}
	if len(parts) == 1 {
		leaf := &yaml.Node{}
		if err := leaf.Encode(value); err != nil {
			return err
		}
		leaf.Style |= yaml.FlowStyle
		leaf.LineComment = "# " + comment
		mapping.Content = append(mapping.Content, key, leaf)
		return nil
	}
	if last := len(mapping.Content) - 2; last < 0 || mapping.Content[last].Value != parts[0] {
		mapping.Content = append(mapping.Content, key, &yaml.Node{Kind: yaml.MappingNode})
	}
	return addLeaf(mapping.Content[len(mapping.Content)-1], parts[1:], value, comment)
}

// Redacted returns what [Config.YAML] writes, without the sources, as nested maps for other encoders: texts, numbers, truth values and lists of
// texts. The caller may change it.
func (c Config) Redacted() map[string]any {
	root := make(map[string]any)
	for path, value := range viewOf(c).shown() {
		mapping := root
		parts := strings.Split(path, separator)
		for _, part := range parts[:len(parts)-1] {
			section, ok := mapping[part].(map[string]any)
			if !ok {
				section = make(map[string]any)
				mapping[part] = section
			}
			mapping = section
		}
		mapping[parts[len(parts)-1]] = value
	}
	return root
}

// String is what [Config.YAML] writes.
func (c Config) String() string {
	var text strings.Builder
	if err := c.YAML(&text); err != nil {
		return err.Error()
	}
	return text.String()
}

// GoString is [Config.String], so that %#v hides secrets too.
func (c Config) GoString() string { return c.String() }

// LogValue is [Config.Redacted].
func (c Config) LogValue() slog.Value { return slog.AnyValue(c.Redacted()) }

// MarshalJSON encodes [Config.Redacted].
func (c Config) MarshalJSON() ([]byte, error) { return json.Marshal(c.Redacted()) }

// plain writes the value at a path in the types that encoders know.
func plain(path string, value any) any {
	switch value := value.(type) {
	case entry:
		return map[string]any{}
	case time.Duration:
		return durationText(value)
	case []string:
		return append([]string{}, value...)
	}
	if reflected := reflect.ValueOf(value); reflected.Kind() == reflect.String {
		if secret(path) && reflected.String() != "" {
			return redacted
		}
		return reflected.String()
	}
	return value
}
