package consul

import (
	"encoding/json"
	"fmt"
	"log/slog"
)

const redacted = "[redacted]"

// String describes the configuration without the token.
func (c Config) String() string {
	token := "none"
	switch {
	case c.Token != "":
		token = redacted
	case c.TokenFile != "":
		token = "from " + c.TokenFile
	}
	return fmt.Sprintf("consul at %s, datacenter %q, token %s, check %s", shown(c.Address), c.Datacenter, token, c.Check.Kind)
}

// GoString is [Config.String], so that %#v hides the token too.
func (c Config) GoString() string { return c.String() }

// LogValue describes the configuration without the token.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalJSON describes the configuration without the token. Its keys are the names of the fields.
func (c Config) MarshalJSON() ([]byte, error) {
	type fields Config
	visible := fields(c)
	visible.Address = shown(c.Address)
	if c.Token != "" {
		visible.Token = redacted
	}
	return json.Marshal(visible) //nolint:musttag // the names of the fields are meant
}
