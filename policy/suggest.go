package policy

import (
	"strings"
	"unicode"
)

// Suggest is the cure for a mistyped word: the known one that is most like it, and
// all others where they are few.
func Suggest(given string, known []string) string {
	const few = 20
	all := "known here: " + strings.Join(known[:min(few, len(known))], ", ")
	if len(known) > few {
		all += " and others"
	}
	switch best := nearest(given, known); {
	case best == "":
		return all
	case len(known) > few:
		return "did you mean " + best + "?"
	default:
		return "did you mean " + best + "? " + all
	}
}

// nearest is the known word that is most like the one given, if one is.
func nearest(given string, known []string) (best string) {
	least := 1 + min(len(given), 60)/5
	if len(given) < 3 || !strings.ContainsFunc(given, unicode.IsLetter) {
		least = 0 // anything would be like it, and one number is like any other
	}
	for _, k := range known {
		if n := distance(strings.ToLower(given), strings.ToLower(k), least); n <= least {
			best, least = k, n-1
		}
	}
	return best
}

// distance counts the letters to insert, delete or change to make b of a
// (Levenshtein); what is over most is told as that and one.
func distance(a, b string, most int) int {
	if len(a)-len(b) > most || len(b)-len(a) > most {
		return most + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return min(row[len(b)], most+1)
}
