package services

import (
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// unset returns the name of a field of message that holds a message and is not set, or "" if there is none. Every response of the core
// services must have all of its fields that hold messages: they are what was asked for.
func unset(message proto.Message) protoreflect.Name {
	reflected := message.ProtoReflect()
	fields := reflected.Descriptor().Fields()
	for i := range fields.Len() {
		if field := fields.Get(i); field.Message() != nil && field.Cardinality() != protoreflect.Repeated && !reflected.Has(field) {
			return field.Name()
		}
	}
	return ""
}

// encodable returns an error that names the field which keeps message from being sent, in protobuf or in JSON: text that is not UTF-8,
// a time outside the years 1 to 9999. Asking first tells the one who chose the value apart from the one who sends it, and makes calls
// within the process, which are copied and not encoded, refuse the same. The error does not hold the value.
func encodable(message proto.Message) error {
	if found := encodableMessage(message.ProtoReflect()); found != nil {
		return found
	}
	return nil
}

// unencodable says which field, by its path from the message, cannot be sent, and why. The path is put together on the way back, so that
// messages without fault pay nothing for it.
type unencodable struct{ path, reason string }

func (u *unencodable) Error() string { return u.path + " is not " + u.reason }

// encodableMessage walks by index, because a closure for Range would be allocated for each message of each call.
func encodableMessage(message protoreflect.Message) *unencodable {
	fields := message.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if !message.Has(field) {
			continue
		}
		var found *unencodable
		switch value := message.Get(field); {
		case field.IsMap():
			found = encodableMap(field, value.Map())
		case field.IsList():
			for j, list := 0, value.List(); j < list.Len() && found == nil; j++ {
				found = encodableValue(field, field.Kind(), list.Get(j))
			}
		default:
			found = encodableValue(field, field.Kind(), value)
		}
		if found != nil {
			return found
		}
	}
	return nil
}

func encodableMap(field protoreflect.FieldDescriptor, entries protoreflect.Map) (found *unencodable) {
	entries.Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
		if found = encodableValue(field, field.MapKey().Kind(), key.Value()); found == nil {
			found = encodableValue(field, field.MapValue().Kind(), value)
		}
		return found == nil
	})
	return found
}

func encodableValue(field protoreflect.FieldDescriptor, kind protoreflect.Kind, value protoreflect.Value) *unencodable {
	switch kind {
	case protoreflect.StringKind:
		if !utf8.ValidString(value.String()) {
			return &unencodable{string(field.Name()), "valid UTF-8"}
		}
	case protoreflect.MessageKind:
		if timestamp, ok := value.Message().Interface().(*timestamppb.Timestamp); !ok {
			if found := encodableMessage(value.Message()); found != nil {
				return &unencodable{string(field.Name()) + "." + found.path, found.reason}
			}
		} else if !timestamp.IsValid() {
			return &unencodable{string(field.Name()), "within the years 1 to 9999"}
		}
	default:
	}
	return nil
}

// timeToProto leaves the zero time unset. The time's location is not sent.
func timeToProto(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// timeFromProto returns the time in UTC, the zero time if it is unset.
func timeFromProto(timestamp *timestamppb.Timestamp) time.Time {
	if timestamp == nil {
		return time.Time{}
	}
	return timestamp.AsTime()
}
