package main

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/report"

	"github.com/schollz/progressbar/v3"
)

// progress is how far the step in work is. The numbers live here; the bar is
// only a view of them, drawn by the one goroutine that writes.
type progress struct {
	mu    sync.Mutex
	works []work // several where steps run side by side; the first is shown

	// These are the drawing goroutine's own.
	bar   *progressbar.ProgressBar
	drawn bytes.Buffer // what the bar has written: each of its setters draws
	kind  bool         // the bar has a known end
	step  string
}

// work is a step in work; the zero value is none.
type work struct {
	step, title, says string
	beside            string // as the event has it
	others            int    // steps in work beside it
	began             time.Time
	done, total       int64
	unit              string
	// The first report: what an earlier run had done is no speed of this one.
	first     int64
	firstSeen time.Time
}

func (p *progress) observe(e flow.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e.Kind {
	case flow.Begin:
		p.begin(e)
	case flow.Progress:
		w := p.find(e.Step)
		if w == nil { // of a step outside a plan
			w = p.begin(e)
		}
		if w.firstSeen.IsZero() {
			w.first, w.firstSeen = e.Done, e.At
		}
		w.done, w.total, w.unit, w.says = e.Done, e.Total, e.Unit, e.Says
		if w.total > 0 && w.done > w.total {
			w.done = w.total // a total is an estimate
		}
	case flow.End, flow.Fail, flow.Skip, flow.Undone:
		p.works = slices.DeleteFunc(p.works, func(w work) bool { return w.step == e.Step || w.beside == "" })
	}
}

// begin puts a step into work: alone, or beside those that it begins beside.
func (p *progress) begin(e flow.Event) *work {
	p.works = slices.DeleteFunc(p.works, func(w work) bool { return w.step == e.Step || w.beside == "" || w.beside != e.Beside })
	p.works = append(p.works, work{step: e.Step, title: e.Title, began: e.At, beside: e.Beside})
	return &p.works[len(p.works)-1]
}

func (p *progress) find(step string) *work {
	for i := range p.works {
		if p.works[i].step == step {
			return &p.works[i]
		}
	}
	return nil
}

// now is the step that is in work for longest.
func (p *progress) now() work {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.works) == 0 {
		return work{}
	}
	w := p.works[0]
	w.others = len(p.works) - 1
	return w
}

// sentence is how far the step in work is; "" where there is none.
func (p *progress) sentence(now time.Time) string {
	w := p.now()
	if w.step == "" {
		return ""
	}
	var b strings.Builder
	b.WriteString("at      " + w.step)
	if w.firstSeen.IsZero() {
		b.WriteString("  since " + now.Sub(w.began).Round(time.Second).String())
	} else {
		b.WriteString("  " + w.measure(now))
	}
	b.WriteString(w.more())
	return b.String()
}

// more is what the step itself says, and that it is not alone.
func (w work) more() string {
	s := ""
	if w.says != "" {
		s = "  " + w.says
	}
	if w.others > 0 {
		s += fmt.Sprintf("  (and %d more side by side)", w.others)
	}
	return s
}

// measure is 43 % (12 GB of 28 GB), 112 MB/s, about 2 min.
func (w work) measure(now time.Time) string {
	var total *int64
	if w.total > 0 {
		total = &w.total
	}
	s := report.Progress(w.done, total, w.unit)
	took := now.Sub(w.firstSeen).Seconds()
	if w.done <= w.first || took < 1 || w.done == w.total {
		return s // what goes on after the last byte has no rate
	}
	rate := float64(w.done-w.first) / took
	if w.unit == "bytes" {
		s += ", " + report.Size(int64(rate)) + "/s"
	}
	if w.total > w.done {
		s += ", " + report.About(time.Duration(float64(w.total-w.done)/rate*float64(time.Second)))
	}
	return s
}

// draw draws the live line on a terminal with that many columns.
func (p *progress) draw(to io.Writer, columns int) {
	w := p.now()
	if w.step == "" {
		p.clear(to)
		return
	}
	known := w.total > 0
	if p.bar == nil || p.step != w.step || p.kind != known {
		p.bar, p.step, p.kind = newBar(&p.drawn, known), w.step, known
	}
	says := w.step + "  "
	if w.firstSeen.IsZero() {
		says += w.title + "  " + time.Since(w.began).Round(time.Second).String()
	} else {
		says += w.measure(time.Now())
	}
	says += w.more()
	if known {
		// At its maximum the bar would call itself finished and draw no more,
		// but the step is not over before it says so. An error here is one of
		// counting, and the numbers are not the bar's.
		_ = p.bar.Set64(min(int64(float64(w.done)/float64(w.total)*barParts), barParts-1))
	}
	p.drawn.Reset()
	p.bar.Describe(cut(report.VisibleText(lineBreaks.Replace(says)), columns-barColumns))
	// A terminal that takes no more shows nothing to be wrong about.
	_, _ = p.drawn.WriteTo(to)
}

// lineBreaks are what would make the live line more than one, or wider than its
// runes.
var lineBreaks = strings.NewReplacer("\n", " ", "\t", " ")

// cut keeps a line from running over the edge, where it could not be taken
// away again.
func cut(s string, columns int) string {
	r := []rune(s)
	if columns < 1 || len(r) <= columns {
		return s
	}
	return string(r[:columns-1]) + "…"
}

// clear takes the live line away, so that something can be written.
func (p *progress) clear(to io.Writer) {
	if p.bar == nil {
		return
	}
	p.bar = nil
	_, _ = io.WriteString(to, "\r\x1b[2K")
}

// barWidth is the bar without its brackets, barColumns all of the live line but
// what it says: percent, bar, brackets and blanks.
const (
	barWidth   = 24
	barColumns = barWidth + 12
	barParts   = 1000 // a step's total is an estimate and may change: the bar counts in thousandths
)

func newBar(to io.Writer, known bool) *progressbar.ProgressBar {
	parts := int64(barParts)
	if !known {
		parts = -1 // a spinner
	}
	return progressbar.NewOptions64(parts,
		progressbar.OptionSetWriter(to), progressbar.OptionSetWidth(barWidth), progressbar.OptionUseANSICodes(true),
		progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(false),
		// A spinner with an interval of its own would draw from a goroutine that nobody ends.
		progressbar.OptionSetSpinnerChangeInterval(0), progressbar.OptionSpinnerType(14),
		progressbar.OptionShowDescriptionAtLineEnd(),
		progressbar.OptionSetTheme(progressbar.Theme{Saucer: "=", SaucerHead: ">", SaucerPadding: " ", BarStart: "[", BarEnd: "]"}),
	)
}
