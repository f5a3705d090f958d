package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

// Problem is one thing that is wrong with a record.
type Problem struct {
	File string `json:"file"`
	Line int    `json:"line,omitempty"` // in the file, from 1; 0 if it is about the whole file
	Seq  uint64 `json:"seq,omitempty"`  // the number of the line in the record; 0 if it is not known
	// Kind is one of the problem kinds below, and Message says it in words.
	Kind    string `json:"kind"`
	Message string `json:"message"`
}

// The kinds of problems.
const (
	ProblemChanged    = "changed"    // a line has other bytes than those of its hash
	ProblemMissing    = "missing"    // lines are not there
	ProblemReordered  = "reordered"  // a line is not in its place
	ProblemDuplicated = "duplicated" // a number is there twice
	ProblemBroken     = "broken"     // a line does not follow the one before it: one of them was replaced
	ProblemUnreadable = "unreadable" // something is not a line
	ProblemTruncated  = "truncated"  // the end is missing
	ProblemHead       = "head"       // the head is another line, or cannot be read
	ProblemNewChain   = "new_chain"  // the daemon found the record damaged, and began again
)

// ProblemKinds are all of them.
var ProblemKinds = []string{ProblemChanged, ProblemMissing, ProblemReordered, ProblemDuplicated, ProblemBroken, ProblemUnreadable, ProblemTruncated, ProblemHead, ProblemNewChain}

// String returns the problem as FILE:LINE: KIND: MESSAGE.
func (p Problem) String() string {
	if p.Line == 0 {
		return fmt.Sprintf("%s: %s: %s", p.File, p.Kind, p.Message)
	}
	return fmt.Sprintf("%s:%d: %s: %s", p.File, p.Line, p.Kind, p.Message)
}

// VerifyOptions say what [Verify] compares.
type VerifyOptions struct {
	File string
	// Head is a head that was kept elsewhere; zero if there is none. A head without a hash says a number only.
	Head Head
	// From is the first line that counts: problems before it are known. 0: all lines count.
	From uint64
}

// Verified is the result of [Verify].
type Verified struct {
	OK    bool     `json:"ok"`
	Files []string `json:"files"`
	Lines int      `json:"lines"`
	// First and Last are the numbers of the first and the last line; 0 if there is none. LastAt is when the last one
	// was written, and Head is SEQ:HASH of it.
	First  uint64    `json:"first"`
	Last   uint64    `json:"last"`
	LastAt time.Time `json:"last_at,omitzero"`
	Head   string    `json:"head"`
	// Problems are bounded. More counts those that are left out.
	Problems []Problem `json:"problems"`
	More     int       `json:"more,omitempty"`
}

// maxProblems is how many problems are named.
const maxProblems = 1000

// Verify reads a record and names each line that is not as it was written. The daemon may write meanwhile. The error
// says what could not be read.
func Verify(ctx context.Context, o VerifyOptions) (Verified, error) {
	// The head is read first: what is written after it is only more.
	kept, headErr := ReadHead(o.File)
	all, err := files(o.File)
	if err != nil {
		return Verified{}, err
	}
	v := &verifier{o: o, kept: kept, result: Verified{Files: []string{}, Problems: []Problem{}}}
	for _, f := range all {
		if err := v.file(ctx, f); err != nil {
			return Verified{}, err
		}
	}
	v.end(headErr)
	v.result.OK = len(v.result.Problems) == 0
	return v.result, nil
}

// verifier compares one line after the other. It remembers only the last one, and the gaps.
type verifier struct {
	o    VerifyOptions
	kept Head // the head that is beside the record

	path string
	line int
	last place // the line with the highest number so far
	gaps []gap
	// keptFrom is the number of the first line that the record says is kept; 0 if it says nothing.
	keptFrom uint64
	lastLine []byte

	result Verified
}

// gap is a range of numbers that was not seen where it belongs.
type gap struct {
	from, to uint64 // to is not in it
	where    Problem
	before   string // the hash of the line before it
	known    bool   // the record says that these lines were deleted
}

