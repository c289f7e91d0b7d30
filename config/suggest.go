package config

import (
	"slices"
	"strings"
)

// nearest returns the candidate that text was most likely meant to be, or "" if none is near: the one that ends in text, as when a key stands
// outside its section, else the one that the fewest edits lead to, at most one for each three letters.
func nearest(text string, candidates []string, delimiter string) string {
	best, fewest := "", max(1, len(text)/3)+1
	for _, candidate := range candidates {
		if strings.HasSuffix(candidate, delimiter+text) {
			return candidate
		}
		if edits := distance(strings.ToLower(text), strings.ToLower(candidate)); edits < fewest {
			best, fewest = candidate, edits
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with their neighbour to get from a to b (optimal string alignment).
func distance(a, b string) int {
	// Texts of very different lengths are never near, and those from outside may be long.
	if len(a) > 2*len(b)+8 {
		return len(a)
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			replace := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, replace)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
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
