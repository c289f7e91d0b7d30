package config

import (
	"errors"
	"fmt"

	"github.com/0x1d/goplt/pkg/registry/consul"
	"github.com/0x1d/goplt/pkg/rpc"
)

// Error is one thing that is wrong with a configuration. [Load] and [Config.Validate] return all that they find, joined by [errors.Join].
type Error struct {
	// Key is the key concerned, such as "services.auth.timeout", or the unknown one; empty if the error is about a file as a whole, or an unknown
	// environment variable.
	Key string
	// Source is where the error is: "goplt.yaml line 3", "GOPLT_TIMEOUT", "default", or empty for a value that the program set.
	Source string

	text  string
	cause error
}

// Error names the key, the source and the value, and says what would be right.
func (e *Error) Error() string { return e.text }

// Unwrap returns the [*rpc.KeyError] or other cause, or nil.
func (e *Error) Unwrap() error { return e.cause }

// keyError returns the error that the value at a path, from source, has a problem.
func keyError(path, source, problem string, cause error) *Error {
	key := display(path)
	text := key
	switch source {
	case "":
	case sourceDefault:
		text += " (default)"
	default:
		text += " in " + source
	}
	return &Error{Key: key, Source: source, text: text + ": " + problem, cause: cause}
}

func unknownKey(path, source, hint string) *Error {
	return &Error{Key: display(path), Source: source, text: fmt.Sprintf("unknown key %s in %s%s", quoteKey(path), source, hint)}
}

// flatten lists what [errors.Join] joined.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, err := range joined.Unwrap() {
		all = append(all, flatten(err)...)
	}
	return all
}

// keyProblem splits an error of a section's Validate into the key within the section that it is about, if it says so, and what is wrong there.
func keyProblem(err error) (key, problem string) {
	if key, ok := errors.AsType[*rpc.KeyError](err); ok {
		return key.Key, fmt.Sprintf("%v is not %s", key.Value, key.Want)
	}
	if key, ok := errors.AsType[*consul.KeyError](err); ok {
		return key.Key, fmt.Sprintf("%v is not %s", key.Value, key.Want)
	}
	return "", err.Error()
}
