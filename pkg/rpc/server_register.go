package rpc

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/0x1d/goplt/pkg/registry"
)

// registration is one instance in the registry.
type registration struct {
	instance registry.Instance // as it was registered
	handle   registry.Registration

	// As the registry has them now. They belong to who has the server's turn to update.
	weight   int
	metadata map[string]string
}

func (s *Server) validateRegistration() error {
	if s.registry == nil {
		if len(s.services) > 0 {
			return fmt.Errorf("registration of %s: registry is nil", strings.Join(s.services, ", "))
		}
		return nil
	}
	if len(s.services) == 0 {
		return errors.New("registration: no service name; want at least one, such as auth")
	}
	for at, service := range s.services {
		if err := registry.ValidateServiceName(service); err != nil {
			return fmt.Errorf("registration: %w", err)
		}
		if slices.Contains(s.services[:at], service) {
			return fmt.Errorf("registration: service %q is named twice", service)
		}
	}
	return nil
}

// register registers all instances, or none.
func (s *Server) register(ctx context.Context, instances []registry.Instance) error {
	for _, instance := range instances {
		s.health.standFor(instance.ID, instance.Service) // before the registry's first check
		instance.Health = s.health.Status(instance.ID).registered()
		handle, err := s.registry.Register(ctx, instance)
		if err != nil {
			err = fmt.Errorf("registering %q at %s: %w", instance.Service, instance.Addr(), err)
			s.endReports()
			err = errors.Join(err, s.deregister(context.WithoutCancel(ctx)))
			s.registrations = nil
			return err
		}
		registered := &registration{instance: instance, handle: handle, weight: instance.Weight, metadata: instance.Metadata}
		s.registrations = append(s.registrations, registered)
		s.report(registered)
	}
	return nil
}

// instances returns what to register for a server that listens on listen.
func (s *Server) instances(listen net.Addr) ([]registry.Instance, error) {
	if len(s.services) == 0 {
		return nil, nil
	}
	host, port, err := s.advertised(listen)
	if err != nil {
		return nil, err
	}
	instances := make([]registry.Instance, len(s.services))
	for at, service := range s.services {
		id := instanceID(service, host, port)
		instances[at] = registry.Instance{
			ID: id, Service: service, Host: host, Port: port, Weight: s.config.Weight, Zone: s.config.Zone,
			Tags: slices.Clone(s.config.Tags), Metadata: s.metadata(id),
		}
	}
	return instances, nil
}

// metadata returns what the instance says of itself.
func (s *Server) metadata(id string) map[string]string {
	metadata := make(map[string]string)
	if build, ok := debug.ReadBuildInfo(); ok && build.Main.Version != "" && build.Main.Version != "(devel)" {
		metadata["version"] = build.Main.Version
	}
	// A health of the caller's own does not know the ID.
	if !slices.Contains(serviceNames(s.handlers), healthServiceName) {
		metadata[registry.MetadataHealth] = id
	}
	switch {
	case s.config.TLS.Enabled && s.config.TLS.CAFile != "":
		metadata[registry.MetadataTLS] = registry.TLSMutual
	case s.config.TLS.Enabled:
		metadata[registry.MetadataTLS] = registry.TLSOnly
	}
	return metadata
}

// instanceID returns an ID that no other server has, not even an earlier one at the same address, whose late deregistration would else
// take this one's place away. Registries use IDs in URLs and file names, so the colons of IPv6 are replaced.
func instanceID(service, host string, port int) string {
	return fmt.Sprintf("%s-%s-%d-%s", service, strings.NewReplacer(":", "-", "%", "-").Replace(host), port, strings.ToLower(rand.Text()[:8]))
}

// advertised returns where others reach a server that listens on listen: at Advertise, if set, whose port 0 means the port it listens
// on; else at the address it listens on, where an unspecified one, such as 0.0.0.0, means the machine's only address.
func (s *Server) advertised(listen net.Addr) (host string, port int, err error) {
	if tcp, ok := listen.(*net.TCPAddr); ok {
		host, port = tcp.IP.String(), tcp.Port
		if tcp.Zone != "" {
			host += "%" + tcp.Zone
		}
	}
	if s.config.Advertise != "" {
		var service string
		if host, service, err = net.SplitHostPort(s.config.Advertise); err != nil {
			return "", 0, fmt.Errorf("advertise: %w", err)
		}
		given, err := strconv.ParseUint(service, 10, 16)
		if err != nil {
			return "", 0, fmt.Errorf("advertise: port %q: %w", service, err)
		}
		return host, cmp.Or(int(given), port), nil
	}
	if host == "" {
		return "", 0, fmt.Errorf("advertise is not set, and no host:port follows from a listener on %s %s", listen.Network(), listen)
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		if host, err = onlyAddress(net.InterfaceAddrs); err != nil {
			return "", 0, fmt.Errorf("advertise is not set, and the server listens on all addresses (%s): %w", listen, err)
		}
	}
	return host, port, nil
}

// onlyAddress returns the one address at which others can reach this machine: its only IPv4 address that is neither loopback nor
// link-local, or, if it has none, its only such IPv6 address. It does not choose between several: a wrong one is found out late.
func onlyAddress(addresses func() ([]net.Addr, error)) (string, error) {
	all, err := addresses()
	if err != nil {
		return "", fmt.Errorf("listing the machine's addresses: %w", err)
	}
	var v4, v6 []string
	for _, addr := range all {
		network, ok := addr.(*net.IPNet)
		if !ok || !network.IP.IsGlobalUnicast() {
			continue
		}
		if network.IP.To4() != nil {
			v4 = append(v4, network.IP.String())
		} else {
			v6 = append(v6, network.IP.String())
		}
	}
	candidates := v4
	if len(candidates) == 0 {
		candidates = v6
	}
	switch len(candidates) {
	case 0:
		return "", errors.New("the machine has no address that others can reach")
	case 1:
		return candidates[0], nil
	default:
		return "", fmt.Errorf("the machine has several: set advertise to one of %s", strings.Join(candidates, ", "))
	}
}
