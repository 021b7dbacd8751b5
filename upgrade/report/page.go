package report

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"
)

// unknown stands in a table where nothing is known.
const unknown = "-"

// page writes text and remembers the first error.
type page struct {
	w   io.Writer
	err error
}

func newPage(w io.Writer) *page { return &page{w: w} }

func (p *page) printf(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

// cell is what stands in a row: a tab or a line break would begin another.
var cell = strings.NewReplacer("\t", " ", "\n", " ")

// table writes rows with their columns aligned, each on a line of its own
// whatever its cells hold.
func (p *page) table(rows [][]string) {
	var b bytes.Buffer
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		// Neither can fail: a bytes.Buffer takes everything.
		r = slices.Clone(r)
		for i := range r {
			r[i] = cell.Replace(VisibleText(r[i])) // as wide as it will be shown
		}
		_, _ = fmt.Fprintln(t, strings.Join(r, "\t"))
	}
	_ = t.Flush()
	for line := range strings.Lines(b.String()) {
		p.printf("%s\n", strings.TrimRight(line, " \n")) // a row whose last cell is empty
	}
}

// indented writes s with every line after indent.
func (p *page) indented(indent, s string) {
	for line := range strings.Lines(s) {
		p.printf("%s%s\n", indent, strings.TrimRight(line, "\r\n"))
	}
}

// wrapped writes s after indent, broken between words where it would be too
// wide. Its own line breaks stay.
func (p *page) wrapped(indent, s string) {
	for line := range strings.Lines(s) {
		width := 0
		for word := range strings.FieldsSeq(line) {
			switch n := utf8.RuneCountInString(word); {
			case width == 0:
				p.printf("%s%s", indent, word)
				width = len(indent) + n
			case width+1+n > textWidth:
				p.printf("\n%s%s", indent, word)
				width = len(indent) + n
			default:
				p.printf(" %s", word)
				width += 1 + n
			}
		}
		if width > 0 {
			p.printf("\n")
		}
	}
}

// Size is a number of bytes as PostgreSQL writes them, 1024-based: humanize
// would call 1,000,000 bytes a MB, and the runbook's own sizes are not that.
func Size(n int64) string {
	f, unit := float64(n), ""
	for _, u := range []string{"kB", "MB", "GB", "TB", "PB"} {
		if f < 1000 && f > -1000 {
			break
		}
		f, unit = f/1024, u
	}
	switch {
	case unit == "" && n == 1:
		return "1 byte"
	case unit == "":
		return fmt.Sprintf("%d bytes", n)
	case f < 10 && f > -10:
		return fmt.Sprintf("%.1f %s", f, unit)
	}
	return fmt.Sprintf("%.0f %s", f, unit)
}

// Count is a whole number with a comma at every thousand.
func Count(n int64) string {
	if n < 0 {
		return "-" + Count(-n)
	}
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Quantity is n of a unit as flow's progress counts them.
func Quantity(n int64, unit string) string {
	switch unit {
	case "bytes":
		return Size(n)
	case "":
		return Count(n)
	}
	return Count(n) + " " + unit
}

// About is a forecast, as precise as a forecast can be.
func About(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return "less than a second"
	case d < time.Second:
		return fmt.Sprintf("about %d ms", d.Milliseconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("about %d s", int(d.Round(time.Second).Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("about %d min", int(d.Round(time.Minute).Minutes()))
	}
	d = d.Round(time.Minute)
	return fmt.Sprintf("about %d h %d min", int(d.Hours()), int(d.Minutes())%60)
}

func aboutSeconds(s float64) string { return About(time.Duration(s * float64(time.Second))) }
