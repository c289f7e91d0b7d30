package jsoncodec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sync"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Codec is a [connect.Codec] named "json". Unknown fields and unknown names of enum values are ignored, so that the two sides may have
// different versions of the schema. Make one with [New]. It is safe for concurrent use.
type Codec struct {
	schemas sync.Map // protoreflect.MessageDescriptor -> *schema, nil for a type without tables
	scratch sync.Pool
}

var _ connect.Codec = (*Codec)(nil)

// New returns a codec. It keeps a table for each type of generated message that it meets.
func New() *Codec {
	return &Codec{scratch: sync.Pool{New: func() any { return new(scratch) }}}
}

// scratch is the memory that one message needs on its way.
type scratch struct {
	wire []byte // the message in the wire format
	text []byte // a string without its escapes
}

// maxScratch bounds what is kept from one message for the next.
const maxScratch = 64 << 10

func (c *Codec) release(s *scratch) {
	if cap(s.wire) <= maxScratch && cap(s.text) <= maxScratch {
		c.scratch.Put(s)
	}
}

// Name returns "json".
func (c *Codec) Name() string { return connect.CodecNameJSON }

// IsBinary reports false.
func (c *Codec) IsBinary() bool { return false }

// MarshalWrite writes a [proto.Message] to dst, without white space.
func (c *Codec) MarshalWrite(_ context.Context, dst io.Writer, message any) error {
	source, ok := message.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is not a protobuf message", message)
	}
	buffer, ok := dst.(*bytes.Buffer) // what connecthttp gives
	if !ok {
		buffer = new(bytes.Buffer)
	}
	text, err := c.appendJSON(buffer, source)
	if err != nil {
		return err
	}
	_, err = dst.Write(text)
	return err
}

// appendJSON returns source as JSON, in the spare capacity of buffer if it fits.
func (c *Codec) appendJSON(buffer *bytes.Buffer, source proto.Message) ([]byte, error) {
	if schema := c.schemaOf(source); schema != nil {
		s := c.scratch.Get().(*scratch) //nolint:errcheck,forcetypeassert // the pool holds nothing else
		defer c.release(s)
		var err error
		// Deterministic sorts maps, as protojson does.
		if s.wire, err = (proto.MarshalOptions{Deterministic: true}).MarshalAppend(s.wire[:0], source); err == nil {
			buffer.Grow(2 * len(s.wire))
			if text, ok := appendMessage(buffer.AvailableBuffer(), schema, s.wire); ok {
				return text, nil
			}
		}
	}
	return protojson.MarshalOptions{}.MarshalAppend(buffer.AvailableBuffer(), source) // which also words the errors
}

// UnmarshalRead reads src to its end and replaces what is in message, a [proto.Message], by it. After an error, message is as it was or
// empty. Errors tell the line and column and the field, but no value.
func (c *Codec) UnmarshalRead(_ context.Context, src io.Reader, message any) error {
	target, ok := message.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is not a protobuf message", message)
	}
	var text []byte
	if buffer, ok := src.(*bytes.Buffer); ok { // what connecthttp gives, of which it needs nothing more
		text = buffer.Next(buffer.Len())
	} else {
		var err error
		if text, err = io.ReadAll(src); err != nil {
			return err
		}
	}
	if len(text) == 0 {
		return errors.New("zero-length payload is not a valid JSON object")
	}
	return c.unmarshal(text, target)
}

func (c *Codec) unmarshal(text []byte, target proto.Message) error {
	var refused error
	if schema := c.schemaOf(target); schema != nil {
		s := c.scratch.Get().(*scratch) //nolint:errcheck,forcetypeassert // the pool holds nothing else
		defer c.release(s)
		if refused = s.decode(text, schema); refused == nil {
			return proto.UnmarshalOptions{NoLazyDecoding: true}.Unmarshal(s.wire, target)
		}
	}
	err := protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(text, target)
	if err == nil {
		return nil
	}
	proto.Reset(target)
	if syntax, ok := errors.AsType[*syntaxError](refused); ok {
		return syntax.at(text)
	}
	return withoutValue(err, target)
}

// withoutValue keeps of an error of protojson's where it was.
func withoutValue(err error, target proto.Message) error {
	name := target.ProtoReflect().Descriptor().FullName()
	if position := positionExpression.FindString(err.Error()); position != "" {
		return fmt.Errorf("%s: not the JSON of %s", position, name)
	}
	return fmt.Errorf("not the JSON of %s", name)
}

var positionExpression = regexp.MustCompile(`\(line \d+:\d+\)`)

// schemaOf returns the table of a message, or nil if it has none.
func (c *Codec) schemaOf(message proto.Message) *schema {
	reflected := message.ProtoReflect()
	if !reflected.IsValid() || reflected.ProtoMethods() == nil {
		return nil // nil, or of a type made at run time, of which there may be any number
	}
	descriptor := reflected.Descriptor()
	if known, ok := c.schemas.Load(descriptor); ok {
		return known.(*schema) //nolint:errcheck,forcetypeassert // the map holds nothing else
	}
	made, _ := c.schemas.LoadOrStore(descriptor, newSchema(descriptor))
	return made.(*schema) //nolint:errcheck,forcetypeassert // the map holds nothing else
}
