package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

func tallyCommand() *cli.Command {
	return &cli.Command{
		Name: "tally", Usage: "read go test -json, print what fails, and count: the last line is N passed, N failed, N skipped", Hidden: true,
		Action: func(c *cli.Context) error {
			if _, err := words(c, 0, 0); err != nil {
				return err
			}
			ok, err := tally(os.Stdin, c.App.Writer)
			if err == nil && !ok {
				return errTold
			}
			return err
		},
	}
}

// event is one line of go test -json.
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

// counts is what became of the tests; a test with subtests is counted by them,
// and by itself only if it failed without one of them failing.
type counts struct {
	passed, failed, skipped int
	broken                  int // packages that failed without a test failing: not built, a panic, a time-out
}

func (c counts) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", c.passed, c.failed, c.skipped)
}

// tally reads test2json's events, prints a line a package and all output of
// what failed, and the counts. It reports whether everything passed. A package
// that could not be built or died counts as one failed test.
func tally(from io.Reader, to io.Writer) (bool, error) {
	t := &tallier{to: to, output: map[string][]string{}, failed: map[string]bool{}, parents: map[string]bool{}}
	scan := bufio.NewScanner(from)
	scan.Buffer(nil, 16<<20)
	for scan.Scan() {
		var e event
		if err := json.Unmarshal(scan.Bytes(), &e); err != nil {
			t.print("%s\n", scan.Text()) // the go command's own words
			continue
		}
		t.take(e)
	}
	t.slow()
	t.print("%s\n", t.counts)
	return t.counts.failed == 0 && t.packages > 0, firstError(t.err, scan.Err())
}

func firstError(all ...error) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}

type tallier struct {
	to       io.Writer
	counts   counts
	packages int
	output   map[string][]string // of a test, or a package, that has not ended
	failed   map[string]bool     // packages with a test that failed
	parents  map[string]bool     // tests with subtests
	took     []took
	err      error
}

// took is how long a test took, with its subtests.
type took struct {
	test    string
	seconds float64
}

// slowest is how many tests are named that took longest, and from how many seconds on.
const (
	slowest     = 15
	slowSeconds = 10
)

// slow names the tests that took longest: where a run is to become shorter, it
// begins there.
func (t *tallier) slow() {
	slices.SortStableFunc(t.took, func(a, b took) int { return cmp.Compare(b.seconds, a.seconds) })
	for i, s := range t.took {
		if i == 0 {
			t.print("slowest:\n")
		}
		if i == slowest {
			break
		}
		t.print("  %6.0f s  %s\n", s.seconds, s.test)
	}
}

func (t *tallier) print(format string, args ...any) {
	if _, err := fmt.Fprintf(t.to, format, args...); err != nil && t.err == nil {
		t.err = err
	}
}

func (t *tallier) take(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "build-output":
		t.output[e.ImportPath] = append(t.output[e.ImportPath], e.Output)
	case "run":
		if parent, _, sub := cutLast(e.Test, "/"); sub {
			t.parents[e.Package+" "+parent] = true
		}
	case "output":
		t.output[key] = append(t.output[key], e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			t.ended(e)
		} else {
			t.test(e, key)
			if e.Elapsed >= slowSeconds && !strings.Contains(e.Test, "/") {
				t.took = append(t.took, took{test: e.Package + " " + e.Test, seconds: e.Elapsed})
			}
		}
		delete(t.output, key)
	}
}

func (t *tallier) test(e event, key string) {
	switch {
	case e.Action == "fail":
		if t.parents[key] && t.failed[key] { // a subtest of it was counted
			break
		}
		t.counts.failed++
	case t.parents[key]:
	case e.Action == "skip":
		t.counts.skipped++
	default:
		t.counts.passed++
	}
	if e.Action != "fail" {
		if e.Action == "skip" {
			t.print("%s", strings.Join(t.output[key], ""))
		}
		return
	}
	t.failed[e.Package] = true
	for parent, _, sub := cutLast(e.Test, "/"); sub; parent, _, sub = cutLast(parent, "/") {
		t.failed[e.Package+" "+parent] = true
	}
	t.print("%s", strings.Join(t.output[key], ""))
}

// ended is the end of a package.
func (t *tallier) ended(e event) {
	t.packages++
	word := map[string]string{"pass": "ok  ", "fail": "FAIL", "skip": "    "}[e.Action]
	if e.Action == "fail" && !t.failed[e.Package] {
		t.counts.failed++
		t.counts.broken++
		lines := append(slices.Clone(t.output[e.FailedBuild]), t.output[e.Package+" "]...)
		// What a test has said before a panic or a time-out belongs to it.
		for key, said := range t.output {
			if strings.HasPrefix(key, e.Package+" ") && key != e.Package+" " {
				lines = append(lines, said...)
			}
		}
		t.print("%s", strings.Join(lines, ""))
	}
	if e.Action == "skip" {
		t.print("%s %s: no tests\n", word, e.Package)
		return
	}
	t.print("%s %s %.1f s\n", word, e.Package, e.Elapsed)
}

// cutLast cuts s at the last sep.
func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
