package consul

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/0x1d/goplt/pkg/registry"
)

var errUserInformation = errors.New("user information is not allowed")

// address is where an agent is.
type address struct {
	scheme string // http, https or unix
	host   string // host:port, or the path of a socket
	prefix string // of the path, for an agent behind a proxy
}

// parseAddress parses host:port or a URL. Its errors may hold what the text does, secrets too.
func parseAddress(text string) (address, error) {
	if !strings.Contains(text, "://") {
		if strings.Contains(text, "@") {
			return address{}, errUserInformation
		}
		return address{scheme: "http", host: text}, registry.ValidateAddress(text)
	}
	parsed, err := url.Parse(text)
	switch {
	case err != nil:
		return address{}, err
	case parsed.User != nil:
		return address{}, errUserInformation
	case parsed.RawQuery != "" || parsed.Fragment != "":
		return address{}, errors.New("a query and a fragment are not allowed")
	case parsed.Scheme == "unix" && parsed.Host == "" && parsed.Path != "":
		return address{scheme: "unix", host: parsed.Path}, nil
	case parsed.Scheme != "http" && parsed.Scheme != "https":
		return address{}, fmt.Errorf("unknown scheme %q", parsed.Scheme)
	}
	withPort := parsed.Host
	if parsed.Port() == "" {
		withPort += ":443" // any: net/http adds the scheme's own
	}
	return address{scheme: parsed.Scheme, host: parsed.Host, prefix: strings.TrimSuffix(parsed.Path, "/")}, registry.ValidateAddress(withPort)
}

// text returns the address as errors and logs name it.
func (a address) text() string {
	if a.scheme == "http" && a.prefix == "" {
		return a.host
	}
	return a.scheme + "://" + a.host + a.prefix
}

// shown returns what may be shown of an address, which may be a wrong one: no password, no user name where that alone could be a token, no query.
func shown(text string) string {
	parsed, err := url.Parse(text)
	isURL := err == nil && parsed.Host != ""
	if isURL && parsed.User != nil {
		if _, ok := parsed.User.Password(); !ok {
			parsed.User = url.User("xxxxx")
		}
		text = parsed.Redacted()
	}
	if scheme, rest, found := strings.Cut(text, "://"); !isURL { // an '@' may be anywhere
		if !found {
			scheme, rest = "", text
		} else {
			scheme += "://"
		}
		if at := strings.LastIndexByte(rest, '@'); at >= 0 {
			text = scheme + "xxxxx" + rest[at:]
		}
	}
	if before, _, found := strings.Cut(text, "?"); found {
		text = before + "?xxxxx"
	}
	return text
}
