package config

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/services"
)

// A kind is what the entries of a map are named after. It is empty for what is no map.
type kind string

const (
	kindService kind = "service" // beneath services and discovery.static
	kindMethod  kind = "method"  // beneath methods: methods, and protobuf services for all of theirs
)

// kindOf returns the kind of the map at a key with a name.
func kindOf(name string) kind {
	switch name {
	case "services", "static":
		return kindService
	case "methods":
		return kindMethod
	default:
		return ""
	}
}

// maxMethodName bounds names of methods, each of which stands in the paths of the keys beneath it, for each service.
const maxMethodName = 255

// validate says what is wrong with the name of an entry.
func (k kind) validate(name string) error {
	if k == kindService {
		return registry.ValidateServiceName(name)
	}
	switch {
	case len(name) > maxMethodName:
		return fmt.Errorf("the name of a method is %d bytes long; at most %d are allowed", len(name), maxMethodName)
	case protoreflect.FullName(name).IsValid():
		return nil
	}
	example := strings.ReplaceAll(strings.Trim(name, "/"), "/", ".") // as in the path of a URL
	if !protoreflect.FullName(example).IsValid() {
		example = "goplt.auth.v1.AuthService.Login"
	}
	return fmt.Errorf("%s is not the full name of a method or service, such as %s", quote(name), example)
}

// known lists the names that a variable may refer to though no file names them.
func (k kind) known() []string {
	if k == kindService {
		return services.Names()
	}
	return nil
}

// coin returns the name that is spelt so in the name of a variable and that nothing else names: it has to be of a single word, so that where it ends
// is never a guess.
func (k kind) coin(spelt string) (name string, ok bool) {
	// Not that of a method, which has capitals, and the variable does not tell which.
	if k != kindService || strings.Contains(spelt, "_") || k.validate(spelt) != nil {
		return "", false
	}
	return strings.ToLower(spelt), true
}

// unknown ends the message about a variable that leads into the map at a path and to no entry there.
func (k kind) unknown(path string) string {
	if k == kindMethod {
		return "; a method has to stand under " + display(path) + " in the file first, by its full name"
	}
	return "; a service with '-', '_' or '.' in its name has to stand under " + display(path) + " in the file first"
}

// placeholder stands for any name in a suggestion.
func (k kind) placeholder() string { return "<" + string(k) + ">" }
