package pool

import "bytes"

// frameScanner follows the boundaries of HTTP/2 frames (RFC 9113, section 4.1) through the bytes as they are read, without copying
// them, to see the first frame and any GOAWAY.
type frameScanner struct {
	header  [frameHeaderLen]byte
	have    int // bytes of header
	payload int // bytes of the current frame's payload still to come

	// greeting is what the first bytes are, as soon as they tell.
	greeting greeting
	// settled says that the first frame is a SETTINGS frame and has passed as a whole.
	settled bool
	// goAway says that the header of a GOAWAY frame has passed.
	goAway bool
}

type greeting int

const (
	greetingNone     greeting = iota // too few bytes to tell
	greetingSettings                 // an HTTP/2 SETTINGS frame
	greetingHTTP1                    // an HTTP/1.x status line
	greetingOther                    // neither
)

const (
	frameHeaderLen = 9
	frameSettings  = 0x4
	frameGoAway    = 0x7

	http1Prefix = "HTTP/1."
)

func (s *frameScanner) scan(data []byte) {
	for {
		skip := min(s.payload, len(data))
		s.payload -= skip
		data = data[skip:]
		if s.payload == 0 && s.have == 0 && s.greeting == greetingSettings {
			s.settled = true
		}
		if len(data) == 0 {
			return
		}
		n := copy(s.header[s.have:], data)
		s.have += n
		data = data[n:]
		if s.greeting == greetingNone && bytes.HasPrefix(s.header[:s.have], []byte(http1Prefix)) {
			s.greeting = greetingHTTP1
		}
		if s.have < frameHeaderLen {
			return
		}
		s.have = 0
		s.payload = int(s.header[0])<<16 | int(s.header[1])<<8 | int(s.header[2])
		switch kind := s.header[3]; {
		case s.greeting == greetingNone && kind == frameSettings:
			s.greeting = greetingSettings
		case s.greeting == greetingNone:
			s.greeting = greetingOther
		case s.greeting == greetingSettings && kind == frameGoAway:
			s.goAway = true
		}
	}
}
