package registry

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// ErrInvalidTarget is matched by the errors of [ParseTarget] and of [ServiceRegistry.Watch] for a target that can never be watched.
var ErrInvalidTarget = errors.New("registry: invalid target")

// SchemeStatic is the scheme of targets that hold their addresses themselves.
const SchemeStatic = "static"

// Target says what to look for: a service in a registry, or fixed addresses. Its text form is a URL:
//
//	consul:///auth?tag=blue&dc=eu                     service auth, by the registry's own agent
//	consul://127.0.0.1:8500/auth                      the same by the agent at an address
//	static:///10.0.0.1:8080,[2001:db8::1]:8080        fixed addresses
//	static:///auth                                    service auth in the table of a static registry
//	memory:///auth                                    service auth in the process's registry
//	auth                                              service auth, in whichever registry is asked
//
// Targets are values; the zero value is invalid. [Target.String] is a key for equal targets.
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

// ParseTarget reads the text form of a target, a URL or a bare service name. Its errors match [ErrInvalidTarget], quote the text and say what
// would be right.
func ParseTarget(text string) (Target, error) {
	target, err := parseTarget(text)
	if err == nil {
		err = target.explain(target.validate())
	}
	if err != nil {
		return Target{}, fmt.Errorf("%w %q: %w", ErrInvalidTarget, text, err)
	}
	return target, nil
}

func parseTarget(text string) (Target, error) {
	if !strings.Contains(text, "://") {
		if err := ValidateServiceName(text); err != nil {
			return Target{}, fmt.Errorf("%w; want a service name, or a URL such as consul:///auth", err)
		}
		return Target{Service: text}, nil
	}
	parsed, err := url.Parse(text)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // without the text, which the caller quotes
		}
		return Target{}, fmt.Errorf("%w; want a URL such as consul:///auth", err)
	}
	switch {
	case parsed.Scheme == "":
		return Target{}, errors.New("no scheme; want a URL such as consul:///auth")
	case parsed.Opaque != "":
		return Target{}, fmt.Errorf("no \"//\" after the scheme; want a URL such as %s:///auth", parsed.Scheme)
	case parsed.User != nil:
		return Target{}, errors.New("user information is not allowed; pass a token in the registry's configuration")
	case parsed.Fragment != "":
		return Target{}, fmt.Errorf("a fragment (#%s) is not allowed", parsed.Fragment)
	}
	target := Target{Scheme: parsed.Scheme, Authority: parsed.Host, Service: strings.TrimPrefix(parsed.Path, "/")}
	query, err := url.ParseQuery(parsed.RawQuery)
	if err != nil {
		return Target{}, err
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if values := query[name]; len(values) != 1 {
			return Target{}, fmt.Errorf("parameter %q is given %d times; want it once", name, len(values))
		}
		if target.Params == nil {
			target.Params = make(map[string]string, len(query))
		}
		target.Params[name] = query.Get(name)
	}
	return target, nil
}

// String returns the text form, such that [ParseTarget] gives an equal target back. Equal targets have equal text.
func (t Target) String() string {
	if t.Scheme == "" {
		return t.Service
	}
	// Brackets are legal in a path where they stand for themselves, and [::1] reads better than %5B::1%5D.
	path := strings.NewReplacer("%5B", "[", "%5D", "]").Replace((&url.URL{Path: "/" + t.Service}).EscapedPath())
	text := t.Scheme + "://" + strings.ReplaceAll(t.Authority, "%", "%25") + path
	if len(t.Params) == 0 {
		return text
	}
	query := make(url.Values, len(t.Params))
	for name, value := range t.Params {
		query.Set(name, value)
	}
	return text + "?" + query.Encode()
}

// Check is for implementations of [ServiceRegistry]: it reports, as an error that matches [ErrInvalidTarget], why a registry of the given
// scheme that knows the given parameters can never watch the target.
func (t Target) Check(scheme string, params ...string) error {
	err := t.validate()
	switch {
	case err != nil:
	case t.Scheme != "" && t.Scheme != scheme:
		err = fmt.Errorf("scheme %q is not that of this registry, %q", t.Scheme, scheme)
	default:
		for _, name := range slices.Sorted(maps.Keys(t.Params)) {
			if !slices.Contains(params, name) {
				err = fmt.Errorf("parameter %q is unknown; %s", name, known(params))
				break
			}
		}
	}
	if err != nil {
		return fmt.Errorf("%w %q: %w", ErrInvalidTarget, t, err)
	}
	return nil
}

