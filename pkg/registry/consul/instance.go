package consul

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/0x1d/goplt/pkg/registry"
)

const (
	// metaZone is the service metadata that holds [registry.Instance.Zone], as Consul has a locality of services in Enterprise only.
	metaZone = "goplt-zone"
	// metaWeight is the service metadata that holds a weight of 0, which Consul refuses.
	metaWeight = "goplt-weight"
	// metaRevision is the service metadata that holds [registry.Instance.Revision], which no index of Consul's can stand for: they change with every
	// update, and when an agent that lost its state is told of the same registration again.
	metaRevision = "goplt-revision"
)

// reading is what Consul's entries say.
type reading struct {
	live       []checked       // may get calls, sorted by ID
	failing    []checked       // may not, as their checks stand; sorted by ID
	skipped    []string        // what cannot be called though its checks pass, in words
	maintained map[string]bool // by ID, those in maintenance; nil if none is
}

// good returns the instances that may get calls.
func (r *reading) good() []registry.Instance {
	all := make([]registry.Instance, len(r.live))
	for at, instance := range r.live {
		all[at] = instance.Instance
	}
	return all
}

// checked is an instance with what [failingSince] says of it.
type checked struct {
	registry.Instance

	since uint64
}

// readEntries maps the entries that Consul answers to a question.
func readEntries(entries []*api.ServiceEntry, asked *question) reading {
	entries = slices.DeleteFunc(slices.Clone(entries), func(entry *api.ServiceEntry) bool { return entry == nil || entry.Service == nil })
	slices.SortStableFunc(entries, func(a, b *api.ServiceEntry) int { // so that of entries with the same ID always the same one keeps it
		return cmp.Or(strings.Compare(a.Service.ID, b.Service.ID), strings.Compare(nodeName(a), nodeName(b)))
	})
	read := reading{live: make([]checked, 0, len(entries))}
	taken := make(map[string]bool, len(entries))
	for _, entry := range entries {
		status := entry.Checks.AggregatedStatus()
		weight, isLive := weigh(entry, status, asked.passing)
		instance, problem := mapEntry(entry, weight, asked.addresses)
		if problem == "" && taken[instance.ID] {
			instance.ID += "@" + nodeName(entry) // IDs are unique on a node only
			if taken[instance.ID] {
				problem = "another instance of this node has the same ID"
			}
		}
		if problem != "" {
			if isLive {
				read.skipped = append(read.skipped, fmt.Sprintf("instance %q of node %q: %s", entry.Service.ID, nodeName(entry), problem))
			}
			continue
		}
		taken[instance.ID] = true
		instance.Health = health(entry, status)
		switch found := (checked{Instance: instance, since: failingSince(entry, asked.passing)}); {
		case isLive:
			read.live = append(read.live, found)
		case status != api.HealthMaint:
			read.failing = append(read.failing, found)
		default:
			if read.maintained == nil {
				read.maintained = make(map[string]bool)
			}
			read.maintained[instance.ID] = true
		}
	}
	for _, list := range [][]checked{read.live, read.failing} {
		slices.SortFunc(list, func(a, b checked) int { return strings.Compare(a.ID, b.ID) })
	}
	return read
}

// passing says which instances a target wants.
type passing bool

// weigh returns the weight that an instance's checks leave it, and whether it may get calls at all.
func weigh(entry *api.ServiceEntry, status string, passingOnly passing) (weight int, ok bool) {
	weights := entry.Service.Weights
	if weights == (api.AgentWeights{}) {
		weights = api.AgentWeights{Passing: 1, Warning: 1} // of an agent that knows no weights; Consul's own default
	}
	switch status {
	case api.HealthPassing:
		weight, ok = weights.Passing, true
	case api.HealthWarning:
		weight, ok = weights.Warning, !bool(passingOnly)
	default: // critical, in maintenance, or a status that nobody knows
	}
	if entry.Service.Meta[metaWeight] == "0" {
		weight = 0
	}
	return min(max(weight, 0), registry.MaxWeight), ok
}

// health returns what an instance's checks say, those of its node included.
func health(entry *api.ServiceEntry, status string) registry.Health {
	switch {
	case len(entry.Checks) == 0:
		return registry.HealthUnknown
	case status == api.HealthPassing:
		return registry.HealthPassing
	case status == api.HealthWarning:
		return registry.HealthWarning
	default:
		return registry.HealthCritical
	}
}

// failingSince returns the earliest index at which one of an instance's failing checks changed last; 0 if none fails. While that stays, the instance
// has not been well in between, whatever its other checks did.
func failingSince(entry *api.ServiceEntry, passingOnly passing) (earliest uint64) {
	for _, check := range entry.Checks {
		if check == nil || check.Status == api.HealthPassing || check.Status == api.HealthWarning && !bool(passingOnly) {
			continue
		}
		if earliest == 0 || check.ModifyIndex < earliest {
			earliest = check.ModifyIndex
		}
	}
	return earliest
}

