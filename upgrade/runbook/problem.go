package runbook

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Position is where something stands in the runbook: Line and Column count
// from 1, columns in characters. The zero Position is nowhere, and belongs to
// what was not written (a default).
type Position struct {
	Line, Column int
	source       *sourceText
}

// Problem makes a mistake of what stands here, for what only the servers can
// tell: a pattern that matches nothing, an accepted finding that does not
// exist. Without a position, Runbook.Problem knows at least the file.
func (at Position) Problem(says string) Problem {
	p := Problem{Line: at.Line, Column: at.Column, Says: says}
	if at.source != nil {
		p.File, p.Source = at.source.file, at.source.line(at.Line)
	}
	return p
}

// Problem makes a mistake of what stands at that position of the runbook.
func (r *Runbook) Problem(at Position, says string) Problem {
	p := at.Problem(says)
	p.File = r.File
	return p
}

// Problem is one mistake in the runbook, or a warning.
type Problem struct {
	File         string
	Line, Column int    // from 1; 0: the file as a whole
	Says         string // what is wrong, and what would be right; never a password
	Warning      bool
	Source       string // the line it stands on; "" where that line may hold a password
}

// String is file:line:column: what is wrong, and what would be right.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	if p.File != "" {
		b.WriteString(": ")
	}
	if p.Warning {
		b.WriteString("warning: ")
	}
	b.WriteString(p.Says)
	return b.String()
}

// Excerpt is the source line with a caret below the column, each line ending
// with a line break; "" where there is no line to show. Of a very long line it
// is the part around the column.
func (p Problem) Excerpt() string {
	const around = 100
	if p.Source == "" || p.Column < 1 {
		return ""
	}
	line := []rune(p.Source)
	at := min(p.Column-1, len(line))
	before, from := "", 0
	if at > around {
		before, from = "…", at-around
	}
	after, to := "", len(line)
	if to > at+around {
		after, to = "…", at+around
	}
	caret := []rune(before + string(line[from:at]))
	for i, c := range caret {
		if c != '\t' { // a tab stays one, so that the caret stays below its character
			caret[i] = ' '
		}
	}
	return "    " + before + string(line[from:to]) + after + "\n    " + string(caret) + "^\n"
}

// Error is everything that is wrong with a runbook: sorted by position,
// each mistake once, at least one, no warnings.
type Error struct {
	Problems []Problem
	cause    error
}

// Error is all problems, one a line.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Unwrap is why the file could not be read; nil where it could.
func (e *Error) Unwrap() error { return e.cause }

// Hint is what to do about it.
func (e *Error) Hint() string {
	switch {
	case errors.Is(e.cause, fs.ErrNotExist):
		return "crossfade init --old CONNINFO --new CONNINFO -o crossfade.yaml looks at both clusters and writes one; -f FILE or the environment variable CROSSFADE_RUNBOOK names another"
	case e.cause != nil:
		return "-f FILE or the environment variable CROSSFADE_RUNBOOK names another file"
	}
	return "correct the runbook, then run the same command again"
}

func unreadable(path string, err error) error {
	says := err.Error()
	var pe *fs.PathError
	if errors.As(err, &pe) {
		says = pe.Err.Error() // the path stands before it already
	}
	return &Error{
		Problems: []Problem{{File: path, Says: "the runbook cannot be read: " + says}},
		cause:    err,
	}
}

// sorted is the problems by position, each once.
func sorted(problems []Problem) []Problem {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Says, b.Says))
	})
	return slices.Compact(problems) // an alias brings a mistake as often as it is used
}

// sourceText is the text of a runbook, for showing lines of it.
type sourceText struct {
	file   string
	lines  []string
	hidden map[int]bool // lines never shown, from 1
}

func newRunbookSource(file string, text []byte) *sourceText {
	s := &sourceText{file: file, hidden: map[int]bool{}}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\r\n")
		s.lines = append(s.lines, line)
		odd := func(c rune) bool { return c != '\t' && unicode.IsControl(c) } // a terminal would obey it
		if !utf8.ValidString(line) || strings.ContainsFunc(line, odd) || secretForm.MatchString(line) {
			s.hidden[len(s.lines)] = true
		}
	}
	return s
}

// line is line n, from 1, or "" where it is none, may hold a password or is no
// text.
func (s *sourceText) line(n int) string {
	if n < 1 || n > len(s.lines) || s.hidden[n] {
		return ""
	}
	return s.lines[n-1]
}

// secretForm matches what looks like a password, also in a text that could
// not be understood any further: it decides only what is not shown.
var secretForm = regexp.MustCompile(`(?i)(pass(word|wd)?|pwd|secret|scram_\w+_key)["']?\s*[=:]|://[^\s/@]*:[^\s/@]*@`)

// secretHere matches a value that holds a password, with as few false
// alarms as a warning can bear: not an empty one, not the bare word.
var secretHere = regexp.MustCompile(`(?i)(^|[^a-z])(pg|ssl)?password\s*=\s*('[^']|[^\s'])|://[^\s/@:]*:[^\s/@]+@`)

// show quotes a value of the runbook for a message.
func show(value string) string {
	const most = 60
	if secretForm.MatchString(value) {
		return "the value (not shown: it may hold a password)"
	}
	if r := []rune(value); len(r) > most {
		value = string(r[:most]) + "…"
	}
	if q := "'" + value + "'"; strings.Count(q, `"`) > 0 && strings.Count(q, "'") == 2 && !strings.ContainsFunc(q, unicode.IsControl) {
		return q // a pattern with quotes is easier to read so
	}
	return fmt.Sprintf("%q", value)
}

// nearest is the known word that was probably meant, or "".
func nearest(word string, known []string) string {
	if len(word) > 200 {
		return "" // no slip of the finger, and the comparison is quadratic
	}
	mine := plainer.Replace(strings.ToLower(word))
	best, near := "", max(1, utf8.RuneCountInString(word)/3)+1
	for _, k := range known {
		other := plainer.Replace(strings.ToLower(k))
		if long := len(other) - len(mine); long > 4*near || long < -4*near {
			continue // in bytes, of which a letter has at most four
		}
		if d := distance(mine, other); d < near {
			best, near = k, d
		}
	}
	return best
}

var plainer = strings.NewReplacer("-", "", "_", "", " ", "")

// distance is the number of letters to add, drop or change (two
// swapped neighbours count as one) to make b of a.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	before, last, this := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(x); i++ {
		this[0] = i
		for j := 1; j <= len(y); j++ {
			change := 1
			if x[i-1] == y[j-1] {
				change = 0
			}
			this[j] = min(last[j]+1, this[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				this[j] = min(this[j], before[j-2]+1)
			}
		}
		before, last, this = last, this, before
	}
	return last[len(y)]
}
