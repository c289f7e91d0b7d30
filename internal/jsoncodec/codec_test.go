package jsoncodec_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/internal/jsoncodec"
	"github.com/0x1d/goplt/internal/jsoncodec/internal/everything"
)

// inputs are what tells parsers of JSON apart, for everything.Everything.
var inputs = []string{
	`{}`, ` { } `, "\t\r\n{}\n", ``, ` `, `null`, `[]`, `{`, `}`, `{}{}`, `{} x`, `{},`, "{}\x00", "\ufeff{}", `{,}`, `{"aBool":true,}`,
	`{"aBool":true "aString":""}`, `{"aBool" true}`, `{"aBool":}`, `{"aBool":true`, `{aBool:true}`, `{'aBool':true}`, `{"aBool":tru}`,
	`{"aBool":truex}`, `{"aBool":"true"}`, `{"aBool":1}`, `{"aBool":null}`, `{"aBool":nul}`, `{"a_bool":true}`, `{"aBool":true,"a_bool":true}`,
	`{"aBool":null,"aBool":true}`, `{"ABOOL":true}`, `{"a\u0042ool":true}`,
	`{"anInt32":1}`, `{"anInt32":-1}`, `{"anInt32":"1"}`, `{"anInt32":1.0}`, `{"anInt32":1e2}`, `{"anInt32":1.5}`, `{"anInt32":"1e2"}`,
	`{"anInt32":1e}`, `{"anInt32":1e+}`, `{"anInt32":1.}`, `{"anInt32":.5}`, `{"anInt32":+1}`, `{"anInt32":01}`, `{"anInt32":-0}`,
	`{"anInt32":" 1"}`, `{"anInt32":"1 "}`, `{"anInt32":""}`, `{"anInt32":2147483648}`, `{"anInt32":-2147483649}`, `{"anInt32":true}`,
	`{"anInt64":9223372036854775807}`, `{"anInt64":9223372036854775808}`, `{"anInt64":"-9223372036854775808"}`, `{"anInt64":1e18}`,
	`{"anInt64":100e-2}`, `{"anInt64":1e999999999}`, `{"aUint32":4294967296}`, `{"aUint64":18446744073709551615}`, `{"aUint64":-1}`,
	`{"aSint32":-2147483648}`, `{"aFixed32":"12"}`, `{"anSfixed64":"-12"}`, `{"aUint64":-0}`, `{"anInt32":"\u0031"}`, `{"anInt32":"0x1"}`,
	`{"aFloat":1e38}`, `{"aFloat":1e39}`, `{"aFloat":-1e39}`, `{"aFloat":1e-60}`, `{"aDouble":"NaN"}`, `{"aDouble":NaN}`, `{"aDouble":"nan"}`,
	`{"aDouble":"-Infinity"}`, `{"aDouble":"Inf"}`, `{"aDouble":"1.5"}`, `{"aDouble":"1_5"}`, `{"aDouble":"0x1p4"}`, `{"aDouble":1e400}`,
	`{"aDouble":1.7976931348623157e308}`, `{"aDouble":-0}`, `{"aDouble":1E+2}`, `{"aDouble":"+1"}`, `{"aDouble":"1 "}`,
	`{"aString":"\u00e9\ud83d\ude00\n\/"}`, `{"aString":"\ud83d"}`, `{"aString":"\ud83dx"}`, `{"aString":"\ude00\ud83d"}`, `{"aString":"\u12"}`,
	`{"aString":"\x"}`, "{\"aString\":\"\n\"}", "{\"aString\":\"\xff\"}", "{\"aString\":\"\\n\xff\"}", "{\"aString\":\"\xed\xa0\x80\"}",
	`{"aString":"`, `{"aString":"\`, `{"aString":1}`, `{"aString":null}`, `{"aString":["a"]}`, "{\"aString\":\"\x7f\ufffd\"}",
	`{"someBytes":"AQ=="}`, `{"someBytes":"AQ"}`, `{"someBytes":"AQ="}`, `{"someBytes":"-_8"}`, `{"someBytes":"+/8="}`, `{"someBytes":"-/8="}`,
	`{"someBytes":"AQ\n=="}`, `{"someBytes":"A"}`, `{"someBytes":"!"}`, `{"someBytes":""}`, `{"someBytes":[1]}`,
	`{"aColor":"COLOR_RED"}`, `{"aColor":"COLOR_AZURE"}`, `{"aColor":"COLOR_MAUVE"}`, `{"aColor":1}`, `{"aColor":-7}`, `{"aColor":99}`,
	`{"aColor":"1"}`, `{"aColor":1.0}`, `{"aColor":1.5}`, `{"aColor":2147483648}`, `{"aColor":true}`, `{"aColor":null}`,
	`{"aTime":"2006-01-02T15:04:05Z"}`, `{"aTime":"2006-01-02T15:04:05.123456789+01:00"}`, `{"aTime":"2006-01-02T15:04:05.1234567890Z"}`,
	`{"aTime":"0001-01-01T00:00:00Z"}`, `{"aTime":"0000-12-31T23:59:59Z"}`, `{"aTime":"9999-12-31T23:59:59.999999999Z"}`,
	`{"aTime":"9999-12-31T23:59:59-01:00"}`, `{"aTime":"2006-01-02T15:04:05,5Z"}`, `{"aTime":"2006-1-2T15:04:05Z"}`, `{"aTime":""}`,
	`{"aTime":"2006-01-02t15:04:05z"}`, `{"aTime":1136214245}`, `{"aTime":{"seconds":1}}`, `{"aTime":null}`, `{"aTime":"1970-01-01T00:00:00Z"}`,
	`{"nested":{}}`, `{"nested":null}`, `{"nested":[]}`, `{"nested":"x"}`, `{"nested":{"nested":{"aBool":true}}}`, `{"nested":{"nested":{]}}`,
	`{"bools":[]}`, `{"bools":[true,false]}`, `{"bools":[true,]}`, `{"bools":[,true]}`, `{"bools":[null]}`, `{"bools":null}`, `{"bools":true}`,
	`{"bools":[true false]}`, `{"bools":[true}`, `{"colors":["COLOR_MAUVE",1,"COLOR_RED"]}`, `{"colors":["COLOR_MAUVE"]}`,
	`{"strings":["a","b"]}`, `{"strings":[""]}`, `{"children":[{},{"aBool":true}]}`, `{"children":[null]}`, `{"children":{}}`, `{"times":[null]}`,
	`{"stringsByString":{"a":"b","c":"d"}}`, `{"stringsByString":{"a":"b","a":"c"}}`, `{"stringsByString":{"":""}}`,
	`{"stringsByString":{"a":null}}`, `{"stringsByString":{"a":"b",}}`, `{"stringsByString":{"\u0061":"b","a":"c"}}`, `{"stringsByString":[]}`,
	`{"boolsByInt32":{"1":true,"-1":false}}`, `{"boolsByInt32":{"+1":true,"1":true}}`, `{"boolsByInt32":{"01":true}}`,
	`{"boolsByInt32":{"1.0":true}}`, `{"boolsByInt32":{"1_0":true}}`, `{"boolsByInt32":{" 1":true}}`, `{"boolsByInt32":{"2147483648":true}}`,
	`{"boolsByInt32":{"":true}}`, `{"colorsByBool":{"true":1,"false":"COLOR_RED"}}`, `{"colorsByBool":{"TRUE":1}}`,
	`{"colorsByBool":{"true":"COLOR_MAUVE","true":1}}`, `{"childrenBySint64":{"-1":{"aBool":true}}}`, `{"childrenBySint64":{"1":null}}`,
	`{"timesByFixed32":{"1":"2006-01-02T15:04:05Z"}}`, `{"timesByFixed32":{"-1":"2006-01-02T15:04:05Z"}}`,
	`{"chosenString":"a"}`, `{"chosenString":"a","chosenUint64":1}`, `{"chosenString":null,"chosenUint64":1}`, `{"chosenString":""}`,
	`{"chosenMessage":{},"chosenMessage":{}}`, `{"otherColor":"COLOR_MAUVE","otherBool":true}`, `{"otherColor":0,"chosenUint64":0}`,
	`{"maybeBool":false,"maybeInt64":0,"maybeDouble":0,"maybeString":"","maybeBytes":"","maybeColor":0}`, `{"maybeColor":"COLOR_MAUVE"}`,
	`{"@odd \"name\"":"x"}`, `{"renamed":"x"}`, `{"@odd \"name\"":"x","renamed":"y"}`, `{"beyondDense":-1,"beyond_dense":1}`,
	`{"unknown":1}`, `{"unknown":[{"a":[1e5,-0.5,"\u0000",null,true,false]},{}]}`, `{"unknown":[1,]}`, `{"unknown":{"a"}}`, `{"unknown":1,"unknown":2}`,
	`{"unknown":nulll}`, `{"unknown":1e}`, `{"unknown":01}`, `{"unknown":"\q"}`, `{"":1}`, `{"[goplt.extension]":1}`, `{"[]":1}`, `{"[x":1}`,
	`{"[goplt.extension]":}`, `{"@type":"x"}`, strings.Repeat(`{"nested":`, 300) + `{}` + strings.Repeat(`}`, 300),
	strings.Repeat(`{"nested":`, 9999) + `{}` + strings.Repeat(`}`, 9999), strings.Repeat(`{"nested":`, 10000) + `{}` + strings.Repeat(`}`, 10000),
	`{"unknown":` + strings.Repeat(`[`, 9998) + strings.Repeat(`]`, 9998) + `}`, strings.Repeat(`{"nested":`, 1<<20),
	`{"unknown":` + strings.Repeat(`[`, 1<<20),
	`{"nested":{"aString":"` + strings.Repeat("x", 200) + `","nested":{"aString":"` + strings.Repeat("y", 20000) + `"}}}`,
}

func TestDecodesAsProtojsonDoes(t *testing.T) {
	codec := jsoncodec.New()
	for _, input := range inputs {
		t.Run(input[:min(len(input), 60)], func(t *testing.T) {
			if input == "" {
				err := decode(t, codec, nil, new(everything.Everything))
				if want := "zero-length payload is not a valid JSON object"; err == nil || err.Error() != want {
					t.Fatalf("got error %v, want %q, as connectproto says", err, want)
				}
				return
			}
			compareDecoding(t, codec, []byte(input), new(everything.Everything))
			compareDecoding(t, codec, []byte(input), new(everything.Referred))
		})
	}
}

func TestEncodesAsProtojsonDoes(t *testing.T) {
	codec := jsoncodec.New()
	structure, err := structpb.NewStruct(map[string]any{"a": []any{1.0, nil, true}})
	if err != nil {
		t.Fatal(err)
	}
	unknown := new(everything.Everything)
	// A number that is not in the schema, one with another wire type than the schema's, and one that is.
	if err := proto.Unmarshal([]byte{0xf8, 0x06, 5, 0x0a, 1, 'x', 0x10, 7}, unknown); err != nil {
		t.Fatal(err)
	}
	for name, message := range map[string]proto.Message{
		"empty":                 new(everything.Everything),
		"nil":                   (*everything.Everything)(nil),
		"nil within":            &everything.Everything{Children: []*everything.Everything{nil, {}}},
		"unknown fields":        unknown,
		"empty oneof":           &everything.Everything{Choice: &everything.Everything_ChosenString{}},
		"nil message in oneof":  &everything.Everything{Choice: &everything.Everything_ChosenMessage{}},
		"not UTF-8":             &everything.Everything{Strings: []string{"a", "\xff"}},
		"not UTF-8 in map key":  &everything.Everything{StringsByString: map[string]string{"\xff": ""}},
		"time too early":        &everything.Everything{ATime: &timestamppb.Timestamp{Seconds: -62135596801}},
		"time too late":         &everything.Everything{ATime: &timestamppb.Timestamp{Seconds: 253402300800}},
		"time with many nanos":  &everything.Everything{ATime: &timestamppb.Timestamp{Nanos: 1e9}},
		"time with minus nanos": &everything.Everything{ATime: &timestamppb.Timestamp{Nanos: -1}},
		"time alone":            &timestamppb.Timestamp{Seconds: 5, Nanos: 5e8},
		"well-known types":      &everything.Referred{Duration: durationpb.New(5e8), AnyJson: structure},
		"well-known alone":      structure,
		"made at run time":      dynamicpb.NewMessage(new(everything.Everything).ProtoReflect().Descriptor()),
	} {
		t.Run(name, func(t *testing.T) {
			compareEncoding(t, codec, message)
		})
	}
}

func TestWhatIsNoMessage(t *testing.T) {
	codec := jsoncodec.New()
	want := "string is not a protobuf message"
	if err := codec.MarshalWrite(t.Context(), new(bytes.Buffer), "x"); err == nil || err.Error() != want {
		t.Errorf("MarshalWrite: got error %v, want %q", err, want)
	}
	if err := codec.UnmarshalRead(t.Context(), new(bytes.Buffer), "x"); err == nil || err.Error() != want {
		t.Errorf("UnmarshalRead: got error %v, want %q", err, want)
	}
}

// An error must help whoever wrote the request, and must not repeat what it says: the answer to a wrong password is logged on its way.
func TestErrorsSayWhereAndNeverWhat(t *testing.T) {
	codec := jsoncodec.New()
	for name, test := range map[string]struct {
		input   string
		message proto.Message
		want    string
	}{
		"wrong type": {
			"{\n  \"password\": 12345}", new(authv1.LoginRequest), `(line 2:15): field password: want a string`,
		},
		"wrong type within": {
			`{"nested":{"children":[{"secret":["12345"]}]}}`, new(everything.Everything), `(line 1:34): field nested.children.secret: want a string`,
		},
		"wrong type without table": {
			`{"secret":12345}`, new(everything.Referred), `(line 1:11): not the JSON of goplt.test.everything.Referred`,
		},
		"not UTF-8": {
			"{\"email\":\"é\",\"password\":\"12345\xff\"}", new(authv1.LoginRequest), `(line 1:25): field password: want UTF-8 in the string`,
		},
		"unfinished": {
			`{"password":"12345`, new(authv1.LoginRequest), `(line 1:13): field password: want the string to end`,
		},
		"unquoted": {
			`{"password":12345abc}`, new(authv1.LoginRequest), `(line 1:13): field password: want a string`,
		},
		"twice": {
			`{"password":"12345","password":"12345"}`, new(authv1.LoginRequest), `(line 1:21): field password: want the field only once`,
		},
		"very deep": {
			strings.Repeat(`{"nested":`, 500) + `12345` + strings.Repeat(`}`, 500), new(everything.Everything),
			`(line 1:5001): field …` + strings.Repeat("nested.", 7) + `nested: want an object`,
		},
		"bad number": {
			`{"anInt32":"12345678901"}`, new(everything.Everything), `(line 1:12): field anInt32: want a number of the type int32`,
		},
		"bad base64": {
			`{"someBytes":"12345"}`, new(everything.Everything), `(line 1:14): field someBytes: want base64`,
		},
		"bad time": {
			`{"aTime":"12345"}`, new(everything.Everything),
			`(line 1:10): field aTime: want a time such as 2006-01-02T15:04:05Z, of the years 1 to 9999, to the nanosecond`,
		},
		"bad map key": {
			`{"boolsByInt32":{"12345x":true}}`, new(everything.Everything), `(line 1:18): field boolsByInt32: want a key of the type int32`,
		},
		"second of a oneof": {
			`{"chosenString":"12345","chosenUint64":"1"}`, new(everything.Everything),
			`(line 1:25): field chosenUint64: want only one field of its oneof`,
		},
		"trailing": {
			`{"password":"12345"} 12345`, new(authv1.LoginRequest), `(line 1:22): want nothing after the message`,
		},
		"no comma": {
			`{"password":"12345" 12345`, new(authv1.LoginRequest), `(line 1:21): want a comma or '}'`,
		},
		"no object": {
			`"12345"`, new(authv1.LoginRequest), `(line 1:1): want an object`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := decode(t, codec, []byte(test.input), test.message)
			if err == nil || err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
			if !proto.Equal(test.message, test.message.ProtoReflect().New().Interface()) {
				t.Errorf("the message is half filled: %v", test.message)
			}
		})
	}
}

func TestReplacesWhatIsInTheMessage(t *testing.T) {
	message := &authv1.LoginRequest{Email: "old", Password: "old"}
	if err := decode(t, jsoncodec.New(), []byte(`{"email":"new"}`), message); err != nil {
		t.Fatal(err)
	}
	if want := (&authv1.LoginRequest{Email: "new"}); !proto.Equal(message, want) {
		t.Errorf("got %v, want %v", message, want)
	}
}

// A value deep within must not be copied once for each level around it.
func TestDeepNestingCostsNoMoreThanItsLength(t *testing.T) {
	const depth, length = 9_000, 3 << 20
	text := strings.Repeat(`{"nested":`, depth) + `{"aString":"` + strings.Repeat("x", length) + `"}` + strings.Repeat(`}`, depth)
	message := new(everything.Everything)
	began := time.Now()
	if err := decode(t, jsoncodec.New(), []byte(text), message); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 2*time.Second { // some 20 ms, and with the copies more than 5 s
		t.Errorf("took %v", took)
	}
	inner := message
	for inner.GetNested() != nil {
		inner = inner.GetNested()
	}
	if got := len(inner.GetAString()); got != length {
		t.Errorf("the string has a length of %d, want %d", got, length)
	}
}

func FuzzDecodesAsProtojsonDoes(f *testing.F) {
	for _, input := range inputs {
		if len(input) < 1<<10 {
			f.Add([]byte(input))
		}
	}
	codec := jsoncodec.New()
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) == 0 {
			return
		}
		compareDecoding(t, codec, text, new(everything.Everything))
	})
}

