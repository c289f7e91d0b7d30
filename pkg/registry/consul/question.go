package consul

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/0x1d/goplt/pkg/registry"
)

// question is everything that decides which set a target has. Targets with equal questions share a feed.
type question struct {
	agent      address
	service    string
	tag        string
	datacenter string
	passing    passing
}

// question returns what a target asks. Its errors match [registry.ErrInvalidTarget].
func (r *Registry) question(target registry.Target) (question, error) {
	if err := target.Check(Scheme, "tag", "dc", "passing"); err != nil {
		return question{}, err
	}
	asked := question{agent: r.home, service: target.Service, datacenter: r.config.Datacenter}
	if target.Authority != "" && target.Authority != r.home.host {
		asked.agent = address{scheme: r.elsewhere, host: target.Authority}
	}
	for _, name := range slices.Sorted(maps.Keys(target.Params)) {
		if err := asked.set(name, target.Params[name]); err != nil {
			return question{}, fmt.Errorf("%w %q: %w", registry.ErrInvalidTarget, target, err)
		}
	}
	return asked, nil
}

// set sets a parameter of the target.
func (q *question) set(name, value string) error {
	if value == "" {
		return fmt.Errorf("parameter %q is empty", name)
	}
	switch name {
	case "tag":
		q.tag = value
	case "dc":
		q.datacenter = value
	case "passing":
		only, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("parameter passing is %q; want true or false", value)
		}
		q.passing = passing(only)
	}
	return nil
}

// target returns the text of a target that asks this, for logs and status.
func (q *question) target() string {
	target := registry.Target{Scheme: Scheme, Service: q.service, Params: make(map[string]string)}
	add := func(name, value string) {
		if value != "" {
			target.Params[name] = value
		}
	}
	add("tag", q.tag)
	add("dc", q.datacenter)
	if q.passing {
		add("passing", "true")
	}
	return target.String()
}

// what says for errors what was asked.
func (q *question) what() string { return fmt.Sprintf("query service %q", q.service) }
