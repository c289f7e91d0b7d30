package config

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/v2"

	"github.com/0x1d/goplt/pkg/services"
)

// layers puts values over values, and remembers where those that hold come from.
type layers struct {
	schema   *node
	merged   *koanf.Koanf
	sources  map[string]string
	services []string // paths of the services that a file names, with or without keys beneath
	problems []error
}

// parseLayers reads default.yaml, data as the file with a name, and environ.
func parseLayers(name string, data []byte, environ []string) (*Config, error) {
	l := &layers{schema: schemaOf(reflect.TypeFor[Config]()), merged: koanf.New(separator), sources: make(map[string]string)}
	l.addYAML(sourceDefault, defaultYAML)
	for path := range l.sources {
		l.sources[path] = sourceDefault // a line of it would say no more
	}
	l.addYAML(name, data)
	l.addEnviron(environ)
	config, err := l.decode()
	if err != nil {
		return nil, err
	}
	// What a reader refused is missing here, so that its default is checked in its place; a problem that only this makes is rare, and mended with it.
	if err := errors.Join(append(l.problems, flatten(config.Validate())...)...); err != nil {
		return nil, err
	}
	return config, nil
}

func (l *layers) addYAML(name string, data []byte) {
	reader := &yamlReader{schema: l.schema, name: name, values: make(map[string]any), sources: make(map[string]string)}
	reader.read(data)
	l.services = append(l.services, reader.services...)
	l.add(reader.values, reader.sources, reader.problems)
}

func (l *layers) addEnviron(environ []string) {
	names := services.Names()
	for _, path := range l.services {
		names = append(names, path[strings.LastIndex(path, separator)+1:])
	}
	slices.Sort(names)
	reader := &environReader{schema: l.schema, services: slices.Compact(names), values: make(map[string]any), sources: make(map[string]string)}
	reader.read(environ)
	l.add(reader.values, reader.sources, reader.problems)
}

func (l *layers) add(values map[string]any, sources map[string]string, problems []error) {
	l.problems = append(l.problems, problems...)
	maps.Copy(l.sources, sources)
	if err := l.merged.Load(confmap.Provider(values, separator), nil); err != nil {
		l.problems = append(l.problems, fmt.Errorf("merge configuration: %w", err))
	}
}

// decode fills a Config from the merged values, and each service's settings from the defaults and its own.
func (l *layers) decode() (*Config, error) {
	config := &Config{Services: make(map[string]ServiceConfig)}
	overrides := l.merged.Cut("services")
	l.merged.Delete("services")
	if err := unmarshal(l.merged, "", config); err != nil {
		return nil, err
	}
	names := overrides.MapKeys("")
	for _, path := range l.services {
		if name, ok := strings.CutPrefix(path, "services"+separator); ok {
			names = append(names, name)
		}
	}
	for _, name := range names {
		service := ServiceConfig{Client: config.Defaults}
		if err := unmarshal(overrides, name, &service); err != nil {
			return nil, err
		}
		config.Services[name] = service
	}
	for _, value := range l.schema.values("", reflect.ValueOf(config).Elem()) {
		if value.Kind() == reflect.Slice && value.Len() == 0 && value.CanSet() {
			value.SetZero() // an empty list is no list, as in the defaults of the packages
		}
	}
	config.origins = make(map[string]origin, len(l.sources))
	view := viewOf(*config)
	for path, source := range l.sources {
		config.origins[path] = origin{source: source, value: view.values[path]}
	}
	return config, nil
}

// unmarshal decodes the values beneath a path. They have the right types by now, and every key is known: an error is a mistake in this package.
func unmarshal(from *koanf.Koanf, path string, into any) error {
	if path != "" && !from.Exists(path) {
		return nil
	}
	conf := koanf.UnmarshalConf{Tag: "koanf", DecoderConfig: &mapstructure.DecoderConfig{ErrorUnused: true}}
	if err := from.UnmarshalWithConf(path, into, conf); err != nil {
		return fmt.Errorf("decode configuration: %w", err)
	}
	return nil
}