func (v *verifier) file(ctx context.Context, f file) error {
	opened, err := openFile(f.path)
	if errors.Is(err, os.ErrNotExist) && f.first == 0 {
		return nil
	} else if err != nil {
		return err
	}
	defer opened.Close()
	v.path, v.result.Files = f.path, append(v.result.Files, f.path)
	info, err := opened.Stat()
	if err != nil {
		return err
	}
	end := dataEnd(opened, info.Size())
	lines := newReader(io.LimitReader(opened, end))
	inPiece := false
	for v.line = 1; ; v.line++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		text, whole, err := lines.next()
		switch {
		case errors.Is(err, io.EOF):
			if end < info.Size() {
				v.problem(ProblemUnreadable, 0, fmt.Sprintf("%d bytes without content are at the end of the file: it was made longer and not written", info.Size()-end))
			}
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", f.path, err)
		case inPiece:
			v.line--
		case !whole && f.first == 0 && !f.damaged && len(text) < maxLine:
			v.problem(ProblemTruncated, 0, "the last line has no end: the daemon was writing it, or it was cut. Look again; the daemon removes the rest of a line when it starts")
		default:
			v.take(text)
		}
		inPiece = !whole
	}
}

// take compares a line with those before it.
func (v *verifier) take(text []byte) {
	p, err := placeOf(text)
	if err != nil {
		v.problem(ProblemUnreadable, 0, "this is not a line of the record: it was inserted, or a line was damaged")
		return
	}
	v.result.Lines++
	if !p.fits {
		v.problem(ProblemChanged, p.seq, fmt.Sprintf("line number %d has other bytes than when it was written", p.seq))
	}
	v.compareHead(p, v.kept, "the head that is kept beside the record")
	v.compareHead(p, v.o.Head, "the head that was given")
	next := v.last.seq + 1
	switch {
	case v.result.First == 0:
		v.begin(p)
	case p.seq == next:
		v.follows(p, text)
	case p.seq > next && p.prev == "":
		v.newChain(p, text)
	case p.seq > next:
		v.gaps = append(v.gaps, gap{from: next, to: p.seq, where: v.problemAt(ProblemMissing, p.seq), before: v.last.hash})
	default:
		v.outOfPlace(p)
		return
	}
	if p.seq >= next || v.result.Lines == 1 {
		v.last = p
		v.lastLine = append(v.lastLine[:0], text...)
		v.noteKept(text)
	}
}

func (v *verifier) begin(p place) {
	v.result.First = p.seq
	if p.seq > 1 {
		v.gaps = append(v.gaps, gap{from: 1, to: p.seq, where: v.problemAt(ProblemMissing, p.seq), known: true})
	}
}

// follows compares a line with the one before it, whose number is one less.
func (v *verifier) follows(p place, text []byte) {
	switch {
	case p.prev == v.last.hash:
	case p.prev == "":
		v.newChain(p, text)
	default:
		v.problem(ProblemBroken, p.seq, fmt.Sprintf("line number %d does not follow line number %d: one of them was replaced, and its hash was computed again", p.seq, v.last.seq))
	}
}

// newChain reports where the daemon has begun again, and what it says about that.
func (v *verifier) newChain(p place, text []byte) {
	why := "it does not say why"
	if l, err := decode(text); err == nil {
		why = fmt.Sprint(l.Detail["damage"])
	}
	v.problem(ProblemNewChain, p.seq, fmt.Sprintf("a new chain begins with line number %d, so nothing proves that the lines before it are all there. The daemon said: %s", p.seq, why))
}

