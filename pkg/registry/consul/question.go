package consul

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/0x1d/goplt/pkg/registry"
)

// parameters are those of targets, as the package's documentation lists them.
func parameters() []string {
	return []string{"address", "consistency", "dc", "failover", "filter", "ns", "partition", "passing", "query", "tag"}
}

// maxFilterBytes bounds a filter expression: Consul parses one for each query, and a longer one no URL may hold.
const maxFilterBytes = 4 << 10

// question is everything that decides which set a target has. Targets with equal questions share a feed.
type question struct {
	agent       address
	service     string
	prepared    string // the prepared query to execute instead; the service is a name for it, then
	tag         string
	filter      string
	datacenter  string
	namespace   string
	partition   string
	consistency Consistency
	passing     passing
	addresses   TaggedAddress
}

// ValidateTarget reports why a registry of this configuration can never watch a target, as an error that matches [registry.ErrInvalidTarget]: for the
// most part, a parameter that it does not know, or that has no such value.
func (c Config) ValidateTarget(target registry.Target) error {
	_, err := c.questions(target, address{})
	return err
}

// questions returns what a target asks, of the agent at an address: one question, or where it names datacenters to fail over to one for each, in
// order. Its errors match [registry.ErrInvalidTarget].
func (c Config) questions(target registry.Target, agent address) ([]question, error) {
	if err := target.Check(Scheme, parameters()...); err != nil {
		return nil, err
	}
	asked := question{
		agent: agent, service: target.Service, datacenter: c.Datacenter, namespace: c.Namespace, partition: c.Partition,
		consistency: c.Consistency, addresses: c.TaggedAddress,
	}
	for _, name := range slices.Sorted(maps.Keys(target.Params)) {
		if err := asked.set(name, target.Params[name]); err != nil {
			return nil, fmt.Errorf("%w %q: parameter %s: %w", registry.ErrInvalidTarget, target, name, err)
		}
	}
	if asked.prepared != "" {
		asked.namespace, asked.partition = "", ""
		for _, name := range []string{"failover", "filter", "ns", "partition", "tag"} {
			if _, ok := target.Params[name]; ok {
				return nil, fmt.Errorf("%w %q: parameter %s does not go with query; the prepared query itself says so", registry.ErrInvalidTarget, target, name)
			}
		}
		return []question{asked}, nil
	}
	others, err := c.failover(target, asked.datacenter)
	if err != nil {
		return nil, fmt.Errorf("%w %q: parameter failover: %w", registry.ErrInvalidTarget, target, err)
	}
	all := []question{asked}
	for _, datacenter := range others {
		asked.datacenter = datacenter
		all = append(all, asked)
	}
	return all, nil
}

// failover returns the datacenters to fail over to: those of the target, or the configured ones for a target that names no datacenter at all.
func (c Config) failover(target registry.Target, first string) ([]string, error) {
	named, ok := target.Params["failover"]
	if !ok && target.Params["dc"] == "" {
		return c.Failover, nil
	}
	if !ok {
		return nil, nil
	}
	datacenters := strings.Split(named, ",")
	return datacenters, validateFailover(first, datacenters)
}

// validateFailover reports why datacenters can be none to fail over to.
func validateFailover(first string, datacenters []string) error {
	seen := []string{first}
	for _, datacenter := range datacenters {
		if err := validateName("datacenter", datacenter); err != nil {
			return err
		}
		if slices.Contains(seen, datacenter) {
			return fmt.Errorf("datacenter %q is there twice", datacenter)
		}
		seen = append(seen, datacenter)
	}
	return nil
}

// set sets a parameter of the target.
func (q *question) set(name, value string) (err error) {
	if value == "" {
		return errors.New("it is empty; leave it out, or give it a value")
	}
	switch name {
	case "address":
		q.addresses = TaggedAddress(value)
		err = oneOf(q.addresses, taggedAddresses())
	case "consistency":
		q.consistency = Consistency(value)
		err = oneOf(q.consistency, consistencies())
	case "dc":
		q.datacenter = value
		err = validateName("datacenter", value)
	case "filter":
		if q.filter = value; len(value) > maxFilterBytes {
			err = fmt.Errorf("it is %d bytes long; at most %d are allowed", len(value), maxFilterBytes)
		}
	case "ns":
		q.namespace = value
		err = validateName("namespace", value)
	case "partition":
		q.partition = value
		err = validateName("partition", value)
	case "passing":
		only, parseErr := strconv.ParseBool(value)
		if parseErr != nil {
			err = fmt.Errorf("%q is not true or false", value)
		}
		q.passing = passing(only)
	case "query":
		q.prepared = value
		if registry.ValidateServiceName(value) != nil { // a name as free as Consul allows could reach other paths of its API
			err = fmt.Errorf("%q is not the name or ID of a prepared query: letters, digits, '-', '_' and '.', a letter or digit first", value)
		}
	case "tag":
		q.tag = value
	}
	return err
}

// target returns the text of a target that asks this wherever the configuration says otherwise, for logs, status and snapshots.
func (q *question) target() string {
	target := registry.Target{Scheme: Scheme, Service: q.service, Params: make(map[string]string)}
	for name, value := range map[string]string{
		"address": string(q.addresses), "dc": q.datacenter, "filter": q.filter, "ns": q.namespace, "partition": q.partition, "query": q.prepared,
		"tag": q.tag,
	} {
		if value != "" {
			target.Params[name] = value
		}
	}
	if q.consistency != ConsistencyStale {
		target.Params["consistency"] = string(q.consistency)
	}
	if q.passing {
		target.Params["passing"] = "true"
	}
	return target.String()
}

// what says for errors what was asked.
func (q *question) what() string {
	what := fmt.Sprintf("query service %q", q.service)
	if q.prepared != "" {
		what = fmt.Sprintf("execute prepared query %q", q.prepared)
	}
	if q.datacenter != "" {
		what += fmt.Sprintf(" in datacenter %q", q.datacenter) // which Consul does not name when it knows of none such
	}
	return what
}

// oneOf reports why a value is none of those there are.
func oneOf[T ~string](value T, all []T) error {
	if slices.Contains(all, value) {
		return nil
	}
	return fmt.Errorf("%q is not one of %s", value, list(all))
}

func list[T ~string](all []T) string {
	texts := make([]string, len(all))
	for at, text := range all {
		texts[at] = string(text)
	}
	return strings.Join(texts, ", ")
}

// validateName reports why a name is none that Consul gives to a datacenter, a namespace or a partition.
func validateName(kind, name string) error {
	other := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}
	if name == "" || len(name) > 64 || strings.ContainsFunc(name, other) {
		return fmt.Errorf("%q is not the name of a %s: 1 to 64 letters, digits, '-' and '_'", name, kind)
	}
	return nil
}
