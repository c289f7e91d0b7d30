package jsoncodec

import (
	"bytes"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// syntaxError says where the input does not fit and what would: never what was there, for it may be a secret.
type syntaxError struct {
	offset int
	field  string // the path to it, empty at the top
	levels int    // how many names the path has
	want   string
}

// Error is the text without the line and column, which need the input.
func (e *syntaxError) Error() string {
	if e.field == "" {
		return e.want
	}
	return "field " + e.field + ": " + e.want
}

// at is the error in the words for people, given the whole input.
func (e *syntaxError) at(text []byte) error {
	before := text[:min(e.offset, len(text))]
	line := bytes.Count(before, []byte{'\n'}) + 1
	column := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
	return fmt.Errorf("(line %d:%d): %w", line, column, e)
}

// maxLevels bounds the path to a field in an error's text, which can be nested thousands of times.
const maxLevels = 8

// within adds the name of the field that the failure is in.
func (e *syntaxError) within(name string) *syntaxError {
	e.levels++
	switch {
	case e.levels == 1:
		e.field = name
	case e.levels <= maxLevels:
		e.field = name + "." + e.field
	case e.levels == maxLevels+1:
		e.field = "…" + e.field
	}
	return e
}

// scanner reads JSON text, strictly by RFC 8259.
type scanner struct {
	text    []byte
	at      int
	scratch []byte // for strings with escapes
}

func (s *scanner) fail(want string) *syntaxError { return &syntaxError{offset: s.at, want: want} }

// next skips white space and returns the byte behind it, 0 at the end.
func (s *scanner) next() byte {
	for s.at < len(s.text) {
		switch c := s.text[s.at]; c {
		case ' ', '\n', '\r', '\t':
			s.at++
		default:
			return c
		}
	}
	return 0
}

// take consumes a byte that next has to return.
func (s *scanner) take(c byte, want string) *syntaxError {
	if s.next() != c {
		return s.fail(want)
	}
	s.at++
	return nil
}

// more is called in a list or an object, after its opening bracket or a value. It consumes the comma before a further value, or the
// closing bracket, and reports which.
func (s *scanner) more(closing byte, first bool) (bool, *syntaxError) {
	switch c := s.next(); {
	case c == closing:
		s.at++
		return false, nil
	case first:
		return true, nil
	case c == ',':
		s.at++
		if s.next() == closing {
			return false, s.fail("want a value after the comma")
		}
		return true, nil
	default:
		return false, s.fail(fmt.Sprintf("want a comma or %q", closing))
	}
}

// word consumes a literal that is there, and reports whether it was.
func (s *scanner) word(literal string) bool {
	if end := s.at + len(literal); end <= len(s.text) && string(s.text[s.at:end]) == literal &&
		(end == len(s.text) || isDelimiter(s.text[end])) {
		s.at = end
		return true
	}
	return false
}

// isDelimiter reports whether a literal or a number may end before c.
func isDelimiter(c byte) bool {
	switch c {
	case ' ', '\n', '\r', '\t', ',', ']', '}', ':':
		return true
	default:
		return false
	}
}

// isNull consumes a null, and reports whether there was one.
func (s *scanner) isNull() bool { return s.next() == 'n' && s.word("null") }

// number consumes a number and returns it.
func (s *scanner) number() ([]byte, bool) {
	start := s.at
	i, ok := numberEnd(s.text, start)
	if !ok || i < len(s.text) && !isDelimiter(s.text[i]) {
		return nil, false
	}
	s.at = i
	return s.text[start:i], true
}

// numberEnd returns where the number that begins at i ends.
func numberEnd(text []byte, i int) (int, bool) {
	digits := func() bool {
		start := i
		for i < len(text) && '0' <= text[i] && text[i] <= '9' {
			i++
		}
		return i > start
	}
	if i < len(text) && text[i] == '-' {
		i++
	}
	if i < len(text) && text[i] == '0' {
		i++
	} else if !digits() {
		return i, false
	}
	if i < len(text) && text[i] == '.' {
		i++
		if !digits() {
			return i, false
		}
	}
	if i < len(text) && (text[i] == 'e' || text[i] == 'E') {
		i++
		if i < len(text) && (text[i] == '+' || text[i] == '-') {
			i++
		}
		if !digits() {
			return i, false
		}
	}
	return i, true
}

// str consumes a string and returns what it says, which is valid until the next call.
func (s *scanner) str() ([]byte, *syntaxError) {
	if s.next() != '"' {
		return nil, s.fail("want a string")
	}
	start := s.at + 1
	ascii := true
	for i := start; i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c == '"':
			content := s.text[start:i]
			if !ascii && !utf8.Valid(content) {
				return nil, s.fail("want UTF-8 in the string")
			}
			s.at = i + 1
			return content, nil
		case c == '\\':
			return s.escaped(start, i)
		case c < ' ':
			return nil, s.fail("want control characters in the string escaped")
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return nil, s.fail("want the string to end")
}

// escaped consumes a string that begins at start and has its first escape at i.
func (s *scanner) escaped(start, i int) ([]byte, *syntaxError) {
	out := s.scratch[:0]
	out = append(out, s.text[start:i]...)
	for i < len(s.text) {
		c := s.text[i]
		switch {
		case c == '"':
			if !utf8.Valid(s.text[start:i]) {
				return nil, s.fail("want UTF-8 in the string")
			}
			s.at, s.scratch = i+1, out
			return out, nil
		case c < ' ':
			return nil, s.fail("want control characters in the string escaped")
		case c != '\\':
			out = append(out, c)
			i++
			continue
		}
		r, n := unescape(s.text[i:])
		if n == 0 {
			return nil, s.fail("want JSON's escapes in the string")
		}
		out = utf8.AppendRune(out, r)
		i += n
	}
	return nil, s.fail("want the string to end")
}

// unescape returns the character that text, which begins with a backslash, stands for, and how many bytes it takes; 0 for none.
func unescape(text []byte) (rune, int) {
	if len(text) < 2 {
		return 0, 0
	}
	switch c := text[1]; c {
	case '"', '\\', '/':
		return rune(c), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	}
	first, ok := codeUnit(text)
	if !ok || !utf16.IsSurrogate(first) {
		if !ok {
			return 0, 0
		}
		return first, 6
	}
	second, ok := codeUnit(text[6:])
	if r := utf16.DecodeRune(first, second); ok && r != utf8.RuneError {
		return r, 12
	}
	return 0, 0
}

// codeUnit reads the \uXXXX that text begins with.
func codeUnit(text []byte) (rune, bool) {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	var unit rune
	for _, c := range text[2:6] {
		switch {
		case '0' <= c && c <= '9':
			unit = unit<<4 | rune(c-'0')
		case 'a' <= c && c <= 'f':
			unit = unit<<4 | rune(c-'a'+10)
		case 'A' <= c && c <= 'F':
			unit = unit<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return unit, true
}

// skip consumes any value. It may be nested up to depth.
func (s *scanner) skip(depth int) *syntaxError {
	if depth <= 0 {
		return s.fail(tooDeep)
	}
	switch c := s.next(); c {
	case '"':
		_, err := s.str()
		return err
	case '{', '[':
		s.at++
		closing := byte('}')
		if c == '[' {
			closing = ']'
		}
		for first := true; ; first = false {
			more, err := s.more(closing, first)
			if err != nil || !more {
				return err
			}
			if c == '{' {
				if _, err := s.str(); err != nil {
					return err
				}
				if err := s.take(':', `want ":" after the name`); err != nil {
					return err
				}
			}
			if err := s.skip(depth - 1); err != nil {
				return err
			}
		}
	default:
		if s.word("null") || s.word("true") || s.word("false") {
			return nil
		}
		if _, ok := s.number(); ok {
			return nil
		}
		return s.fail("want a value")
	}
}

const tooDeep = "want less nesting"
