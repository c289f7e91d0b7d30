package jsoncodec

import (
	"bytes"
	"encoding/base64"
	"math"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// scalar translates a value that is no string, enum or message.
func (d *decoder) scalar(kind protoreflect.Kind) *syntaxError {
	switch kind {
	case protoreflect.BoolKind:
		d.next()
		switch {
		case d.word("true"):
			d.wire = append(d.wire, 1)
		case d.word("false"):
			d.wire = append(d.wire, 0)
		default:
			return d.fail("want true or false")
		}
		return nil
	case protoreflect.BytesKind:
		return d.bytes()
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return d.float(kind)
	default:
		start := d.at
		digits, ok := d.digits()
		if !ok || !d.integer(kind, digits) {
			d.at = start
			return d.fail("want a number of the type " + kind.String())
		}
		return nil
	}
}

// digits consumes a number, or a string that holds one, and returns it.
func (d *decoder) digits() ([]byte, bool) {
	if d.next() != '"' {
		return d.number()
	}
	text, err := d.str()
	if err != nil {
		return nil, false
	}
	end, ok := numberEnd(text, 0)
	return text, ok && end == len(text)
}

// integer appends an integer in its plain form. Whether another, such as 1e3, is one, is for protojson to say.
func (d *decoder) integer(kind protoreflect.Kind, digits []byte) bool {
	bits := 64
	switch kind {
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind, protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		bits = 32
	default:
	}
	switch kind {
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Fixed32Kind, protoreflect.Fixed64Kind:
		v, err := strconv.ParseUint(string(digits), 10, bits)
		if err != nil {
			return false
		}
		d.wire = appendUnsigned(d.wire, kind, v)
	default:
		v, err := strconv.ParseInt(string(digits), 10, bits)
		if err != nil {
			return false
		}
		d.wire = appendSigned(d.wire, kind, v)
	}
	return true
}

func appendUnsigned(wire []byte, kind protoreflect.Kind, v uint64) []byte {
	switch kind {
	case protoreflect.Fixed32Kind:
		return protowire.AppendFixed32(wire, uint32(v)) //nolint:gosec // parsed with 32 bits
	case protoreflect.Fixed64Kind:
		return protowire.AppendFixed64(wire, v)
	default:
		return protowire.AppendVarint(wire, v)
	}
}

//nolint:gosec // parsed with as many bits as are kept; two's complement
func appendSigned(wire []byte, kind protoreflect.Kind, v int64) []byte {
	switch kind {
	case protoreflect.Sfixed32Kind:
		return protowire.AppendFixed32(wire, uint32(v))
	case protoreflect.Sfixed64Kind:
		return protowire.AppendFixed64(wire, uint64(v))
	case protoreflect.Sint32Kind, protoreflect.Sint64Kind:
		return protowire.AppendVarint(wire, protowire.EncodeZigZag(v))
	default:
		return protowire.AppendVarint(wire, uint64(v))
	}
}

func (d *decoder) float(kind protoreflect.Kind) *syntaxError {
	start := d.at
	digits, ok := d.floatText()
	bits := 64
	if kind == protoreflect.FloatKind {
		bits = 32
	}
	v, err := strconv.ParseFloat(string(digits), bits)
	if !ok || err != nil {
		d.at = start
		return d.fail("want a number of the type " + kind.String())
	}
	if bits == 32 {
		d.wire = protowire.AppendFixed32(d.wire, math.Float32bits(float32(v)))
	} else {
		d.wire = protowire.AppendFixed64(d.wire, math.Float64bits(v))
	}
	return nil
}

// floatText consumes a number, a string that holds one, or one of the names that strconv knows as well.
func (d *decoder) floatText() ([]byte, bool) {
	if d.next() != '"' {
		return d.number()
	}
	text, err := d.str()
	if err != nil {
		return nil, false
	}
	switch string(text) {
	case "NaN", "Infinity", "-Infinity":
		return text, true
	}
	end, ok := numberEnd(text, 0)
	return text, ok && end == len(text)
}

// bytes translates base64, of either alphabet, padded or not.
func (d *decoder) bytes() *syntaxError {
	start := d.at
	text, err := d.str()
	if err != nil {
		return err
	}
	encoding := base64.StdEncoding
	if bytes.ContainsAny(text, "-_") {
		encoding = base64.URLEncoding
	}
	if len(text)%4 != 0 {
		encoding = encoding.WithPadding(base64.NoPadding)
	}
	content := d.open()
	decoded, bad := encoding.AppendDecode(d.wire, text)
	if bad != nil {
		d.at = start
		return d.fail("want base64")
	}
	d.wire = decoded
	d.close(content)
	return nil
}

// enum translates the name of an enum's value, or its number. It reports false for a name that is unknown.
func (d *decoder) enum(e *enum) (bool, *syntaxError) {
	start := d.at
	if d.next() == '"' {
		name, err := d.str()
		if err != nil {
			return false, err
		}
		number, known := e.numbers[string(name)]
		if known {
			d.wire = protowire.AppendVarint(d.wire, uint64(number)) //nolint:gosec // the wire format extends the sign to 64 bits
		}
		return known, nil
	}
	digits, ok := d.number()
	if !ok || !d.integer(protoreflect.Int32Kind, digits) {
		d.at = start
		return true, d.fail("want a name or a number of the enum")
	}
	return true, nil
}

// key translates a key of a map: a string, whatever its kind.
func (d *decoder) key(f *field) *syntaxError {
	start := d.at
	text, err := d.str()
	if err != nil {
		return err
	}
	switch f.kind {
	case protoreflect.StringKind:
		d.wire = protowire.AppendBytes(d.wire, text)
		return nil
	case protoreflect.BoolKind:
		if value := string(text); value == "true" || value == "false" {
			d.wire = protowire.AppendVarint(d.wire, protowire.EncodeBool(value == "true"))
			return nil
		}
	default:
		if d.integer(f.kind, text) {
			return nil
		}
	}
	d.at = start
	return d.fail("want a key of the type " + f.kind.String())
}

// timestamp translates RFC 3339, in any time zone, into the content of a google.protobuf.Timestamp.
func (d *decoder) timestamp() *syntaxError {
	start := d.at
	text, err := d.str()
	if err != nil {
		return err
	}
	at, bad := time.Parse(time.RFC3339Nano, string(text))
	seconds := at.Unix()
	fraction := bytes.LastIndexByte(text, '.')
	zone := bytes.LastIndexAny(text, "Z-+")
	if bad != nil || seconds < minTimestampSeconds || seconds > maxTimestampSeconds ||
		fraction >= 0 && zone >= fraction && zone-fraction > len(".999999999") {
		d.at = start
		return d.fail("want a time such as 2006-01-02T15:04:05Z, of the years 1 to 9999, to the nanosecond")
	}
	if seconds != 0 {
		d.wire = protowire.AppendTag(d.wire, timestampSeconds, protowire.VarintType)
		d.wire = protowire.AppendVarint(d.wire, uint64(seconds)) //nolint:gosec // two's complement
	}
	if nanos := at.Nanosecond(); nanos != 0 {
		d.wire = protowire.AppendTag(d.wire, timestampNanos, protowire.VarintType)
		d.wire = protowire.AppendVarint(d.wire, uint64(nanos)) //nolint:gosec // never negative
	}
	return nil
}
