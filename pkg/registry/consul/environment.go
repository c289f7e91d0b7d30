package consul

import (
	"cmp"
	"log/slog"
	"os"
	"strconv"
	"strings"
)

// withEnvironment returns c with the fields that are empty filled from the environment, under the names that Consul's own tools use. The error names
// the variable that is wrong.
func (c Config) withEnvironment() (Config, error) {
	addressKey := "address"
	if c.Address == "" && os.Getenv("CONSUL_HTTP_ADDR") != "" {
		addressKey = "address ($CONSUL_HTTP_ADDR)"
	}
	c.Address = cmp.Or(c.Address, os.Getenv("CONSUL_HTTP_ADDR"), defaultAddress)
	if c.Token == "" && c.TokenFile == "" {
		if c.TokenFile = os.Getenv("CONSUL_HTTP_TOKEN_FILE"); c.TokenFile == "" {
			c.Token = os.Getenv("CONSUL_HTTP_TOKEN")
		}
	}
	c.Namespace = cmp.Or(c.Namespace, os.Getenv("CONSUL_NAMESPACE"))
	c.Partition = cmp.Or(c.Partition, os.Getenv("CONSUL_PARTITION"))
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	tls, err := tlsDemanded()
	if err != nil {
		return c, err
	}
	at, err := parseAddress(c.Address)
	if err == nil && at.scheme == "http" && tls {
		at.scheme = "https"
		c.Address = at.text()
	}
	if err == nil && at.scheme == "https" {
		c.TLS = c.TLS.withEnvironment()
		if verify, err := strconv.ParseBool(strings.TrimSpace(os.Getenv("CONSUL_HTTP_SSL_VERIFY"))); err == nil && !verify {
			c.Logger.Warn("consul: $CONSUL_HTTP_SSL_VERIFY=false is ignored: the agent's certificate is always verified; name the authority that " +
				"issued it in tls.ca_file or $CONSUL_CACERT")
		}
	}
	return c, c.validate(addressKey)
}

func (c TLSConfig) withEnvironment() TLSConfig {
	if c.CAFile == "" && c.CAPath == "" {
		c.CAFile, c.CAPath = os.Getenv("CONSUL_CACERT"), os.Getenv("CONSUL_CAPATH")
	}
	if c.CertFile == "" && c.KeyFile == "" {
		c.CertFile, c.KeyFile = os.Getenv("CONSUL_CLIENT_CERT"), os.Getenv("CONSUL_CLIENT_KEY")
	}
	c.ServerName = cmp.Or(c.ServerName, os.Getenv("CONSUL_TLS_SERVER_NAME"))
	return c
}

// tlsDemanded reports whether the environment demands TLS to the agent. A value that is neither yes nor no could mean yes, so it is an error: a token
// must not go out in cleartext by mistake.
func tlsDemanded() (bool, error) {
	text := strings.TrimSpace(os.Getenv("CONSUL_HTTP_SSL"))
	if text == "" {
		return false, nil
	}
	demanded, err := strconv.ParseBool(text)
	if err != nil {
		return false, &KeyError{Key: "$CONSUL_HTTP_SSL", Value: quoted(text), Want: "true or false"}
	}
	return demanded, nil
}
