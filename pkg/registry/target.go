package registry

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// ErrInvalidTarget is matched by the errors of [ParseTarget] and of [ServiceRegistry.Watch] for a target that can never be watched.
var ErrInvalidTarget = errors.New("registry: invalid target")

// Target says what to look for: a service in a registry, or fixed addresses. Its text form is a URL:
//
//	consul:///auth?tag=blue&dc=eu                     service auth, by the registry's own agent
//	consul://127.0.0.1:8500/auth                      the same by the agent at an address
//	static:///10.0.0.1:8080,10.0.0.2:8080             fixed addresses
//	memory:///auth                                    service auth in the process's registry
//	auth                                              service auth, in whichever registry is asked
//
// Targets are values; the zero value is invalid.
type Target struct {
	// Scheme names the kind of registry: "consul", "static", "memory". Empty means the registry that is asked.
	Scheme string
	// Authority is the address of the registry, host:port; empty means the one that the registry was made with.
	Authority string
	// Service is the name of the service, or for static targets the comma-separated addresses.
	Service string
	// Params are the registry's own parameters, each at most once; nil if none.
	Params map[string]string
}

// ParseTarget reads the text form of a target, a URL or a bare service name. Its errors match [ErrInvalidTarget], quote the text and say what would be
// right.
func ParseTarget(text string) (Target, error) {
	fail := func(format string, args ...any) (Target, error) {
		return Target{}, fmt.Errorf("%w %q: %s", ErrInvalidTarget, text, fmt.Sprintf(format, args...))
	}
	if !strings.Contains(text, "://") {
		if err := ValidateServiceName(text); err != nil {
			return fail("%v; want a service name, or a URL such as consul:///auth", err)
		}
		return Target{Service: text}, nil
	}
	parsed, err := url.Parse(text)
	if err != nil {
		return fail("%v; want a URL such as consul:///auth", errors.Unwrap(err))
	}
	switch {
	case parsed.Scheme == "":
		return fail("no scheme; want a URL such as consul:///auth")
	case parsed.User != nil:
		return fail("user information is not allowed; pass a token in the registry's configuration")
	case parsed.Fragment != "":
		return fail("a fragment (#%s) is not allowed", parsed.Fragment)
	}
	target := Target{Scheme: parsed.Scheme, Authority: parsed.Host, Service: strings.TrimPrefix(parsed.Path, "/")}
	if target.Scheme != "static" {
		if err := ValidateServiceName(target.Service); err != nil {
			return fail("%v", err)
		}
	} else if target.Service == "" {
		return fail("no addresses; want static:///host:port,host:port")
	}
	query, err := url.ParseQuery(parsed.RawQuery)
	if err != nil {
		return fail("%v", err)
	}
	for name, values := range query {
		if len(values) != 1 {
			return fail("parameter %q is given %d times; want it once", name, len(values))
		}
		if target.Params == nil {
			target.Params = make(map[string]string, len(query))
		}
		target.Params[name] = values[0]
	}
	return target, nil
}

// String returns the text form, such that [ParseTarget] gives an equal target back.
func (t Target) String() string {
	if t.Scheme == "" {
		return t.Service
	}
	query := make(url.Values, len(t.Params))
	for name, value := range t.Params {
		query.Set(name, value)
	}
	text := url.URL{Scheme: t.Scheme, Host: t.Authority, Path: "/" + t.Service, RawQuery: query.Encode()}
	if t.Authority == "" {
		return t.Scheme + "://" + text.EscapedPath() + querySuffix(text.RawQuery)
	}
	return text.String()
}

func querySuffix(encoded string) string {
	if encoded == "" {
		return ""
	}
	return "?" + encoded
}

// ValidateServiceName reports why name cannot be the name of a service: names are 1 to 128 letters, digits, '-', '_' and '.', begin
// with a letter or a digit, and hold no "..", so that a name can never reach another path of a registry's API.
func ValidateServiceName(name string) error {
	switch {
	case name == "":
		return errors.New("service name is empty")
	case len(name) > 128:
		return fmt.Errorf("service name is %d bytes long; at most 128 are allowed", len(name))
	case strings.Contains(name, ".."):
		return fmt.Errorf("service name %q holds \"..\"", name)
	}
	for at, char := range name {
		alphanumeric := 'a' <= char && char <= 'z' || 'A' <= char && char <= 'Z' || '0' <= char && char <= '9'
		if !alphanumeric && (at == 0 || !strings.ContainsRune("-_.", char)) {
			return fmt.Errorf("service name %q holds %q at byte %d; want letters, digits, '-', '_' and '.', a letter or digit first", name, char, at)
		}
	}
	return nil
}
