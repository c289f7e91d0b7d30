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
	named    []string // paths of what a file names in a map, with or without keys beneath
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
	l.named = append(l.named, reader.named...)
	l.add(reader.values, reader.sources, reader.problems)
	for _, path := range reader.named {
		// A method that is named without a key is there all the same: it is not configured as its service is.
		if above, name := split(path); l.schema.find(above).ofMethods() && !l.merged.Exists(path) && !l.merged.Exists(join("methods", name)) {
			l.add(map[string]any{join(path, "idempotency"): ""}, nil, nil)
		}
	}
}

// split splits a path into what it stands directly beneath, and its name there.
func split(path string) (above, name string) {
	at := strings.LastIndex(path, separator)
	return path[:max(0, at)], path[at+1:]
}

func (l *layers) addEnviron(environ []string) {
	known := names{services: services.Names()}
	for _, path := range l.named {
		above, name := split(path)
		if l.schema.find(above).ofMethods() {
			known.methods = append(known.methods, name)
		} else {
			known.services = append(known.services, name)
		}
	}
	slices.Sort(known.services)
	slices.Sort(known.methods)
	known.services, known.methods = slices.Compact(known.services), slices.Compact(known.methods)
	reader := &environReader{schema: l.schema, known: known, values: make(map[string]any), sources: make(map[string]string)}
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
	if err := unmarshal(l.merged, config); err != nil {
		return nil, err
	}
	all := overrides.MapKeys("")
	for _, path := range l.named {
		if name, ok := strings.CutPrefix(path, "services"+separator); ok && !strings.Contains(name, separator) {
			all = append(all, name)
		}
	}
	for _, name := range all {
		service, err := l.service(overrides.Cut(name))
		if err != nil {
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
	for _, path := range view.paths {
		above, inherits := inherited(path)
		if _, there := view.values[above]; l.sources[path] == "" && l.inMethod(path) && (!inherits || !there) {
			l.sources[path] = sourceDefault // no other place says it
		}
	}
	for path, source := range l.sources {
		config.origins[path] = origin{source: source, value: view.values[path]}
	}
	return config, nil
}

// inMethod reports whether a path is that of a key of a method.
func (l *layers) inMethod(path string) bool {
	for above, _ := split(path); above != ""; above, _ = split(above) {
		if l.schema.find(above).ofMethods() {
			return true
		}
	}
	return false
}

// service returns the settings of a service: those of all clients, with its own over them.
func (l *layers) service(own *koanf.Koanf) (ServiceConfig, error) {
	var service ServiceConfig
	all := l.merged.Copy()
	for _, child := range l.schema.children {
		if l.schema.child("services").element.child(child.name) == nil {
			all.Delete(child.name)
		}
	}
	if err := all.Merge(own); err != nil {
		return service, fmt.Errorf("merge configuration: %w", err)
	}
	err := unmarshal(all, &service)
	return service, err
}

// unmarshal decodes values. They have the right types by now, and every key is known: an error is a mistake in this package.
func unmarshal(from *koanf.Koanf, into any) error {
	conf := koanf.UnmarshalConf{Tag: "koanf", DecoderConfig: &mapstructure.DecoderConfig{ErrorUnused: true}}
	if err := from.UnmarshalWithConf("", into, conf); err != nil {
		return fmt.Errorf("decode configuration: %w", err)
	}
	return nil
}
