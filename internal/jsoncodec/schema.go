package jsoncodec

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// schema is the table of a message type. It is immutable once made.
type schema struct {
	timestamp bool // google.protobuf.Timestamp, which is a string in JSON
	fields    []*field
	byNumber  []*field          // index is the field number, for those below denseFields
	byName    map[string]*field // by the JSON name and by the name in the schema
}

// denseFields bounds schema.byNumber.
const denseFields = 256

// field is how one field is written.
type field struct {
	name    string // in JSON
	key     string // the name as an object's key: quoted, with the colon
	number  protowire.Number
	index   int // in the message, for duplicates
	oneof   int // its index, -1 if the field is in none
	kind    protoreflect.Kind
	list    bool
	packed  bool
	message *schema        // of a message
	enum    *enum          // of an enum
	mapKey  *field         // of a map; then kind is of no use
	mapTo   *field         // of a map
	tag     uint64         // with the wire type that is written
	wire    protowire.Type // of one value
}

// enum is the names of an enum's values.
type enum struct {
	numbers map[string]protoreflect.EnumNumber
	names   map[protoreflect.EnumNumber]string // quoted
}

// maxFields is how many fields, and how many oneofs, a message with a table may have: each has one bit in a word.
const maxFields = 64

// newSchema returns the table of a message type, or nil if protojson has to serve it: when the type, or one within it, is well-known and
// no Timestamp, or has required fields, extensions, groups, closed enums, fields that are decoded lazily, or more than maxFields fields.
func newSchema(descriptor protoreflect.MessageDescriptor) *schema {
	made := map[protoreflect.FullName]*schema{}
	if !addSchema(made, descriptor) {
		return nil
	}
	return made[descriptor.FullName()]
}

// addSchema adds the table of a message type and of all types within, and reports whether all can have one.
func addSchema(made map[protoreflect.FullName]*schema, descriptor protoreflect.MessageDescriptor) bool {
	name := descriptor.FullName()
	if made[name] != nil {
		return true
	}
	s := &schema{timestamp: name == "google.protobuf.Timestamp", byName: map[string]*field{}}
	made[name] = s
	fields := descriptor.Fields()
	if name.Parent() == "google.protobuf" && !s.timestamp || descriptor.ExtensionRanges().Len() > 0 ||
		fields.Len() > maxFields || descriptor.Oneofs().Len() > maxFields {
		return false
	}
	for index := range fields.Len() {
		f := newField(made, fields.Get(index))
		if f == nil {
			return false
		}
		s.add(f)
		s.byName[fields.Get(index).TextName()] = f
	}
	for _, f := range s.fields { // a JSON name goes before another field's name in the schema
		s.byName[f.name] = f
	}
	return true
}

func (s *schema) add(f *field) {
	s.fields = append(s.fields, f)
	if f.number >= denseFields {
		return
	}
	if missing := int(f.number) + 1 - len(s.byNumber); missing > 0 {
		s.byNumber = append(s.byNumber, make([]*field, missing)...)
	}
	s.byNumber[f.number] = f
}

// field returns the field with a number, or nil.
func (s *schema) field(number protowire.Number) *field {
	if number < denseFields {
		if int(number) < len(s.byNumber) {
			return s.byNumber[number]
		}
		return nil
	}
	for _, f := range s.fields {
		if f.number == number {
			return f
		}
	}
	return nil
}

// newField returns how a field is written, or nil if there is no table for it.
func newField(made map[protoreflect.FullName]*schema, descriptor protoreflect.FieldDescriptor) *field {
	options, _ := descriptor.Options().(*descriptorpb.FieldOptions)
	if descriptor.Cardinality() == protoreflect.Required || options.GetLazy() || options.GetUnverifiedLazy() {
		return nil
	}
	key, ok := appendString(nil, []byte(descriptor.JSONName()))
	if !ok {
		return nil
	}
	f := &field{
		name: descriptor.JSONName(), key: string(append(key, ':')), number: descriptor.Number(), index: descriptor.Index(), oneof: -1,
		kind: descriptor.Kind(), list: descriptor.IsList(), packed: descriptor.IsPacked(),
	}
	if oneof := descriptor.ContainingOneof(); oneof != nil {
		f.oneof = oneof.Index()
	}
	if descriptor.IsMap() {
		f.mapKey, f.mapTo = newField(made, descriptor.MapKey()), newField(made, descriptor.MapValue())
		f.wire = protowire.BytesType
		f.tag = protowire.EncodeTag(f.number, f.wire)
		if f.mapKey == nil || f.mapTo == nil {
			return nil
		}
		return f
	}
	if f.wire, ok = wireType(f.kind); !ok {
		return nil
	}
	f.tag = protowire.EncodeTag(f.number, f.wire)
	if f.packed {
		f.tag = protowire.EncodeTag(f.number, protowire.BytesType)
	}
	switch f.kind {
	case protoreflect.MessageKind:
		if !addSchema(made, descriptor.Message()) {
			return nil
		}
		f.message = made[descriptor.Message().FullName()]
	case protoreflect.EnumKind:
		if f.enum = newEnum(descriptor.Enum()); f.enum == nil {
			return nil
		}
	default:
	}
	return f
}

// wireType returns how a value of a kind is written, and false for a group, for which there is no table.
func wireType(kind protoreflect.Kind) (protowire.Type, bool) {
	switch kind {
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind, protoreflect.FloatKind:
		return protowire.Fixed32Type, true
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
		return protowire.Fixed64Type, true
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind:
		return protowire.BytesType, true
	case protoreflect.GroupKind:
		return 0, false
	default:
		return protowire.VarintType, true
	}
}

// comesAs reports whether the field may stand in the wire format with a wire type.
func (f *field) comesAs(wire protowire.Type) bool {
	return wire == f.wire || f.packed && wire == protowire.BytesType
}

// newEnum returns the names of an open enum. The unknown values of a closed one are no values of the field (they are kept with the
// message's unknown fields), which the wire format does not show.
func newEnum(descriptor protoreflect.EnumDescriptor) *enum {
	if descriptor.IsClosed() || descriptor.FullName() == "google.protobuf.NullValue" {
		return nil
	}
	e := &enum{numbers: map[string]protoreflect.EnumNumber{}, names: map[protoreflect.EnumNumber]string{}}
	for index := range descriptor.Values().Len() {
		value := descriptor.Values().Get(index)
		e.numbers[string(value.Name())] = value.Number()
		if _, named := e.names[value.Number()]; !named { // the first of several names of one value
			e.names[value.Number()] = `"` + string(value.Name()) + `"`
		}
	}
	return e
}
