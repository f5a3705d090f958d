package crash

import (
	"regexp"
	"strconv"
	"testing"

	"rotatord/test/program"
)

// TestWholeMatrixIsDocumented: the number of rounds that the documents name plays the whole matrix.
func TestWholeMatrixIsDocumented(t *testing.T) {
	for file, pattern := range map[string]string{
		"Makefile":        `ROUNDS=(\d+) is all of it and some`,
		"CONTRIBUTING.md": "`ROUNDS=(\\d+)` is the whole matrix",
		"test/README.md":  `ROUNDS=(\d+) +# the whole matrix \(` + strconv.Itoa(matrixSize) + ` rounds\)`,
	} {
		found := regexp.MustCompile(pattern).FindStringSubmatch(program.ReadFile(t, file))
		if found == nil {
			t.Errorf("%s: nothing matches %q; the matrix has %d rounds", file, pattern, matrixSize)
		} else if n, err := strconv.Atoi(found[1]); err != nil || n < matrixSize {
			t.Errorf("%s: ROUNDS=%s, and the matrix has %d rounds", file, found[1], matrixSize)
		}
	}
}