func known(params []string) string {
	if len(params) == 0 {
		return "there are none"
	}
	return "known are " + strings.Join(params, ", ")
}

// Addresses returns the addresses of a static target, each host:port; nil if the target names a service.
func (t Target) Addresses() []string {
	if t.Scheme != SchemeStatic || !strings.ContainsAny(t.Service, ":,") {
		return nil
	}
	return strings.Split(t.Service, ",")
}

// explain puts first what is most likely wrong with a target: a scheme such as http, which no registry of this module has, if perhaps
// one of a program's own.
func (t Target) explain(err error) error {
	schemes := []string{"consul", SchemeStatic, "memory"}
	if err == nil || t.Scheme == "" || slices.Contains(schemes, t.Scheme) {
		return err
	}
	return fmt.Errorf("scheme %q is not one of %s; want consul:///auth, or static:///host:port for a fixed address (in a registry of your own: %w)",
		t.Scheme, strings.Join(schemes, ", "), err)
}

// validate checks what every registry asks of a target, however it was made.
func (t Target) validate() error {
	if t.Scheme == SchemeStatic {
		return t.validateStatic()
	}
	if t.Service == "" {
		return fmt.Errorf("service name is empty; want %s:///auth, with three slashes before the name", cmp.Or(t.Scheme, "consul"))
	}
	if err := ValidateServiceName(t.Service); err != nil {
		return err
	}
	if t.Authority != "" {
		if err := ValidateAddress(t.Authority); err != nil {
			return fmt.Errorf("registry %w", err)
		}
	}
	return nil
}

func (t Target) validateStatic() error {
	switch {
	case t.Authority != "":
		return fmt.Errorf("%q stands before the third slash; want static:///host:port,host:port", t.Authority)
	case t.Service == "":
		return errors.New("no addresses; want static:///host:port,host:port")
	}
	addresses := t.Addresses()
	if _, err := netip.ParseAddr(t.Service); err == nil {
		addresses = []string{t.Service} // an IP address without a port is no service name
	}
	if addresses == nil {
		return ValidateServiceName(t.Service)
	}
	for _, address := range addresses {
		if err := ValidateAddress(address); err != nil {
			return err
		}
	}
	return nil
}

// ValidateAddress reports why text is not host:port, with a host name or an IP address (IPv6 in brackets) and a port of 1 to 65535. The error
// quotes the text.
func ValidateAddress(text string) error {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		if ip, parseErr := netip.ParseAddr(text); parseErr == nil && ip.Is6() {
			return fmt.Errorf("address %q: an IPv6 address goes in brackets; want [%s]:port", text, text)
		}
		return fmt.Errorf("address %q is not host:port (%s)", text, reason(err))
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return fmt.Errorf("address %q: port %q is not within 1 to 65535", text, port)
	}
	if err := validateHost(host); err != nil {
		return fmt.Errorf("address %q: %w", text, err)
	}
	if bracketed := strings.HasPrefix(text, "["); bracketed != strings.Contains(host, ":") {
		return fmt.Errorf("address %q: brackets are for IPv6 addresses", text)
	}
	return nil
}

func reason(err error) string {
	if address, ok := errors.AsType[*net.AddrError](err); ok {
		return address.Err
	}
	return err.Error()
}

// validateHost reports why host is neither an IP address nor fit to be a host name.
func validateHost(host string) error {
	problem := fmt.Errorf("host %q is not a host name or an IP address", host)
	if strings.Contains(host, ":") {
		ip, err := netip.ParseAddr(host)
		if err != nil || !plain(ip.Zone()) {
			return problem
		}
		return nil
	}
	if host == "" || len(host) > 253 || !plain(host) {
		return problem
	}
	return nil
}

// plain reports whether text holds only what host names and interface names do.
func plain(text string) bool {
	return !strings.ContainsFunc(text, func(char rune) bool { return !alphanumeric(char) && !strings.ContainsRune("-_.", char) })
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
		if !alphanumeric(char) && (at == 0 || !strings.ContainsRune("-_.", char)) {
			return fmt.Errorf("service name %q holds %q at byte %d; want letters, digits, '-', '_' and '.', a letter or digit first", name, char, at)
		}
	}
	return nil
}

func alphanumeric(char rune) bool {
	return 'a' <= char && char <= 'z' || 'A' <= char && char <= 'Z' || '0' <= char && char <= '9'
}
