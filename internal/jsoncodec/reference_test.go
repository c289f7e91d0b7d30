package jsoncodec_test

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/0x1d/goplt/internal/jsoncodec"
	"github.com/0x1d/goplt/internal/jsoncodec/internal/everything"
)

// encode and decode are the codec as connecthttp uses it.
func encode(t testing.TB, codec *jsoncodec.Codec, message proto.Message) ([]byte, error) {
	t.Helper()
	var buffer bytes.Buffer
	err := codec.MarshalWrite(t.Context(), &buffer, message)
	return buffer.Bytes(), err
}

func decode(t testing.TB, codec *jsoncodec.Codec, text []byte, message proto.Message) error {
	t.Helper()
	return codec.UnmarshalRead(t.Context(), bytes.NewBuffer(bytes.Clone(text)), message)
}

var reference = protojson.UnmarshalOptions{DiscardUnknown: true}

// compareEncoding checks that a message has the JSON that protojson gives it, or neither has any.
func compareEncoding(t *testing.T, codec *jsoncodec.Codec, message proto.Message) {
	t.Helper()
	got, gotErr := encode(t, codec, message)
	want, wantErr := protojson.Marshal(message)
	if gotErr != nil || wantErr != nil {
		if gotErr == nil || wantErr == nil || words(gotErr) != words(wantErr) {
			t.Fatalf("encoding %v: got error %v, want %v", message, gotErr, wantErr)
		}
		return
	}
	if diff := cmp.Diff(value(t, want), value(t, got)); diff != "" {
		t.Fatalf("JSON (-protojson +ours):\n%s", diff)
	}
	back := message.ProtoReflect().New().Interface()
	if err := decode(t, codec, got, back); err != nil {
		t.Fatalf("decoding what was encoded, %s: %v", got, err)
	}
	again := message.ProtoReflect().New().Interface()
	if err := reference.Unmarshal(got, again); err != nil {
		t.Fatalf("protojson, decoding what was encoded, %s: %v", got, err)
	}
	if !proto.Equal(again, back) {
		t.Fatalf("message of %s (-protojson +ours):\n%s", got, cmp.Diff(again, back, protocmp.Transform()))
	}
}

// compareDecoding checks that text is the message that protojson makes of it, or neither takes it.
func compareDecoding(t *testing.T, codec *jsoncodec.Codec, text []byte, message proto.Message) {
	t.Helper()
	got, want := message.ProtoReflect().New().Interface(), message.ProtoReflect().New().Interface()
	gotErr, wantErr := decode(t, codec, text, got), reference.Unmarshal(text, want)
	if (gotErr == nil) != (wantErr == nil) {
		t.Fatalf("decoding %q: got error %v, want %v", text, gotErr, wantErr)
	}
	if gotErr != nil {
		if strings.HasPrefix(gotErr.Error(), "proto:") {
			t.Fatalf("decoding %q: protojson's own words: %v", text, gotErr)
		}
		return
	}
	if !proto.Equal(want, got) {
		t.Fatalf("message of %q (-protojson +ours):\n%s", text, cmp.Diff(want, got, protocmp.Transform()))
	}
}

// words is the text of an error. protojson varies its white space on purpose.
func words(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// value is any JSON text, without regard to order and white space.
func value(t *testing.T, text []byte) any {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		t.Fatalf("not JSON: %s: %v", text, err)
	}
	return v
}

// fill sets about half of a message's fields to values at and between the bounds of their types.
func fill(random *rand.Rand, message protoreflect.Message, depth int) {
	if message.Descriptor().FullName() == "google.protobuf.Timestamp" {
		proto.Merge(message.Interface(), timestamp(random))
		return
	}
	fields := message.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		switch {
		case random.IntN(2) == 0 || depth == 0 && holdsMessage(field):
		case field.IsList():
			list := message.Mutable(field).List()
			for range random.IntN(4) {
				list.Append(randomValue(random, field, list.NewElement, depth))
			}
		case field.IsMap():
			entries := message.Mutable(field).Map()
			for range random.IntN(4) {
				key := randomValue(random, field.MapKey(), nil, depth).MapKey()
				entries.Set(key, randomValue(random, field.MapValue(), entries.NewValue, depth))
			}
		default:
			message.Set(field, randomValue(random, field, func() protoreflect.Value { return message.NewField(field) }, depth))
		}
	}
}

func holdsMessage(field protoreflect.FieldDescriptor) bool {
	return field.Kind() == protoreflect.MessageKind && (!field.IsMap() || field.MapValue().Kind() == protoreflect.MessageKind)
}

func timestamp(random *rand.Rand) *timestamppb.Timestamp {
	return &timestamppb.Timestamp{
		Seconds: pick(random, 0, 1, -1, -62135596800, 253402300799, 951827696, random.Int64N(4e9)),
		Nanos:   pick(random, 0, 1, 999999999, 500000000, 120000, 1000, 100, random.Int32N(1e9)),
	}
}

func pick[T any](random *rand.Rand, values ...T) T { return values[random.IntN(len(values))] }

func randomValue(
	random *rand.Rand, field protoreflect.FieldDescriptor, newMessage func() protoreflect.Value, depth int,
) protoreflect.Value {
	switch field.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(random.IntN(2) == 0)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(pick[protoreflect.EnumNumber](random, 0, 1, 2, -7, 12, math.MaxInt32, math.MinInt32))
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(pick(random, 0, 1, -1, math.MaxInt32, math.MinInt32, random.Int32()))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(pick(random, 0, 1, -1, math.MaxInt64, math.MinInt64, random.Int64()))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(pick(random, 0, 1, math.MaxUint32, random.Uint32()))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(pick(random, 0, 1, math.MaxUint64, random.Uint64()))
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(pick(random, 0, float32(math.Copysign(0, -1)), 1.5, 1e-7, 9.9e-7, 1e21, 1e20, math.MaxFloat32,
			math.SmallestNonzeroFloat32, float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), random.Float32()))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(pick(random, 0, math.Copysign(0, -1), 1.5, 1e-7, 9.9e-7, 1e21, 1e20, 1e-300, math.MaxFloat64,
			math.SmallestNonzeroFloat64, math.NaN(), math.Inf(1), math.Inf(-1), random.Float64()))
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(randomString(random))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(randomString(random)))
	default:
		made := newMessage()
		fill(random, made.Message(), depth-1)
		return made
	}
}

func randomString(random *rand.Rand) string {
	var text []byte
	for range pick(random, 0, 1, 3, 20, 200) {
		text = utf8.AppendRune(text, pick(random,
			'a', 'z', '"', '\\', '/', '\n', '\t', 0, 0x1f, 0x7f, 'é', '€', '\u2028', utf8.RuneError, '😀', random.Int32N(0xd800)))
	}
	return string(text)
}

func TestRandomMessagesHaveTheJSONOfProtojson(t *testing.T) {
	codec := jsoncodec.New()
	random := rand.New(rand.NewPCG(1, 2))
	for range 400 {
		message := new(everything.Everything)
		fill(random, message.ProtoReflect(), 2)
		compareEncoding(t, codec, message)
		theirs, err := protojson.Marshal(message)
		if err != nil {
			t.Fatal(err)
		}
		compareDecoding(t, codec, theirs, message)
		// Text that nearly fits.
		for range 3 {
			theirs[random.IntN(len(theirs))] = pick(random, []byte("\"{}[],:0-e.ntf \\\xff")...)
			compareDecoding(t, codec, theirs, message)
		}
	}
}