// mapEntry maps an entry whose Service is set, or says why it cannot be called.
func mapEntry(entry *api.ServiceEntry, weight int, kind TaggedAddress) (instance registry.Instance, problem string) {
	service := entry.Service
	host, port := whereabouts(entry, kind)
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if port == 0 {
		return registry.Instance{}, "it has no port"
	}
	instance = registry.Instance{
		ID: strings.TrimPrefix(service.ID, service.Service+separator), Service: service.Service, Host: host, Port: port, Weight: weight, Zone: zone(entry),
		Tags: slices.Clone(service.Tags), Metadata: maps.Clone(service.Meta), Revision: revision(service),
	}
	if err := registry.ValidateAddress(instance.Addr()); err != nil {
		return registry.Instance{}, err.Error()
	}
	if instance.ID == "" {
		return registry.Instance{}, "it has no ID"
	}
	for _, reserved := range []string{metaZone, metaWeight, metaRevision} {
		delete(instance.Metadata, reserved)
	}
	if len(instance.Tags) == 0 {
		instance.Tags = nil
	}
	if len(instance.Metadata) == 0 {
		instance.Metadata = nil
	}
	return instance, ""
}

// whereabouts returns the host and port that an entry is called at, in the order of Consul's own DNS: the service's address of the kind, the
// service's plain one, and those of the node only for a service that has none. A node's public address is no place to look for a service that says
// where it is.
func whereabouts(entry *api.ServiceEntry, kind TaggedAddress) (host string, port int) {
	service := entry.Service
	host, port = service.Address, service.DefaultPort()
	if tagged, ok := service.TaggedAddresses[string(kind)]; ok && tagged.Address != "" {
		return tagged.Address, cmp.Or(tagged.Port, port)
	}
	if host == "" && entry.Node != nil {
		host = cmp.Or(entry.Node.TaggedAddresses[string(kind)], entry.Node.Address)
	}
	return host, port
}

func zone(entry *api.ServiceEntry) string {
	if named := entry.Service.Meta[metaZone]; named != "" {
		return named
	}
	if entry.Service.Locality != nil && entry.Service.Locality.Zone != "" {
		return entry.Service.Locality.Zone
	}
	if entry.Node != nil && entry.Node.Locality != nil {
		return entry.Node.Locality.Zone
	}
	return ""
}

// revision returns what tells one registration from the next: what ours say by themselves, and for others Consul's index of their last change.
func revision(service *api.AgentService) uint64 {
	if said, err := strconv.ParseUint(service.Meta[metaRevision], 10, 64); err == nil && said > 0 {
		return said
	}
	return service.ModifyIndex
}

func nodeName(entry *api.ServiceEntry) string {
	if entry.Node == nil {
		return ""
	}
	return entry.Node.Node
}

// definition maps an instance to what the agent is told.
func definition(instance registry.Instance, check CheckConfig) *api.AgentServiceRegistration {
	meta := make(map[string]string, len(instance.Metadata)+3)
	maps.Copy(meta, instance.Metadata)
	delete(meta, metaZone) // reserved
	delete(meta, metaWeight)
	meta[metaRevision] = strconv.FormatUint(instance.Revision, 10)
	if instance.Zone != "" {
		meta[metaZone] = instance.Zone
	}
	weights := &api.AgentWeights{Passing: instance.Weight, Warning: 1}
	if instance.Weight == 0 {
		meta[metaWeight] = strconv.Itoa(instance.Weight)
		weights = &api.AgentWeights{Passing: 1, Warning: 0}
	}
	service := &api.AgentServiceRegistration{
		ID: agentID(instance), Name: instance.Service, Tags: instance.Tags, Address: instance.Host, Port: instance.Port, Meta: meta, Weights: weights,
	}
	if check.Kind == CheckNone {
		return service
	}
	// A check that is said nothing of begins as critical until its first run, up to an interval later; who registers is ready, or knows that it is not.
	service.Check = &api.AgentServiceCheck{CheckID: checkID(service.ID), Status: checkStatus(instance.Health)}
	if check.DeregisterCriticalAfter > 0 {
		service.Check.DeregisterCriticalServiceAfter = check.DeregisterCriticalAfter.String()
	}
	switch check.Kind {
	case CheckTTL:
		service.Check.Name = "heartbeat of the process that registered the instance"
		service.Check.TTL = check.TTL.String()
	default:
		service.Check.Name = "grpc.health.v1"
		service.Check.GRPC = instance.Addr()
		if name := instance.Metadata[registry.MetadataHealth]; name != "" {
			service.Check.GRPC += "/" + name // Consul's notation for the service that grpc.health.v1 is asked about
		}
		service.Check.Interval, service.Check.Timeout = check.Interval.String(), check.Timeout.String()
		service.Check.GRPCUseTLS = check.TLS || instance.Metadata[registry.MetadataTLS] == registry.TLSOnly
		if service.Check.GRPCUseTLS {
			service.Check.TLSServerName = cmp.Or(check.TLSServerName, instance.Host)
		}
	}
	return service
}

// checkStatus returns Consul's word for a health that an instance says of itself.
func checkStatus(health registry.Health) string {
	switch health {
	case registry.HealthWarning:
		return api.HealthWarning
	case registry.HealthCritical:
		return api.HealthCritical
	default:
		return api.HealthPassing
	}
}

// checkID is the one that Consul itself would give.
func checkID(id string) string { return "service:" + id }

// separator is in no service name, so that no two instances share an ID at the agent.
const separator = ":"

// agentID is the ID of an instance at the agent, where IDs are unique among all services: a second service with the same one would silently take
// the first one's place.
func agentID(instance registry.Instance) string { return instance.Service + separator + instance.ID }
