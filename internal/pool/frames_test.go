package pool

import (
	"bytes"
	"cmp"
	"testing"

	"golang.org/x/net/http2"
)

// scanned is what a scanner tells.
type scanned struct {
	greeting        greeting
	settled, goAway bool
	away            explanation
}

// explanation is what a GOAWAY frame says.
type explanation struct {
	given      bool
	lastStream uint32
	code       http2.ErrCode
}

func (s *frameScanner) told() scanned {
	return scanned{s.greeting, s.settled, s.goAway, explanation{s.explained, s.lastStream, s.code}}
}

// frames returns what write writes.
func frames(tb testing.TB, write func(*http2.Framer) error) []byte {
	tb.Helper()
	var buffer bytes.Buffer
	if err := write(http2.NewFramer(&buffer, nil)); err != nil {
		tb.Fatal(err)
	}
	return buffer.Bytes()
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

type frameRow struct {
	name string
	data []byte
	want scanned
}

func frameRows(tb testing.TB) []frameRow {
	tb.Helper()
	empty := frames(tb, func(f *http2.Framer) error { return f.WriteSettings() })
	full := frames(tb, func(f *http2.Framer) error {
		return f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1}, http2.Setting{ID: http2.SettingEnablePush, Val: 0})
	})
	ping := frames(tb, func(f *http2.Framer) error { return f.WritePing(false, [8]byte{7, 7, 7, 7, 7, 7, 7, 7}) })
	away := frames(tb, func(f *http2.Framer) error { return f.WriteGoAway(1, http2.ErrCodeNo, []byte("goodbye")) })
	calm := frames(tb, func(f *http2.Framer) error {
		return f.WriteGoAway(1<<31-1, http2.ErrCodeEnhanceYourCalm, []byte("too_many_pings"))
	})
	said := func(lastStream uint32, code http2.ErrCode) explanation { return explanation{true, lastStream, code} }
	none := explanation{}
	// A payload that looks like a GOAWAY frame, and is none.
	disguised := frames(tb, func(f *http2.Framer) error { return f.WriteData(1, false, join(away, away, away)) })
	return []frameRow{
		{"nothing", nil, scanned{}},
		{"a part of a header", empty[:8], scanned{}},
		{"empty settings", empty, scanned{greetingSettings, true, false, none}},
		{"settings but for a byte", full[:len(full)-1], scanned{greetingSettings, false, false, none}},
		{"settings", full, scanned{greetingSettings, true, false, none}},
		{"settings, ping, data", join(full, ping, disguised), scanned{greetingSettings, true, false, none}},
		{"settings, ping, going away", join(full, ping, away), scanned{greetingSettings, true, true, said(1, http2.ErrCodeNo)}},
		{"the header of going away", join(full, away[:9]), scanned{greetingSettings, true, true, none}},
		{"going away but for a byte", join(full, away[:16]), scanned{greetingSettings, true, true, none}},
		{"going away but for its words", join(full, away[:17]), scanned{greetingSettings, true, true, said(1, http2.ErrCodeNo)}},
		{"the reserved bit", join(full, calm[:9], []byte{0xff}, calm[10:]), scanned{greetingSettings, true, true, said(1<<31-1, http2.ErrCodeEnhanceYourCalm)}},
		{"going away twice", join(full, calm, ping, disguised, away), scanned{greetingSettings, true, true, said(1, http2.ErrCodeEnhanceYourCalm)}},
		{"going away, worse", join(full, away, calm), scanned{greetingSettings, true, true, said(1<<31-1, http2.ErrCodeEnhanceYourCalm)}},
		{
			"going away, too short", join(full, []byte{0, 0, 4, 7, 0, 0, 0, 0, 0, 0, 0, 0, 9}, disguised, ping), scanned{greetingSettings, true, true, none},
		},
		{"less than that", join(full, away[:8]), scanned{greetingSettings, true, false, none}},
		{"ping first", join(ping, full), scanned{greetingOther, false, false, none}},
		{"going away first", join(away, away), scanned{greetingOther, false, false, none}},
		{"HTTP/1.1", []byte("HTTP/1.1 404 Not Found\r\n\r\n"), scanned{greetingHTTP1, false, false, none}},
		{"HTTP/1.", []byte("HTTP/1."), scanned{greetingHTTP1, false, false, none}},
		{"HTTP/1", []byte("HTTP/1"), scanned{}},
		{"HTTP/2 as text", []byte("HTTP/2.0 200 OK\r\n"), scanned{greetingOther, false, false, none}},
	}
}

// TestFrameScanner reads each row at once, byte by byte, and in every two parts.
func TestFrameScanner(t *testing.T) {
	t.Parallel()
	for _, row := range frameRows(t) {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			for cut := range len(row.data) + 1 {
				var s frameScanner
				s.scan(row.data[:cut])
				s.scan(row.data[cut:])
				if got := s.told(); got != row.want {
					t.Errorf("cut at %d: got %+v, want %+v", cut, got, row.want)
				}
			}
			var s frameScanner
			for at := range row.data {
				s.scan(row.data[at : at+1])
			}
			if got := s.told(); got != row.want {
				t.Errorf("byte by byte: got %+v, want %+v", got, row.want)
			}
		})
	}
}

// FuzzFrameScanner: any bytes, in any parts, tell the same as at once, and the same as net/http's framer would see.
func FuzzFrameScanner(f *testing.F) {
	for _, row := range frameRows(f) {
		f.Add(row.data, uint8(1))
		f.Add(row.data, uint8(7))
	}
	f.Fuzz(func(t *testing.T, data []byte, part uint8) {
		var whole, parts frameScanner
		whole.scan(data)
		for rest := data; len(rest) > 0; {
			n := min(int(part)%32+1, len(rest))
			parts.scan(rest[:n])
			rest = rest[n:]
		}
		clear(whole.header[whole.have:]) // what is left there of a header before means nothing
		clear(parts.header[parts.have:])
		if whole != parts {
			t.Errorf("%x: at once %+v, in parts of %d %+v", data, whole, int(part)%32+1, parts)
		}
		if framer := framed(data); framer != (scanned{}) && framer != whole.told() {
			t.Errorf("%x: got %+v, the framer sees %+v", data, whole.told(), framer)
		}
	})
}

// framed tells the same by means of a framer, as far as that can read: nothing unless data are SETTINGS and then complete, valid frames.
func framed(data []byte) scanned {
	reader := bytes.NewReader(data)
	framer := http2.NewFramer(nil, reader)
	var told scanned
	for reader.Len() > 0 {
		frame, err := framer.ReadFrame()
		if err != nil {
			return scanned{}
		}
		switch kind := frame.Header().Type; {
		case told.greeting == greetingNone && kind != http2.FrameSettings:
			return scanned{}
		case kind == http2.FrameGoAway:
			away, ok := frame.(*http2.GoAwayFrame)
			if !ok {
				return scanned{}
			}
			told.goAway = true
			told.away = explanation{true, away.LastStreamID, cmp.Or(told.away.code, away.ErrCode)}
		}
		told.greeting, told.settled = greetingSettings, true
	}
	return told
}
