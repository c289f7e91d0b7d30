package config

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/v2"

	"github.com/0x1d/goplt/pkg/rpc"
)

// layers puts values over values, and remembers where those that hold come from.
type layers struct {
	schema   *node
	merged   *koanf.Koanf
	sources  map[string]string
	names    map[kind][]string // of the entries that a file names, with or without keys beneath
	problems []error
}

// parseLayers reads default.yaml, data as the file with a name, and environ.
func parseLayers(name string, data []byte, environ []string) (*Config, error) {
	l := &layers{
		schema: schemaOf("", reflect.TypeFor[Config]()), merged: koanf.New(separator),
		sources: make(map[string]string), names: make(map[kind][]string),
	}
	l.addYAML(sourceDefault, defaultYAML)
	for path := range l.sources {
		l.sources[path] = sourceDefault // a line of it would say no more
	}
	l.addYAML(name, data)
	l.addEnviron(environ)
	config, err := l.decode()
	if err != nil {
		return nil, errors.Join(append(l.problems, err)...)
	}
	// What a reader refused is missing here, so that its default is checked in its place; a problem that only this makes is rare, and mended with it.
	if err := errors.Join(append(l.problems, flatten(config.Validate())...)...); err != nil {
		return nil, err
	}
	return config, nil
}

func (l *layers) addYAML(name string, data []byte) {
	reader := &yamlReader{schema: l.schema, name: name, values: make(map[string]any), sources: make(map[string]string), names: l.names}
	reader.read(data)
	l.add(reader.values, reader.sources, reader.problems)
}

func (l *layers) addEnviron(environ []string) {
	reader := &environReader{schema: l.schema, names: make(map[kind][]string), values: make(map[string]any), sources: make(map[string]string)}
	for _, kind := range []kind{kindService, kindMethod} {
		names := slices.Concat(kind.known(), l.names[kind])
		slices.Sort(names)
		reader.names[kind] = slices.Compact(names)
	}
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

// maxCopies bounds how many entries of methods all services together take over from the top level, so that a small file cannot fill the memory.
const maxCopies = 50_000

// decode fills a Config from the merged values: the top level first, with which the settings of each service begin.
func (l *layers) decode() (*Config, error) {
	config := &Config{Services: make(map[string]ServiceConfig)}
	root := reflect.ValueOf(config).Elem()
	values := l.merged.All()
	var own []string // paths of what stands beneath the names of services
	for path, value := range values {
		if strings.HasPrefix(path, "services"+separator) {
			own = append(own, path)
			continue
		}
		l.schema.set(root, path, value)
	}
	for _, path := range own {
		name := strings.Split(path, separator)[1]
		config.Services[name] = ServiceConfig{}
	}
	if copies := len(config.Services) * len(config.Defaults.Methods); copies > maxCopies {
		return nil, &Error{Key: "methods", text: fmt.Sprintf("methods: %d services with the settings of %d methods each are more than %d in all",
			len(config.Services), len(config.Defaults.Methods), maxCopies)}
	}
	for name := range config.Services {
		config.Services[name] = ServiceConfig{Client: cloneClient(config.Defaults)}
	}
	for _, path := range own {
		l.schema.set(root, path, values[path])
	}
	config.origins = make(map[string]origin, len(l.sources))
	view := viewOf(*config)
	for path, source := range l.sources {
		config.origins[path] = origin{source: source, value: view.values[path]}
	}
	return config, nil
}

// cloneClient returns a copy that shares no map with the original.
func cloneClient(client rpc.ClientConfig) rpc.ClientConfig {
	client.Methods = maps.Clone(client.Methods)
	return client
}
