package main

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	_ "github.com/0x1d/goplt/internal/services" // links the contracts that are looked up here
	"github.com/0x1d/goplt/pkg/services"
)

// procedure is one method of a core service.
type procedure struct {
	service string // the name that registries know, such as "auth"
	method  protoreflect.MethodDescriptor
}

// parseProcedure finds the method that text names, such as "auth.Login", or by its path, "/goplt.auth.v1.AuthService/Login".
func parseProcedure(text string) (procedure, error) {
	for _, known := range procedures() {
		if strings.TrimPrefix(text, "/") == strings.TrimPrefix(known.path(), "/") {
			return known, nil
		}
	}
	service, name, ok := strings.Cut(text, ".")
	if !ok || name == "" {
		return procedure{}, usagef("%q does not name a method; want SERVICE.Method, such as auth.Login", text)
	}
	if !slices.Contains(services.Names(), service) {
		return procedure{}, usagef("unknown service %q; known services: %s", service, strings.Join(services.Names(), ", "))
	}
	methods := methodsOf(service)
	var known []string
	for i := range methods.Len() {
		method := methods.Get(i)
		if string(method.Name()) == name {
			return procedure{service: service, method: method}, nil
		}
		known = append(known, string(method.Name()))
	}
	return procedure{}, usagef("unknown method %q of service %s; its methods: %s", name, service, strings.Join(known, ", "))
}

// procedures returns every method of every core service.
func procedures() []procedure {
	var all []procedure
	for _, service := range services.Names() {
		methods := methodsOf(service)
		for i := range methods.Len() {
			all = append(all, procedure{service: service, method: methods.Get(i)})
		}
	}
	return all
}

// name is how the command's user names the procedure.
func (p procedure) name() string { return p.service + "." + string(p.method.Name()) }

// methodsOf returns the methods of a core service, whose contract is linked in.
func methodsOf(service string) protoreflect.MethodDescriptors {
	name := protoreflect.FullName(fmt.Sprintf("goplt.%s.v1.%s%sService", service, strings.ToUpper(service[:1]), service[1:]))
	descriptor, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		panic(fmt.Sprintf("contract %s is not linked in: %v", name, err))
	}
	return descriptor.(protoreflect.ServiceDescriptor).Methods() //nolint:errcheck,forcetypeassert // the name is a service's
}

// path is the procedure's path in a URL.
func (p procedure) path() string {
	return fmt.Sprintf("/%s/%s", p.method.Parent().FullName(), p.method.Name())
}

// spec describes the procedure as its generated client would.
func (p procedure) spec() connect.Spec {
	spec := connect.Spec{StreamType: connect.StreamTypeUnary, Schema: p.method, Procedure: p.path()}
	if options, ok := p.method.Options().(*descriptorpb.MethodOptions); ok {
		switch options.GetIdempotencyLevel() {
		case descriptorpb.MethodOptions_NO_SIDE_EFFECTS:
			spec.IdempotencyLevel = connect.IdempotencyNoSideEffects
		case descriptorpb.MethodOptions_IDEMPOTENT:
			spec.IdempotencyLevel = connect.IdempotencyIdempotent
		case descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN:
		}
	}
	return spec
}

// request reads the request message from JSON; "-" means standard input and nothing the empty message. What does not fit the message is an
// error that says where.
func (p procedure) request(args []string, stdin io.Reader) (proto.Message, error) {
	message := dynamicpb.NewMessage(p.method.Input())
	if len(args) == 0 {
		return message, nil
	}
	text := []byte(args[0])
	if args[0] == "-" {
		var err error
		if text, err = io.ReadAll(stdin); err != nil {
			return nil, fmt.Errorf("read the request from standard input: %w", err)
		}
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, usagef("the JSON is empty; want an object such as {}, with the fields: %s", fieldsOf(p.method.Input()))
	}
	if err := protojson.Unmarshal(text, message); err != nil {
		// protobuf's errors begin with its name, followed by one or another kind of space, so that nobody relies on their text.
		reason := strings.TrimLeft(strings.TrimPrefix(err.Error(), "proto:"), " \u00a0")
		reason = invalidValue.ReplaceAllString(reason, "$1") // the value may be a password
		return nil, usagef("the JSON does not fit %s: %s; its fields: %s", p.method.Input().FullName(), reason, fieldsOf(p.method.Input()))
	}
	return message, nil
}

// invalidValue matches what protobuf says of a value that does not fit, and the value.
var invalidValue = regexp.MustCompile(`(?s)(invalid value for \S+ (?:field|type)[^:]*):.*`)

// response returns an empty response message.
func (p procedure) response() proto.Message { return dynamicpb.NewMessage(p.method.Output()) }

func fieldsOf(message protoreflect.MessageDescriptor) string {
	fields := message.Fields()
	if fields.Len() == 0 {
		return "none"
	}
	names := make([]string, fields.Len())
	for i := range fields.Len() {
		names[i] = fields.Get(i).JSONName()
	}
	return strings.Join(names, ", ")
}
