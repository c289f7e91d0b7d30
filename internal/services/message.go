package services

import (
	"fmt"
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
func encodable(message proto.Message) error { return encodableMessage("", message.ProtoReflect()) }

// encodableMessage walks by index, because a closure for Range would be allocated for each message of each call.
func encodableMessage(path string, message protoreflect.Message) error {
	fields := message.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if !message.Has(field) {
			continue
		}
		var err error
		switch value := message.Get(field); {
		case field.IsMap():
			err = encodableMap(path, field, value.Map())
		case field.IsList():
			for j, list := 0, value.List(); j < list.Len() && err == nil; j++ {
				err = encodableValue(path, field, field.Kind(), list.Get(j))
			}
		default:
			err = encodableValue(path, field, field.Kind(), value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func encodableMap(path string, field protoreflect.FieldDescriptor, entries protoreflect.Map) (err error) {
	entries.Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
		if err = encodableValue(path, field, field.MapKey().Kind(), key.Value()); err == nil {
			err = encodableValue(path, field, field.MapValue().Kind(), value)
		}
		return err == nil
	})
	return err
}

func encodableValue(path string, field protoreflect.FieldDescriptor, kind protoreflect.Kind, value protoreflect.Value) error {
	switch kind {
	case protoreflect.StringKind:
		if !utf8.ValidString(value.String()) {
			return fmt.Errorf("%s%s is not valid UTF-8", path, field.Name())
		}
	case protoreflect.MessageKind:
		if timestamp, ok := value.Message().Interface().(*timestamppb.Timestamp); !ok {
			return encodableMessage(path+string(field.Name())+".", value.Message())
		} else if !timestamp.IsValid() {
			return fmt.Errorf("%s%s is not within the years 1 to 9999", path, field.Name())
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
