package config

import (
	"fmt"
	"slices"
	"strings"
)

// maxNear is how many names a message suggests, if all are equally near.
const maxNear = 3

// suggest returns the known name that was probably meant, if any, and the end of a message about an
// unknown one: that name, the names that are equally near, or all of them.
func suggest(name string, known []string) (meant, hint string) {
	if len(known) == 0 {
		return "", "there are none"
	}
	plain := func(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") }
	var best []string
	bestDistance := max(1, len(name)/3)
	for _, k := range known {
		switch d := editDistance(plain(name), plain(k)); {
		case d < bestDistance:
			best, bestDistance = []string{k}, d
		case d == bestDistance:
			best = append(best, k)
		}
	}
	slices.Sort(best)
	switch n := len(best); {
	case n == 1:
		return best[0], fmt.Sprintf("did you mean %s?", best[0])
	case n > maxNear:
		return best[0], fmt.Sprintf("did you mean %s, or another one (%d are as near)?", strings.Join(best[:maxNear], ", "), n)
	case n > 1:
		return best[0], fmt.Sprintf("did you mean %s or %s?", strings.Join(best[:n-1], ", "), best[n-1])
	}
	known = slices.Clone(known)
	slices.Sort(known)
	return "", "known here: " + strings.Join(known, ", ")
}

// editDistance counts the insertions, deletions, replacements and swaps of
// neighbours that turn a into b. It answers early, with a large number, for names
// too different in length to be worth a suggestion.
func editDistance(a, b string) int {
	if len(a) > 3*len(b)+3 || len(b) > 3*len(a)+3 {
		return len(a) + len(b)
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
			rows[i][j] = min(replace, rows[i-1][j]+1, rows[i][j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

// maxListed is how many names a message lists.
const maxListed = 20

// Suggest returns the end of a message about a token that is not known: the name that was
// probably meant, or all of them, if they are few.
func Suggest(name string, known []string) string {
	meant, hint := suggest(name, known)
	if meant == "" && len(known) > maxListed {
		return fmt.Sprintf("%d others are", len(known))
	}
	return hint
}