func FuzzEncodesAsProtojsonDoes(f *testing.F) {
	codec := jsoncodec.New()
	for _, input := range inputs {
		message := new(everything.Everything)
		if len(input) > 1<<10 || input == "" || decode(f, codec, []byte(input), message) != nil {
			continue
		}
		wire, err := proto.Marshal(message)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		message := new(everything.Everything)
		if proto.Unmarshal(wire, message) != nil {
			return
		}
		compareEncoding(t, codec, message)
	})
}

// claims is what a call of ValidateToken brings.
func claims() *authv1.ValidateTokenResponse {
	return &authv1.ValidateTokenResponse{Claims: &authv1.TokenClaims{
		UserId: "4d0f5a2e-6c1b-4b9b-8f0e-0f6b1c2d3e4f", Email: "ada@example.com", Roles: []string{"admin", "auditor", "user"},
		TokenId: "7b1c2d3e-4f50-4a6b-9c8d-0e1f2a3b4c5d", IssuedAt: &timestamppb.Timestamp{Seconds: 1767225600},
		ExpiresAt: &timestamppb.Timestamp{Seconds: 1767229200},
	}}
}

func BenchmarkCodec(b *testing.B) {
	for _, codec := range []struct {
		connect.Codec

		name string
	}{{jsoncodec.New(), "ours"}, {connectproto.NewJSONCodec(), "protojson"}} {
		message := claims()
		var encoded bytes.Buffer
		b.Run("encode/"+codec.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				encoded.Reset()
				if err := codec.MarshalWrite(b.Context(), &encoded, message); err != nil {
					b.Fatal(err)
				}
			}
		})
		text := encoded.Bytes()
		b.Run("decode/"+codec.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := codec.UnmarshalRead(b.Context(), bytes.NewBuffer(text), message); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