// outOfPlace reports a line whose number is not higher than that of a line before it.
func (v *verifier) outOfPlace(p place) {
	for i, g := range v.gaps {
		if p.seq < g.from || p.seq >= g.to || g.known {
			continue
		}
		v.problem(ProblemReordered, p.seq, fmt.Sprintf("line number %d is not in its place: it belongs before line number %d", p.seq, g.to))
		rest := v.gaps[i+1:]
		var split []gap
		if p.seq > g.from {
			split = append(split, gap{from: g.from, to: p.seq, where: g.where, before: g.before})
		}
		if p.seq+1 < g.to {
			split = append(split, gap{from: p.seq + 1, to: g.to, where: g.where})
		}
		v.gaps = append(slices.Clone(v.gaps[:i]), append(split, rest...)...)
		return
	}
	v.problem(ProblemDuplicated, p.seq, fmt.Sprintf("line number %d is there already", p.seq))
}

// noteKept notes which lines the record says were deleted because they were old.
func (v *verifier) noteKept(text []byte) {
	if v.line > 1 { // only the first line of a file says so
		return
	}
	l, err := decode(text)
	if err != nil {
		return
	}
	if from, ok := l.Detail["kept_from"].(float64); ok && from > 0 {
		v.keptFrom = max(v.keptFrom, uint64(from))
	}
}

func (v *verifier) compareHead(p place, head Head, what string) {
	if p.seq == head.Seq && head.Hash != "" && head.Hash != p.hash {
		v.problem(ProblemHead, p.seq, fmt.Sprintf("line number %d is another one than %s says: lines before it were changed, and all hashes computed again", p.seq, what))
	}
}

// end reports what is missing.
func (v *verifier) end(headErr error) {
	v.result.Last, v.result.Head = v.last.seq, Head{v.last.seq, v.last.hash}.String()
	if l, err := decode(v.lastLine); err == nil {
		v.result.LastAt = l.At
	}
	for _, g := range v.gaps {
		if g.known && v.keptFrom >= g.to { // deleted because they were old, and the record says so
			continue
		}
		if g.known {
			g.from = max(g.from, v.keptFrom)
		}
		p := g.where
		p.Message = numbers(g.from, g.to-1) + " missing before this line"
		v.add(p)
	}
	v.path, v.line = v.o.File, 0
	if headErr != nil {
		v.problem(ProblemHead, 0, headErr.Error())
	}
	for _, end := range []struct {
		head Head
		what string
	}{{v.kept, "the head that is kept beside the record"}, {v.o.Head, "the head that was given"}} {
		switch {
		case end.head.Seq > v.last.seq:
			v.problem(ProblemTruncated, end.head.Seq, fmt.Sprintf("%s missing at the end: %s is number %d", numbers(v.last.seq+1, end.head.Seq), end.what, end.head.Seq))
		case end.head.Seq != 0 && end.head.Seq < v.result.First && end.head == v.kept:
			v.problem(ProblemHead, end.head.Seq, fmt.Sprintf("the head that is kept beside the record is number %d, and the record begins at number %d", end.head.Seq, v.result.First))
		}
	}
	slices.SortStableFunc(v.result.Problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(v.order(a), v.order(b)), cmp.Compare(a.Line, b.Line))
	})
}

// order returns where a problem is told: by file, and what is about the end last.
func (v *verifier) order(p Problem) int {
	if p.Line == 0 {
		return len(v.result.Files)
	}
	return slices.Index(v.result.Files, p.File)
}

func numbers(from, to uint64) string {
	if from == to {
		return fmt.Sprintf("line number %d is", from)
	}
	return fmt.Sprintf("lines number %d to %d are", from, to)
}

func (v *verifier) problemAt(kind string, seq uint64) Problem {
	return Problem{File: v.path, Line: v.line, Seq: seq, Kind: kind}
}

func (v *verifier) problem(kind string, seq uint64, message string) {
	p := v.problemAt(kind, seq)
	p.Message = message
	v.add(p)
}

func (v *verifier) add(p Problem) {
	switch {
	case p.Seq != 0 && p.Seq < v.o.From, p.Seq == 0 && v.o.From > v.last.seq+1:
	case len(v.result.Problems) >= maxProblems:
		v.result.More++
	default:
		v.result.Problems = append(v.result.Problems, p)
	}
}
