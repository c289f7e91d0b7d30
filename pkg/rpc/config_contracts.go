package rpc

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// checkMethods returns an error, joined, for each entry of methods that can have no effect by the contracts that the program links: of a method that
// its service does not have, or with a hedge where nothing may be hedged. Names of which the contracts know nothing pass: who calls by descriptors
// found elsewhere need not link them.
func checkMethods(methods map[string]MethodConfig, contracts *protoregistry.Files) error {
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(methods)) {
		key := "methods." + name
		described, err := findMethods(protoreflect.FullName(name), contracts)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", key, err))
			continue
		}
		// With not_idempotent, a hedge is wrong whatever the contract says: Validate has that.
		if config := methods[name]; config.Hedge.enabled() && config.Idempotency != IdempotencyNotIdempotent && described != nil {
			if err := checkHedge(described, config.Idempotency); err != nil {
				problems = append(problems, fmt.Errorf("%s.hedge: %w", key, err))
			}
		}
	}
	return errors.Join(problems...)
}

// findMethods returns the method or service with a name, nil if the contracts do not know it, and an error if they know that there is none.
func findMethods(name protoreflect.FullName, contracts *protoregistry.Files) (protoreflect.Descriptor, error) {
	found, err := contracts.FindDescriptorByName(name)
	if err == nil {
		switch found.(type) {
		case protoreflect.MethodDescriptor, protoreflect.ServiceDescriptor:
			return found, nil
		}
		return nil, errors.New("this is neither a method nor a service")
	}
	if contracts.NumFilesByPackage(name) > 0 {
		return nil, errors.New("this is a package; want the name of a service in it, or of a method")
	}
	for above := name.Parent(); above != ""; above = above.Parent() {
		found, _ := contracts.FindDescriptorByName(above) // its only error is that there is nothing
		if service, ok := found.(protoreflect.ServiceDescriptor); ok {
			return nil, fmt.Errorf("%s has no method %s%s", service.Name(), name[len(above)+1:], otherMethods(service))
		}
	}
	if meant := meantBy(name, contracts); meant != "" {
		return nil, fmt.Errorf("there is no such method or service; did you mean %s?", meant)
	}
	return nil, nil //nolint:nilnil // nothing is known, which is no error
}

// meantBy returns the method or service that an unknown name is short for: "auth.Login", "AuthService.Login" or "AuthService"; "" if there is none.
// One that is merely spelt alike may well be a contract that the program does not link.
func meantBy(name protoreflect.FullName, contracts *protoregistry.Files) protoreflect.FullName {
	var meant []protoreflect.FullName
	contracts.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for at := range file.Services().Len() {
			service := file.Services().Get(at)
			if isShort(name, service.FullName()) {
				meant = append(meant, service.FullName())
			}
			for nth := range service.Methods().Len() {
				if method := service.Methods().Get(nth).FullName(); isShort(name, method) {
					meant = append(meant, method)
				}
			}
		}
		return true
	})
	if len(meant) == 0 {
		return ""
	}
	return slices.Min(meant)
}

// isShort reports whether a name is the end of another, or one of its parts with its last.
func isShort(name, of protoreflect.FullName) bool {
	short, long := strings.ToLower(string(name)), strings.ToLower(string(of))
	if strings.HasSuffix(long, "."+short) {
		return true
	}
	part, last, two := strings.Cut(short, ".")
	above, ends := strings.CutSuffix(long, "."+last)
	return two && !strings.Contains(last, ".") && ends && slices.Contains(strings.Split(above, "."), part)
}

// otherMethods goes on from what a service does not have to what it has.
func otherMethods(service protoreflect.ServiceDescriptor) string {
	names := make([]string, service.Methods().Len())
	for at := range names {
		names[at] = string(service.Methods().Get(at).Name())
	}
	if len(names) == 0 {
		return ", nor any other"
	}
	return "; its methods are " + strings.Join(names, ", ")
}

// checkHedge says why the method, or each method of the service, cannot be hedged.
func checkHedge(described protoreflect.Descriptor, idempotency Idempotency) error {
	if method, ok := described.(protoreflect.MethodDescriptor); ok {
		switch {
		case method.IsStreamingClient() || method.IsStreamingServer():
			return fmt.Errorf("%s is a stream, and only unary calls are hedged; remove the hedge", method.Name())
		case idempotency != IdempotencyIdempotent && !declaredIdempotent(method):
			return fmt.Errorf("%s is not declared idempotent (option idempotency_level); set idempotency: idempotent if it is", method.Name())
		}
		return nil
	}
	methods := described.(protoreflect.ServiceDescriptor).Methods() //nolint:errcheck,forcetypeassert // there is nothing else
	for at := range methods.Len() {
		if checkHedge(methods.Get(at), idempotency) == nil {
			return nil
		}
	}
	if idempotency == IdempotencyIdempotent {
		return fmt.Errorf("%s has no unary method, and only unary calls are hedged; remove the hedge", described.Name())
	}
	return fmt.Errorf("%s has no unary method that is declared idempotent (option idempotency_level); give each that is an entry of its own, "+
		"with idempotency: idempotent and the hedge", described.Name())
}

// declaredIdempotent reports whether the method says that a call may be executed more than once.
func declaredIdempotent(method protoreflect.MethodDescriptor) bool {
	options, ok := method.Options().(*descriptorpb.MethodOptions)
	return ok && options.GetIdempotencyLevel() != descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN
}
