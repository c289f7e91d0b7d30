package registry

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
)

// ErrInvalidInstance is matched by the errors of [Instance.Validate].
var ErrInvalidInstance = errors.New("registry: invalid instance")

// MaxWeight is the largest weight of an instance, as in Consul.
const MaxWeight = 65535

// What an instance may say of itself in [Instance.Metadata] for registries that let others check it, such as Consul. rpc.Server sets them by
// itself. Keys that begin with "goplt-" are reserved.
const (
	// MetadataHealth is the key of a name that grpc.health.v1 of this instance, and of no other process, knows: the status of that name is the
	// instance's. It promises that the instance has its host and port for itself, so that another registration of the same service there is of a
	// process that is gone. Without it a check asks about the server as a whole, whose name is empty, and takes whoever answers for the instance.
	MetadataHealth = "goplt-health"
	// MetadataTLS is the key that says whether the instance speaks TLS: "true", or "mutual" if it demands client certificates too.
	MetadataTLS = "goplt-tls"
)

// Values of [MetadataTLS].
const (
	TLSOnly   = "true"
	TLSMutual = "mutual"
)

// Health is what a registry's checks say of an instance.
type Health string

// The values of [Health].
const (
	// HealthUnknown is that of a registry which knows no checks, or of an instance that has none.
	HealthUnknown Health = ""
	// HealthPassing says that all checks pass.
	HealthPassing Health = "passing"
	// HealthWarning says that a check warns. The instance's weight is the one for that case.
	HealthWarning Health = "warning"
	// HealthCritical says that a check fails. A registry names such an instance only while it waits whether that lasts.
	HealthCritical Health = "critical"
)

// Instance is one running copy of a service. Values are compared with [Instance.Equal].
type Instance struct {
	// ID is unique among the instances of the service: for a registration 1 to 255 printable ASCII characters without space, '/' and "..", so that
	// it can never reach another path of a registry's API.
	ID string
	// Service is the name of the service, such as "auth".
	Service string
	// Host is a host name or an IP address, without brackets.
	Host string
	// Port is the TCP port, 1 to 65535.
	Port int
	// Weight is the share of calls relative to other instances, 0 to [MaxWeight]. Registries report what they know; a service that does not say
	// has 1. An instance of weight 0 gets calls only if all have weight 0.
	Weight int
	// Zone is where the instance runs, such as "eu-1a"; empty if unknown.
	Zone string
	// Health is what the registry's checks say of the instance now. To Register it is what the instance says of itself, none meaning passing; see
	// [Registration.SetHealth].
	Health Health
	// Tags are labels that targets can select by.
	Tags []string
	// Metadata holds further facts, such as "protocol" = "http" to say that gRPC does not get through to the instance, or "grpc" to say that it does.
	Metadata map[string]string
	// Revision tells one registration of the ID from the next, so that what was learned about an earlier one is forgotten. An update leaves it.
	Revision uint64
}

// Addr returns host:port as [net.Dial] takes it, with IPv6 addresses in brackets.
func (i Instance) Addr() string { return net.JoinHostPort(i.Host, strconv.Itoa(i.Port)) }

// Equal reports whether two instances agree in every field.
func (i Instance) Equal(other Instance) bool {
	return i.ID == other.ID && i.Service == other.Service && i.Host == other.Host && i.Port == other.Port && i.Weight == other.Weight &&
		i.Zone == other.Zone && i.Health == other.Health && i.Revision == other.Revision && slices.Equal(i.Tags, other.Tags) &&
		maps.Equal(i.Metadata, other.Metadata)
}

// Clone returns a copy that shares nothing with i.
func (i Instance) Clone() Instance {
	i.Tags, i.Metadata = slices.Clone(i.Tags), maps.Clone(i.Metadata)
	return i
}

// Updated returns a copy of i with another weight, and other metadata but for the reserved keys, which begin with "goplt-": they are as in i,
// whatever metadata holds.
func (i Instance) Updated(weight int, metadata map[string]string) Instance {
	i = i.Clone()
	i.Weight = weight
	maps.DeleteFunc(i.Metadata, func(key, _ string) bool { return !IsReserved(key) })
	for key, value := range metadata {
		if IsReserved(key) {
			continue
		}
		if i.Metadata == nil {
			i.Metadata = make(map[string]string, len(metadata))
		}
		i.Metadata[key] = value
	}
	if len(i.Metadata) == 0 {
		i.Metadata = nil
	}
	return i
}

// IsReserved reports whether a key of [Instance.Metadata] is one that only registries and servers set.
func IsReserved(key string) bool { return strings.HasPrefix(key, "goplt-") }

// Validate checks the fields that a registration needs: ID, service name, host, port, weight and health. All that is wrong is in one error
// that matches [ErrInvalidInstance].
func (i Instance) Validate() error {
	var problems []string
	if err := validateID(i.ID); err != nil {
		problems = append(problems, err.Error())
	}
	if err := ValidateServiceName(i.Service); err != nil {
		problems = append(problems, err.Error())
	}
	if err := validateHost(i.Host); err != nil {
		problems = append(problems, err.Error())
	}
	if i.Port < 1 || i.Port > 65535 {
		problems = append(problems, fmt.Sprintf("port %d is not within 1 to 65535", i.Port))
	}
	if i.Weight < 0 || i.Weight > MaxWeight {
		problems = append(problems, fmt.Sprintf("weight %d is not within 0 to %d", i.Weight, MaxWeight))
	}
	switch i.Health {
	case HealthUnknown, HealthPassing, HealthWarning, HealthCritical:
	default:
		problems = append(problems, fmt.Sprintf("health %q is none of passing, warning, critical", i.Health))
	}
	if len(problems) == 0 {
		return nil
	}
	return fmt.Errorf("%w %q: %s", ErrInvalidInstance, i.ID, strings.Join(problems, "; "))
}

func validateID(id string) error {
	switch {
	case id == "":
		return errors.New("ID is empty")
	case len(id) > 255:
		return fmt.Errorf("ID is %d bytes long; at most 255 are allowed", len(id))
	case id == "." || strings.Contains(id, ".."):
		return fmt.Errorf("ID %q is a path", id)
	}
	for at, char := range id {
		if char <= ' ' || char > '~' || char == '/' {
			return fmt.Errorf("ID %q holds %q at byte %d; want printable ASCII without space and '/'", id, char, at)
		}
	}
	return nil
}
