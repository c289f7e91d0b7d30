package services

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// newRandom returns the random numbers of a test: the same on every run.
func newRandom(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// randomText returns text that is often empty and often not ASCII, and always UTF-8.
func randomText(random *rand.Rand) string {
	alphabet := []rune("aZ09 \x00\n\"\\/<>é€🙂\u2028")
	text := make([]rune, max(0, random.IntN(12)-2))
	for i := range text {
		text[i] = alphabet[random.IntN(len(alphabet))]
	}
	return string(text)
}

// randomTime returns a time in the years 1 to 9999, with its first and last instant more often than chance has it, or the zero time.
func randomTime(random *rand.Rand) time.Time {
	first, last := time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC)
	switch random.IntN(8) {
	case 0:
		return time.Time{}
	case 1:
		return first
	case 2:
		return last
	case 3:
		return time.Unix(0, 0).UTC()
	default:
		return time.Unix(first.Unix()+random.Int64N(last.Unix()-first.Unix()), random.Int64N(1e9)).UTC()
	}
}

// fill sets value to a random value that can be carried over the wire. Lists and maps are nil or hold something: empty is what nil becomes.
func fill(random *rand.Rand, value reflect.Value) {
	if value.Type() == reflect.TypeFor[time.Time]() {
		value.Set(reflect.ValueOf(randomTime(random)))
		return
	}
	switch value.Kind() {
	case reflect.String:
		value.SetString(randomText(random))
	case reflect.Bool:
		value.SetBool(random.IntN(2) == 1)
	case reflect.Int:
		value.SetInt(int64(int32(random.Uint32())))
	case reflect.Pointer:
		value.Set(reflect.New(value.Type().Elem()))
		fill(random, value.Elem())
	case reflect.Slice:
		value.SetZero()
		for range random.IntN(4) {
			value.Set(reflect.Append(value, reflect.Zero(value.Type().Elem())))
			fill(random, value.Index(value.Len()-1))
		}
	case reflect.Map:
		value.SetZero()
		for range random.IntN(4) {
			if value.IsNil() {
				value.Set(reflect.MakeMap(value.Type()))
			}
			key, element := reflect.New(value.Type().Key()).Elem(), reflect.New(value.Type().Elem()).Elem()
			fill(random, key)
			fill(random, element)
			value.SetMapIndex(key, element)
		}
	case reflect.Struct:
		for _, field := range value.Fields() {
			fill(random, field)
		}
	default:
		panic(fmt.Sprintf("no random value for %v", value.Type()))
	}
}

// randomOf returns a random value of a domain type.
func randomOf[T any](random *rand.Rand) T {
	var value T
	fill(random, reflect.ValueOf(&value).Elem())
	return value
}

// fillMessage sets every field of message at random. Fields that hold messages are always set, but for times.
func fillMessage(random *rand.Rand, message protoreflect.Message) {
	fields := message.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		switch {
		case field.IsMap():
			for range random.IntN(4) {
				message.Mutable(field).Map().Set(protoreflect.ValueOfString(randomText(random)).MapKey(), protoreflect.ValueOfString(randomText(random)))
			}
		case field.IsList():
			for list := message.Mutable(field).List(); random.IntN(4) > 0; {
				if field.Kind() == protoreflect.MessageKind {
					fillMessage(random, list.AppendMutable().Message())
				} else {
					list.Append(protoreflect.ValueOfString(randomText(random)))
				}
			}
		case field.Message() != nil && field.Message().FullName() == "google.protobuf.Timestamp":
			if t := randomTime(random); !t.IsZero() {
				message.Set(field, protoreflect.ValueOfMessage(timestamppb.New(t).ProtoReflect()))
			}
		case field.Message() != nil:
			fillMessage(random, message.Mutable(field).Message())
		case field.Kind() == protoreflect.BoolKind:
			message.Set(field, protoreflect.ValueOfBool(random.IntN(2) == 1))
		case field.Kind() == protoreflect.Int32Kind:
			message.Set(field, protoreflect.ValueOfInt32(int32(random.Uint32())))
		default:
			message.Set(field, protoreflect.ValueOfString(randomText(random)))
		}
	}
}
