package config

import (
	"fmt"
	"iter"
	"slices"
	"strings"
)

// maxNear is how many names a message suggests, if all are equally near.
const maxNear = 3

// suggest returns the known name that was probably meant, if any, and the end of a message about an
// unknown one: that name, the names that are equally near, or all of them.
func suggest(name string, known []string) (meant, hint string) {
	if meant, hint = nearest(name, known); meant == "" {
		hint = listed(known)
	}
	return meant, hint
}

// nearest returns a name that was probably meant, and the end of a message with it and those that are equally near;
// empty if no known name is near.
func nearest(name string, known []string) (meant, hint string) {
	plain := func(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") }
	name = plain(name)
	var best []string
	bestDistance := max(1, len(name)/3)
	for _, k := range known {
		switch d := editDistance(name, plain(k)); {
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
	return "", ""
}

// listed ends a message with all that is known, or with the first of them and how many more there are.
func listed(known []string) string {
	if len(known) == 0 {
		return "there are none"
	}
	sorted := slices.Sorted(slices.Values(known))
	if more := len(sorted) - maxListed; more > 1 {
		return fmt.Sprintf("known here: %s and %d more", strings.Join(sorted[:maxListed], ", "), more)
	}
	return "known here: " + strings.Join(sorted, ", ")
}

// maxCompared is how many names are compared for all hints about one file. A file with more mistakes than that has
// the same mistake many times.
const maxCompared = 200_000

// hintKey is a name that is not known, and where it should be.
type hintKey struct{ among, name string }

// hint ends the message about a name that is not known in the mapping among. The same name has the same hint, and is
// looked for once.
func (c *checker) hint(among, name string, names iter.Seq[string]) string {
	all, made := c.hints[hintKey{among, ""}]
	if !made {
		all.known = slices.Collect(names)
		all.text = listed(all.known)
		c.hints[hintKey{among, ""}] = all
	}
	key := hintKey{among, name}
	found, made := c.hints[key]
	if !made {
		found = all
		if c.compared == 0 || c.compared+len(all.known) <= maxCompared {
			c.compared += len(all.known)
			if meant, text := nearest(name, all.known); meant != "" {
				found.text = text
			}
		}
		c.hints[key] = found
	}
	return found.text
}

// hint ends a message.
type hint struct {
	text  string
	known []string // what is in the mapping
}

// editDistance counts the insertions, deletions, replacements and swaps of
// neighbours that turn a into b. It answers early, with a large number, for names
// too different in length to be worth a suggestion.
func editDistance(a, b string) int {
	if len(a) > 3*len(b)+3 || len(b) > 3*len(a)+3 {
		return len(a) + len(b)
	}
	const short = 64
	var space [3 * (short + 1)]int // names are short: nothing is allocated for them
	rows := space[:]
	width := len(b) + 1
	if len(b) > short {
		rows = make([]int, 3*width)
	}
	before, above, row := rows[:width], rows[width:2*width], rows[2*width:3*width]
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, above, row = above, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := above[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			row[j] = min(replace, above[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
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
