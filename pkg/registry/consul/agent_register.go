package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/hashicorp/consul/api"

	"github.com/0x1d/goplt/pkg/registry"
)

// ask makes one request that the agent answers at once, and returns the token that was sent.
func (a *agent) ask(ctx context.Context, what string, send func(context.Context) error) (token string, err error) {
	ctx, cancel := context.WithTimeout(ctx, agentTimeout)
	defer cancel()
	ctx, exchange := withExchange(ctx)
	err = a.explain(what, send(ctx))
	if answered, ok := errors.AsType[*answeredError](err); ok {
		answered.token = exchange.token
	}
	return exchange.token, err
}

// register registers a service instance, or changes the one of its ID. The agent goes on using the token of this request, which is returned, to tell
// the servers of the instance. A check that it has already keeps its status, whatever the definition says: an update ends neither a critical check
// nor an operator's maintenance (seen with Consul 1.22). Replacing all checks (replace-existing-checks) would end the maintenance, which is a check
// too.
func (a *agent) register(ctx context.Context, service *api.AgentServiceRegistration) (token string, err error) {
	return a.ask(ctx, fmt.Sprintf("register %q", service.ID), func(ctx context.Context) error {
		return a.client.Agent().ServiceRegisterOpts(service, api.ServiceRegisterOpts{}.WithContext(ctx))
	})
}

// removeCheck makes the agent forget a check. That it does not know it is no error.
func (a *agent) removeCheck(ctx context.Context, id string) error {
	_, err := a.ask(ctx, fmt.Sprintf("remove check %q", id), func(ctx context.Context) error {
		err := a.client.Agent().CheckDeregisterOpts(id, (&api.QueryOptions{}).WithContext(ctx))
		if status(err) == http.StatusNotFound {
			return nil
		}
		return err
	})
	return err
}

// deregister makes the agent forget a service instance. That it does not know it is no error.
func (a *agent) deregister(ctx context.Context, id string) error {
	_, err := a.ask(ctx, fmt.Sprintf("deregister %q", id), func(ctx context.Context) error {
		err := a.client.Agent().ServiceDeregisterOpts(id, (&api.QueryOptions{}).WithContext(ctx))
		if status(err) == http.StatusNotFound {
			return nil
		}
		return err
	})
	return err
}

// others returns the IDs of the other registrations that the agent has of the same service, host and port, sorted.
func (a *agent) others(ctx context.Context, than registry.Instance) (ids []string, err error) {
	var found map[string]*api.AgentService
	_, err = a.ask(ctx, fmt.Sprintf("list service %q", than.Service), func(ctx context.Context) (err error) {
		filter := fmt.Sprintf("Service == %q and Port == %d", than.Service, than.Port)
		found, err = a.client.Agent().ServicesWithFilterOpts(filter, (&api.QueryOptions{}).WithContext(ctx))
		return err
	})
	for _, service := range found {
		if service.ID != agentID(than) && service.Service == than.Service && service.Address == than.Host && service.Port == than.Port {
			ids = append(ids, service.ID)
		}
	}
	slices.Sort(ids)
	return ids, err
}

// knows reports whether the agent has a service instance.
func (a *agent) knows(ctx context.Context, id string) (known bool, err error) {
	_, err = a.ask(ctx, fmt.Sprintf("ask for %q", id), func(ctx context.Context) error {
		_, _, err := a.client.Agent().Service(id, (&api.QueryOptions{}).WithContext(ctx))
		if status(err) == http.StatusNotFound {
			return nil
		}
		known = err == nil
		return err
	})
	return known, err
}

// beat tells the agent the status of a TTL check.
func (a *agent) beat(ctx context.Context, check, status, output string) error {
	_, err := a.ask(ctx, fmt.Sprintf("update check %q", check), func(ctx context.Context) error {
		return a.client.Agent().UpdateTTLOpts(check, output, status, (&api.QueryOptions{}).WithContext(ctx))
	})
	return err
}
