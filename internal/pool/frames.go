package pool

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/net/http2"
)

const (
	frameHeaderLen = 9

	http1Prefix = "HTTP/1."
)

// frameCursor follows the boundaries of HTTP/2 frames (RFC 9113, section 4.1) through bytes as they pass, without copying them.
type frameCursor struct {
	header  [frameHeaderLen]byte
	have    int // bytes of header
	payload int // bytes of the current frame's payload still to come
}

// skip splits data into what belongs to the payload of the current frame and what follows it.
func (f *frameCursor) skip(data []byte) (payload, rest []byte) {
	n := min(f.payload, len(data))
	f.payload -= n
	return data[:n], data[n:]
}

// begin takes the next header from data, which follows a payload, and reports whether that is complete.
func (f *frameCursor) begin(data []byte) (rest []byte, complete bool) {
	n := copy(f.header[f.have:], data)
	f.have += n
	if f.have < frameHeaderLen {
		return nil, false
	}
	f.have = 0
	f.payload = int(f.header[0])<<16 | int(f.header[1])<<8 | int(f.header[2])
	return data[n:], true
}

// between reports whether the bytes so far end with a frame.
func (f *frameCursor) between() bool { return f.payload == 0 && f.have == 0 }

func (f *frameCursor) kind() http2.FrameType { return http2.FrameType(f.header[3]) }

// frameScanner watches what is read, to see the first frame and any GOAWAY.
type frameScanner struct {
	frameCursor

	// greeting is what the first bytes are, as soon as they tell.
	greeting greeting
	// settled says that the first frame is a SETTINGS frame and has passed as a whole.
	settled bool
	// goAway says that the header of a GOAWAY frame has passed.
	goAway bool
	// explained says that the two fields of a GOAWAY frame have passed. lastStream is that of the latest; code is the first that is an error,
	// because a peer that is about to close may repeat itself without it.
	explained  bool
	lastStream uint32
	code       http2.ErrCode

	fields [goAwayFieldsLen]byte // of the GOAWAY frame that passes
	filled int                   // bytes of fields; goAwayFieldsLen when no such frame does
}

// goAwayFieldsLen is the length of the fields that each GOAWAY frame has: last stream and error code (RFC 9113, section 6.8).
const goAwayFieldsLen = 8

type greeting int

const (
	greetingNone     greeting = iota // too few bytes to tell
	greetingSettings                 // an HTTP/2 SETTINGS frame
	greetingHTTP1                    // an HTTP/1.x status line
	greetingOther                    // neither
)

func (s *frameScanner) scan(data []byte) {
	if s.settled && !s.goAway {
		data = s.pass(data)
	}
	for {
		var payload []byte
		payload, data = s.skip(data)
		if s.goAway {
			s.explain(payload)
		}
		if s.greeting == greetingSettings && s.between() {
			s.settled = true
		}
		if len(data) == 0 {
			return
		}
		var complete bool
		data, complete = s.begin(data)
		if s.greeting == greetingNone && bytes.HasPrefix(s.header[:], []byte(http1Prefix)) {
			s.greeting = greetingHTTP1
		}
		if !complete {
			return
		}
		s.filled = goAwayFieldsLen
		switch {
		case s.greeting == greetingNone && s.kind() == http2.FrameSettings:
			s.greeting = greetingSettings
		case s.greeting == greetingNone:
			s.greeting = greetingOther
		case s.greeting == greetingSettings && s.kind() == http2.FrameGoAway:
			s.goAway, s.filled = true, 0
		}
	}
}

// pass passes over the frames that are as usual, up to a header that is not: a GOAWAY's, or one that is not complete.
func (f *frameCursor) pass(data []byte) []byte {
	if f.have > 0 {
		return data
	}
	for {
		_, data = f.skip(data)
		if len(data) < frameHeaderLen || http2.FrameType(data[3]) == http2.FrameGoAway {
			return data
		}
		f.payload = int(data[0])<<16 | int(data[1])<<8 | int(data[2])
		data = data[frameHeaderLen:]
	}
}

// explain takes the fields of a GOAWAY frame from its payload.
func (s *frameScanner) explain(payload []byte) {
	if s.filled == goAwayFieldsLen {
		return
	}
	s.filled += copy(s.fields[s.filled:], payload)
	if s.filled < goAwayFieldsLen {
		return
	}
	s.explained = true
	s.lastStream = binary.BigEndian.Uint32(s.fields[:4]) &^ (1 << 31) // the first bit is reserved
	if s.code == http2.ErrCodeNo {
		s.code = http2.ErrCode(binary.BigEndian.Uint32(s.fields[4:]))
	}
}

// sendScanner watches what is written, from the connection's preface on, to know where a frame of ours may go in between.
type sendScanner struct {
	frameCursor

	// inBlock says that a field block is not complete: nothing but its CONTINUATION may follow (RFC 9113, section 4.3).
	inBlock bool
}

func newSendScanner() sendScanner {
	return sendScanner{frameCursor: frameCursor{payload: len(http2.ClientPreface)}}
}

func (s *sendScanner) scan(data []byte) {
	for {
		_, data = s.skip(data)
		if len(data) == 0 {
			return
		}
		var complete bool
		if data, complete = s.begin(data); !complete {
			return
		}
		switch flags := http2.Flags(s.header[4]); s.kind() {
		case http2.FrameHeaders:
			s.inBlock = !flags.Has(http2.FlagHeadersEndHeaders)
		case http2.FrameContinuation:
			s.inBlock = !flags.Has(http2.FlagContinuationEndHeaders)
		default:
		}
	}
}

// fits reports whether another frame may follow the bytes so far.
func (s *sendScanner) fits() bool { return s.between() && !s.inBlock }
