package jsoncodec

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxDepth is how deep messages may be nested, as for protojson and the wire format.
const maxDepth = protowire.DefaultRecursionLimit

// decoder translates JSON into the wire format.
type decoder struct {
	scanner

	wire []byte
}

// decode translates text into s.wire.
func (s *scratch) decode(text []byte, root *schema) error {
	d := decoder{scanner: scanner{text: text, scratch: s.text}, wire: s.wire[:0]}
	defer func() { s.wire, s.text = d.wire, d.scratch }()
	if err := d.message(root, maxDepth); err != nil {
		return err
	}
	d.next()
	if d.at < len(text) {
		return d.fail("want nothing after the message")
	}
	return nil
}

// message translates the content of a message.
func (d *decoder) message(s *schema, depth int) *syntaxError {
	if depth <= 0 {
		return d.fail(tooDeep)
	}
	if s.timestamp {
		return d.timestamp()
	}
	if err := d.take('{', "want an object"); err != nil {
		return err
	}
	var seen, oneofs uint64
	for first := true; ; first = false {
		more, err := d.more('}', first)
		if err != nil || !more {
			return err
		}
		start := d.at
		name, err := d.str()
		if err != nil {
			return d.fail("want the name of a field, quoted")
		}
		f := s.byName[string(name)]
		extension := len(name) > 1 && name[0] == '[' && name[len(name)-1] == ']'
		if err := d.take(':', `want ":" after the name`); err != nil {
			return err
		}
		switch {
		case extension: // not of this message, whose type has none; which of such names are errors, protojson knows
			d.at = start
			return d.fail("want no extension")
		case f == nil:
			if err := d.skip(depth); err != nil {
				return err
			}
			continue
		case seen&(1<<f.index) != 0:
			d.at = start
			return d.fail("want the field only once").within(f.name)
		}
		seen |= 1 << f.index
		if d.isNull() {
			continue
		}
		if f.oneof >= 0 {
			if oneofs&(1<<f.oneof) != 0 {
				d.at = start
				return d.fail("want only one field of its oneof").within(f.name)
			}
			oneofs |= 1 << f.oneof
		}
		if err := d.field(f, depth); err != nil {
			return err.within(f.name)
		}
	}
}

// field translates all values of a field.
func (d *decoder) field(f *field, depth int) *syntaxError {
	switch {
	case f.mapTo != nil:
		return d.entries(f, depth)
	case f.list:
		return d.list(f, depth)
	default:
		return d.tagged(f, depth)
	}
}

// tagged translates one value with its tag.
func (d *decoder) tagged(f *field, depth int) *syntaxError {
	start := len(d.wire)
	d.wire = protowire.AppendVarint(d.wire, protowire.EncodeTag(f.number, f.wire))
	written, err := d.value(f, depth)
	if !written {
		d.wire = d.wire[:start]
	}
	return err
}

// list translates a list.
func (d *decoder) list(f *field, depth int) *syntaxError {
	if err := d.take('[', "want a list"); err != nil {
		return err
	}
	begin := len(d.wire)
	var content int
	if f.packed {
		d.wire = protowire.AppendVarint(d.wire, f.tag)
		content = d.open()
	}
	for first := true; ; first = false {
		more, err := d.more(']', first)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		if f.packed {
			_, err = d.value(f, depth)
		} else {
			err = d.tagged(f, depth)
		}
		if err != nil {
			return err
		}
	}
	switch {
	case !f.packed:
	case len(d.wire) == content:
		d.wire = d.wire[:begin]
	default:
		d.close(content)
	}
	return nil
}

// entries translates a map.
func (d *decoder) entries(f *field, depth int) *syntaxError {
	if err := d.take('{', "want an object"); err != nil {
		return err
	}
	var seen map[string]struct{}
	for first := true; ; first = false {
		more, err := d.more('}', first)
		if err != nil || !more {
			return err
		}
		begin := len(d.wire)
		d.wire = protowire.AppendVarint(d.wire, f.tag)
		content := d.open()
		d.wire = protowire.AppendVarint(d.wire, f.mapKey.tag)
		key := len(d.wire)
		if err := d.key(f.mapKey); err != nil {
			return err
		}
		if _, twice := seen[string(d.wire[key:])]; twice {
			return d.fail("want each key only once")
		}
		name := string(d.wire[key:])
		if err := d.take(':', `want ":" after the key`); err != nil {
			return err
		}
		d.wire = protowire.AppendVarint(d.wire, f.mapTo.tag)
		written, err := d.value(f.mapTo, depth)
		if err != nil {
			return err
		}
		if !written {
			d.wire = d.wire[:begin]
			continue
		}
		if seen == nil {
			seen = map[string]struct{}{}
		}
		seen[name] = struct{}{}
		d.close(content)
	}
}

// lengthRoom is what is left for a length: enough for any, so that no content has to be moved when its length is known. Moving it once for
// each level that it is nested in would let a small request cost minutes.
const lengthRoom = 5

// open leaves room for the length of what follows and returns where that begins.
func (d *decoder) open() int {
	var room [lengthRoom]byte
	d.wire = append(d.wire, room[:]...)
	return len(d.wire)
}

// close writes the length of what began at content: a varint that has more bytes than it needs is one all the same.
func (d *decoder) close(content int) {
	size := len(d.wire) - content
	for i := content - lengthRoom; i < content-1; i++ {
		d.wire[i] = byte(size&0x7f) | 0x80
		size >>= 7
	}
	d.wire[content-1] = byte(size & 0x7f)
}

// value translates one value, without tag. It reports whether there is one: an enum's name that is unknown is none.
func (d *decoder) value(f *field, depth int) (bool, *syntaxError) {
	d.next()
	switch f.kind {
	case protoreflect.MessageKind:
		content := d.open()
		if err := d.message(f.message, depth-1); err != nil {
			return true, err
		}
		d.close(content)
		return true, nil
	case protoreflect.StringKind:
		text, err := d.str()
		if err != nil {
			return true, err
		}
		d.wire = protowire.AppendBytes(d.wire, text)
		return true, nil
	case protoreflect.EnumKind:
		return d.enum(f.enum)
	default:
		return true, d.scalar(f.kind)
	}
}
