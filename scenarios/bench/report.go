package bench

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Report is one section of the results.
type Report struct {
	Name   string
	Title  string
	Where  string // on what it was measured
	Once   bool   // each was measured once, whatever the rounds
	Says   []string
	Tables []Table
	// Commands are what was run, for whoever wants to see it again.
	Commands []Command
}

// Table is one table of a report.
type Table struct {
	Title  string
	Header []string
	Rows   [][]string
}

// Command is one competitor's script.
type Command struct{ Name, Script string }

// Text is the report for a terminal.
func (r *Report) Text() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s\n%s\n", r.Title, r.Where)
	for _, says := range r.Says {
		fmt.Fprintf(&s, "%s\n", says)
	}
	for _, t := range r.Tables {
		width := make([]int, len(t.Header))
		lines := append([][]string{t.Header}, t.Rows...)
		for _, l := range lines {
			for i, c := range l {
				width[i] = max(width[i], len([]rune(c)))
			}
		}
		if t.Title != "" {
			fmt.Fprintf(&s, "\n%s\n", t.Title)
		}
		for _, l := range lines {
			for i, c := range l {
				pad := strings.Repeat(" ", width[i]-len([]rune(c)))
				if i == 0 {
					s.WriteString("  " + c + pad)
				} else {
					s.WriteString("  " + pad + c)
				}
			}
			s.WriteString("\n")
		}
	}
	return s.String()
}

// Markdown is the report for docs/benchmarks.md.
func (r *Report) Markdown() string {
	var s strings.Builder
	fmt.Fprintf(&s, "## %s\n\n%s\n", r.Title, r.Where)
	for _, says := range r.Says {
		fmt.Fprintf(&s, "\n%s\n", says)
	}
	for _, t := range r.Tables {
		if t.Title != "" {
			fmt.Fprintf(&s, "\n%s\n", t.Title)
		}
		s.WriteString("\n| " + strings.Join(t.Header, " | ") + " |\n|" + strings.Repeat(" --- |", len(t.Header)) + "\n")
		for _, l := range t.Rows {
			s.WriteString("| " + strings.Join(l, " | ") + " |\n")
		}
	}
	if len(r.Commands) > 0 {
		s.WriteString("\n<details><summary>What was run</summary>\n")
		for _, c := range r.Commands {
			fmt.Fprintf(&s, "\n%s:\n\n```sh\n%s\n```\n", c.Name, strings.TrimSpace(c.Script))
		}
		s.WriteString("\n</details>\n")
	}
	return s.String()
}

const head = `# Benchmarks

Written by ` + "`make bench`" + ` (` + "`bin/lab bench --help`" + `), section by section: what is here was measured in one run each, on the
machine that it names. Competitors take turns, medians are of all rounds, and a time counts only where every row, index
and constraint was seen to be there after it. Ratios travel better than seconds.
`

func marks(name string) (begin, end string) {
	return "<!-- bench: " + name + " -->\n", "<!-- end: " + name + " -->\n"
}

// keep puts the report into the file, in the place of its section.
func (r *Report) keep(path string) error {
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(r.in(string(b))), 0o644)
}

// in is text with the report in the place of its section, in the order of sections.
func (r *Report) in(text string) string {
	parts := map[string]string{r.Name: r.Markdown()}
	for _, s := range sections {
		begin, end := marks(s.name)
		_, rest, ok := strings.Cut(text, begin)
		if part, _, whole := strings.Cut(rest, end); ok && whole && s.name != r.Name {
			parts[s.name] = part
		}
	}
	out := head
	for _, s := range sections {
		if part, ok := parts[s.name]; ok {
			begin, end := marks(s.name)
			out += "\n" + begin + part + end
		}
	}
	return out
}

// median of values; NaN where there are none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	v := slices.Sorted(slices.Values(values))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// slope is the exponent of growth: 1 where twice the size takes twice the
// time. It is that of the straight line through the logarithms.
func slope(size, time []float64) float64 {
	var sx, sy, sxx, sxy float64
	n := float64(len(size))
	for i := range size {
		x, y := math.Log(size[i]), math.Log(time[i])
		sx, sy, sxx, sxy = sx+x, sy+y, sxx+x*x, sxy+x*y
	}
	return (n*sxy - sx*sy) / (n*sxx - sx*sx)
}

func seconds(s float64) string {
	if math.IsNaN(s) {
		return "–"
	}
	return fmt.Sprintf("%.2f s", s)
}

func ratio(a, b float64) string {
	if math.IsNaN(a / b) {
		return "–"
	}
	return fmt.Sprintf("%.2f", a/b)
}

func megabytes(n int64) string { return fmt.Sprintf("%d MB", n>>20) }

func spread(values []float64) string {
	if len(values) == 0 || slices.ContainsFunc(values, math.IsNaN) {
		return "–"
	}
	return fmt.Sprintf("%.2f … %.2f s", slices.Min(values), slices.Max(values))
}
