package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/0x1d/goplt/internal/spelling"
)

// suggestKey ends the message about the unknown key at a path: with the nearest key or section, else with what its section holds.
func suggestKey(schema *node, path string) string {
	path = clip(path, maxKeyShown)
	parts := strings.Split(path, separator)
	if name := unsplit(schema, parts); name != "" {
		return "; a name is one key: did you mean " + quote(name) + "?"
	}
	if meant := unflatten(schema, parts); meant != "" {
		at := strings.LastIndex(meant, separator)
		return fmt.Sprintf(": keys are nested: write %s beneath %s", display(meant[at+1:]), quoteKey(meant[:at]))
	}
	names := func(at string, n *node) []string {
		depth := strings.Count(at, separator) + 1
		if depth < len(parts)-1 || n.element.leaf() && depth < len(parts) {
			return parts[depth : depth+1]
		}
		return []string{n.kind.placeholder()}
	}
	var candidates []string
	for key := range schema.keys(walk{names: names}) {
		candidates = append(candidates, key)
		if section := key[:max(0, strings.LastIndex(key, separator))]; section != "" && !slices.Contains(candidates, section) {
			candidates = append(candidates, section)
		}
	}
	place, _ := schema.reach(parts)
	return didYouMean(path, candidates, separator, quoteKey, place.names())
}

// unflatten returns the path of the key that was written with dots in place of sections, or "" if the parts of the path do not look so.
func unflatten(schema *node, parts []string) string {
	place, reached := schema.reach(parts)
	if reached == len(parts) || !strings.Contains(parts[reached], ".") {
		return ""
	}
	words := strings.Split(strings.Join(parts[reached:], "."), ".")
	rest, ok := place.nest(words)
	if !ok {
		return ""
	}
	return strings.Join(append(slices.Clone(parts[:reached]), rest...), separator)
}

// reach returns the node to which the first of the parts lead, and how many of them do.
func (n *node) reach(parts []string) (place *node, reached int) {
	for at, part := range parts {
		child := n.child(part)
		if child == nil {
			return n, at
		}
		n = child
	}
	return n, len(parts)
}

// nest returns the parts of the path beneath n that has the words between its dots, if there is one. A name takes as few of them as it can.
func (n *node) nest(words []string) (parts []string, ok bool) {
	if len(words) == 0 {
		return nil, true
	}
	for end := 1; end <= len(words); end++ {
		name := strings.Join(words[:end], ".")
		child := n.child(name)
		if child == nil || n.element != nil && n.kind.validate(name) != nil {
			continue
		}
		if rest, ok := child.nest(words[end:]); ok {
			return append([]string{name}, rest...), true
		}
	}
	return nil, false
}

// unsplit returns the name of a method that was written as sections within sections, one for each word between its dots, and in which then stands a
// key that there is. It is empty if the parts of the path do not look so.
func unsplit(schema *node, parts []string) string {
	n := schema
	for depth, part := range parts {
		if n.kind == kindMethod {
			for end := len(parts) - 1; end > depth+1; end-- {
				name, key := strings.Join(parts[depth:end], "."), n.element.find(strings.Join(parts[end:], separator))
				if key != nil && key.leaf() && n.kind.validate(name) == nil {
					return name
				}
			}
		}
		if n = n.child(part); n == nil {
			break
		}
	}
	return ""
}

// didYouMean ends a message about an unknown name: with the nearest of the candidates, else with what could stand in its place.
func didYouMean(text string, candidates []string, delimiter string, quote func(string) string, places []string) string {
	if near := nearest(text, candidates, delimiter); near != "" {
		return ": did you mean " + quote(near) + "?"
	}
	if len(places) > 0 {
		return "; want one of " + strings.Join(slices.Sorted(slices.Values(places)), ", ")
	}
	return ""
}

// nearest returns the candidate that text was most likely meant to be, or "" if none is near: the first that ends in what text does not share with
// it, as when a key stands outside its section, else the one that the fewest edits lead to.
func nearest(text string, candidates []string, delimiter string) string {
	best, fewest := "", len(text)+1
	for _, candidate := range candidates {
		rest, meant := afterShared(text, candidate, delimiter)
		switch {
		case meant == "":
			continue // the section that the text is in
		case strings.HasSuffix(meant, delimiter+rest):
			return candidate
		}
		if edits, near := editsBetween(strings.ToLower(rest), strings.ToLower(meant), delimiter); near && edits < fewest {
			best, fewest = candidate, edits
		}
	}
	return best
}

// editsBetween counts the edits between two texts, and reports whether they are near: at most one edit for each three letters of each part, so that a
// long name that both have lends nothing to a short key; of the last part alone if one text has more parts than the other.
func editsBetween(a, b, delimiter string) (edits int, near bool) {
	partsA, partsB := strings.Split(a, delimiter), strings.Split(b, delimiter)
	if len(partsA) != len(partsB) {
		most := mostEdits(partsA[len(partsA)-1])
		if max(len(a), len(b))-min(len(a), len(b)) > most {
			return 0, false // so many letters at least are missing
		}
		edits = spelling.Distance(a, b)
		return edits, edits <= most
	}
	for i, part := range partsA {
		if part == partsB[i] {
			continue
		}
		between := spelling.Distance(part, partsB[i])
		if between > mostEdits(part) {
			return 0, false
		}
		edits += between
	}
	return edits, true
}

func mostEdits(part string) int { return max(1, len(part)/3) }

// afterShared returns what follows in a and b after the parts, each with its delimiter, with which both begin.
func afterShared(a, b, delimiter string) (restA, restB string) {
	for {
		partA, restA, more := strings.Cut(a, delimiter)
		partB, restB, _ := strings.Cut(b, delimiter)
		if !more || partA != partB {
			return a, b
		}
		a, b = restA, restB
	}
}
