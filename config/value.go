package config

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// plainInteger is a decimal integer without the forms in which YAML and Go read different numbers, such as 010.
var plainInteger = regexp.MustCompile(`^-?(0|[1-9]\d*)$`)

// parse reads the value of a leaf that is not a list from its text. A text that does not fit gives a message that says why, and begins with shown,
// the text in the form in which users may see it.
func parse(typ reflect.Type, text, shown string) (value any, problem string) {
	misfit := func() (any, string) { return nil, shown + " is not " + want(typ) }
	switch {
	case typ == reflect.TypeFor[time.Duration]():
		duration, err := time.ParseDuration(text)
		switch {
		case err == nil:
			return duration, ""
		case isNumber(text):
			return nil, fmt.Sprintf("%s has no unit; want %s", shown, want(typ))
		}
		return misfit()
	case typ.Kind() == reflect.Bool:
		if text != "true" && text != "false" {
			return misfit()
		}
		return text == "true", ""
	case typ.Kind() == reflect.Int, typ.Kind() == reflect.Uint:
		if !plainInteger.MatchString(text) || typ.Kind() == reflect.Uint && text[0] == '-' {
			return misfit()
		}
		return parseInteger(typ, text, shown)
	case typ.Kind() == reflect.Float64:
		number, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsInf(number, 0) || math.IsNaN(number) {
			return misfit()
		}
		return number, ""
	default:
		return text, ""
	}
}

func parseInteger(typ reflect.Type, text, shown string) (value any, problem string) {
	var err error
	if typ.Kind() == reflect.Uint {
		var number uint64
		number, err = strconv.ParseUint(text, 10, typ.Bits())
		value = uint(number)
	} else {
		value, err = strconv.Atoi(text)
	}
	if errors.Is(err, strconv.ErrRange) {
		return nil, fmt.Sprintf("%s is beyond the numbers of %d bits", shown, typ.Bits())
	}
	return value, ""
}

func isNumber(text string) bool {
	_, err := strconv.ParseFloat(text, 64)
	return err == nil
}

// parseList reads the value of a list from the environment: entries between commas, without the spaces around them; none if text is empty.
func parseList(text string) []string {
	if strings.TrimSpace(text) == "" {
		return []string{}
	}
	entries := strings.Split(text, ",")
	for i, entry := range entries {
		entries[i] = strings.TrimSpace(entry)
	}
	return entries
}

// redacted stands in for the values of secrets.
const redacted = "[redacted]"

// show writes a text from outside for a message: quoted if it is text, clipped if it is long, and not at all if it is a secret.
func show(path, text string) string {
	if secret(path) {
		return redacted
	}
	return quote(text)
}

func quote(text string) string { return strconv.Quote(clip(text, maxShown)) }

// quoteKey writes a path from outside for a message.
func quoteKey(path string) string { return strconv.Quote(clip(display(path), maxKeyShown)) }

// escape writes the name of a variable from outside for a message, without quotes.
func escape(name string) string { return strings.Trim(strconv.Quote(clip(name, maxKeyShown)), `"`) }

// Bounds in bytes on what is shown of a text from outside, and of the key or variable that it stands for, which may hold the full name of a method.
const (
	maxShown    = 80
	maxKeyShown = 160
)

func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// durationText writes a duration as people do: 2m instead of 2m0s.
func durationText(duration time.Duration) string {
	text := duration.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
