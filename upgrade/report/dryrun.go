package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"crossfade/upgrade/flow"
)

// DryRun is everything that can be told before anything is touched.
type DryRun struct {
	Upgrade, Runbook string
	At               time.Time
	Phase            Phase
	Old, New         Cluster
	Others           []Cluster // new ones beyond New, where the tables are split
	// Traffic says what sends clients to a cluster, a sentence each.
	Traffic   []string
	Databases []Database
	Findings  []Finding
	Plans     []Plan
	// Undrawn is why there are no plans; "" where there are.
	Undrawn string
	Figures []Figure
	// Sampled says what the forecast was measured with.
	Sampled string
}

// Plan is one plan to be looked at.
type Plan struct {
	Name         string
	Cluster      string // the new cluster that it is about, where there are several
	Steps        []Step
	AllOrNothing bool
}

// PlanOf is p with what its steps will do.
func PlanOf(p flow.Plan) Plan {
	out := Plan{Name: p.Name, Cluster: p.Cluster, AllOrNothing: p.AllOrNothing, Steps: make([]Step, len(p.Steps))}
	open := slices.IndexFunc(p.Steps, func(s flow.Step) bool { return s.Commit })
	for i, s := range p.Steps {
		out.Steps[i] = Step{
			Cluster: p.Cluster, Plan: p.Name, ID: s.ID, Title: s.Title, Effects: s.Does, Forecast: s.Forecast, Commit: s.Commit,
			Needs: s.Needs, NeedsAll: open >= 0 && len(s.Needs) > 0 && len(s.Needs) == i-open-1,
		}
	}
	return out
}

// takes is how long the plan takes by the forecasts of its steps; least says
// that there are steps without one.
func (p Plan) takes() (total time.Duration, least bool) {
	for _, s := range p.Steps {
		total += s.Forecast
		least = least || s.Forecast == 0 && len(s.Effects) > 0
	}
	return total, least
}

// about is how long the plan takes, for a person; "" where nothing is known.
func (p Plan) about() string {
	total, least := p.takes()
	switch {
	case total == 0:
		return ""
	case least:
		return "at least " + About(total)
	}
	return About(total)
}

// takes is how long a step takes, and what it took where it ran; "" where
// neither is known.
func (s Step) takes() string {
	switch {
	case s.Actual > 0 && s.Forecast > 0:
		return "took " + Took(s.Actual) + ", forecast " + Took(s.Forecast)
	case s.Actual > 0:
		return "took " + Took(s.Actual)
	case s.Forecast > 0:
		return About(s.Forecast)
	}
	return ""
}

// Cluster is one of the two clusters, as it stands or as it will.
type Cluster struct {
	Name    string // old, or the new cluster's
	Version string
	Address string
	Site    string
	// Synchronous is synchronous_standby_names; Level synchronous_commit.
	Synchronous, Level string
	Nodes              []Node // the standbys
	Silent             string // why it could not be asked; "" where it could
}

// Node is a standby.
type Node struct {
	Name string // of the runbook, or what it calls itself
	// AppName is its application_name, which synchronous_standby_names is
	// matched with; "" where it is not known.
	AppName   string
	Upstream  string // another node's name; "": the primary
	Address   string
	Site      string
	State     string // as in pg_stat_replication; "": not connected
	SyncState string
	Delay     time.Duration
	Planned   bool // prepare is to build it
	Unlisted  bool // it streams, and the runbook does not know it
}

// Database is one database with its sizes.
type Database struct {
	Name    string
	Sets    []SetSize
	Biggest []TableSize // at most a few
	Tables  int
	// Excluded is how many tables are not moved.
	Excluded int
}

// SetSize is one set with its sizes.
type SetSize struct {
	Name              string
	Tables            int
	Bytes, IndexBytes int64
}

// TableSize is one table with its sizes.
type TableSize struct {
	Name, Set               string
	Bytes, IndexBytes, Rows int64 // Rows -1: not known
}

// bytes is all that is copied of a database, and all of its indexes.
func (d Database) bytes() (rows, indexes int64) {
	for _, s := range d.Sets {
		rows, indexes = rows+s.Bytes, indexes+s.IndexBytes
	}
	return rows, indexes
}

// Figure is one thing that is forecast, with its formula.
type Figure struct {
	At         time.Time // when it was measured
	ID, Object string
	Title      string
	Value      *float64 // nil: not known, or never
	Unit       string
	Never      bool
	Exceeds    bool // more than the runbook allows
	Formula    string
	Terms      []Term
	Says       string
	Actual     *float64 // what it came to, of steps that have run; nil: none has
}

// Term is one number of a formula, and where it is from.
type Term struct {
	Name, Unit string
	Value      float64
	How        string // measured, counted, runbook, assumed, forecasted
	Says       string
}

type figureLine struct {
	kind
	At      stamp      `json:"at"`
	ID      string     `json:"id"`
	Object  *string    `json:"object"`
	Title   string     `json:"title"`
	Value   *float64   `json:"value"`
	Unit    string     `json:"unit"`
	Never   bool       `json:"never"`
	Exceeds bool       `json:"exceeds"`
	Formula string     `json:"formula"`
	Terms   []termLine `json:"terms"`
	Says    *string    `json:"says"`
	Actual  *float64   `json:"actual"`
}

type termLine struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	How   string  `json:"how"`
	Says  *string `json:"says"`
}

func (f Figure) line() any {
	terms := each(f.Terms, func(t Term) termLine { return termLine{t.Name, t.Value, t.Unit, t.How, text(t.Says)} })
	return figureLine{
		kind{"forecast"}, stamp(f.At), f.ID, text(f.Object), f.Title, f.Value, f.Unit, f.Never, f.Exceeds, f.Formula, list(terms), text(f.Says), f.Actual,
	}
}

// amount is a number in its unit, for a person.
func amount(v float64, unit string) string {
	switch unit {
	case "seconds":
		return span(v)
	case "bytes":
		return Size(int64(v))
	case "bytes a second":
		return Size(int64(v)) + " a second"
	case "changes a second":
		return decimals(v) + " a second"
	case "times":
		return "× " + decimals(v)
	}
	return decimals(v)
}

func decimals(v float64) string {
	switch {
	case v == float64(int64(v)):
		return Count(int64(v))
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	}
	return Count(int64(v + 0.5))
}

// span is a number of seconds as a person compares them.
func span(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d == 0:
		return "0"
	case d < time.Millisecond:
		return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	}
	d = d.Round(time.Minute)
	return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
}

// value is what the figure says in a word.
func (f Figure) value() string {
	switch {
	case f.Never:
		return "never"
	case f.Value == nil:
		return "not known"
	}
	return amount(*f.Value, f.Unit)
}

func (t Term) text() string {
	s := fmt.Sprintf("%s = %s (%s)", t.Name, amount(t.Value, t.Unit), t.How)
	if t.Says != "" {
		s += ": " + t.Says
	}
	return s
}

// Forecast writes figures with their formulas for a person.
func Forecast(w io.Writer, figures []Figure, sampled string) error {
	if len(figures) == 0 {
		return nil
	}
	p := newPage(w)
	p.printf("forecast%s\n\n", parted(": ", sampled))
	rows := [][]string{}
	for _, f := range figures {
		row := []string{"  " + f.Title, f.value()}
		if f.Actual != nil {
			row = append(row, "took "+amount(*f.Actual, f.Unit))
		}
		rows = append(rows, row)
	}
	p.table(rows)
	for _, f := range figures {
		p.printf("\n  %s = %s\n", oneLine(f.Label()), oneLine(f.Formula))
		if f.Says != "" {
			p.printf("      %s\n", oneLine(f.Says))
		}
		for _, t := range f.Terms {
			p.printf("      %s\n", oneLine(t.text()))
		}
	}
	p.printf("\n")
	return p.err
}

func parted(sep, s string) string {
	if s == "" {
		return ""
	}
	return sep + s
}

// Label is the figure's ID with what it is about.
func (f Figure) Label() string { return strings.TrimSpace(f.ID + " " + f.Object) }

// ForecastExceeds is the ID of the finding of a forecast that is beyond what the
// runbook allows; its object is the figure's Label.
const ForecastExceeds = "forecast-exceeds"

// Verdict is go or no-go, and why.
type Verdict struct {
	Go      bool
	Reasons []string // what blocks the upgrade; for a go: what was accepted or is to be known
}

// Verdict says whether the upgrade may begin: no finding that is not accepted
// blocks, there are plans, and no forecast is beyond what the runbook allows.
func (d DryRun) Verdict() Verdict {
	v := Verdict{Go: true}
	no := func(format string, args ...any) {
		v.Go = false
		v.Reasons = append(v.Reasons, fmt.Sprintf(format, args...))
	}
	blocks, warns, accepted := d.count(func(f Finding) bool { return f.Blocks() }), d.count(func(f Finding) bool { return f.Level == Warn && !f.Accepted }),
		d.count(func(f Finding) bool { return f.Accepted })
	if blocks > 0 {
		no("%s", verb(blocks, "blocking finding", "blocks the upgrade", "block the upgrade"))
	}
	if d.Undrawn != "" {
		no("no plan could be drawn: %s", oneLine(d.Undrawn))
	}
	for _, f := range d.Figures {
		if f.Exceeds && !d.answered(f) {
			no("%s: %s", f.Label(), f.Says)
		}
	}
	if !v.Go {
		return v
	}
	v.Reasons = append(v.Reasons, "no blocking findings that are not accepted")
	if accepted > 0 {
		v.Reasons = append(v.Reasons, plural(accepted, "finding")+" accepted by the runbook")
	}
	if warns > 0 {
		v.Reasons = append(v.Reasons, plural(warns, "warning")+" to be read")
	}
	return v
}

// answered says whether the runbook accepts a forecast that is beyond what
// it allows.
func (d DryRun) answered(f Figure) bool {
	return slices.ContainsFunc(d.Findings, func(g Finding) bool { return g.ID == ForecastExceeds && g.Object == f.Label() && g.Accepted })
}

func verb(n int, what, one, many string) string {
	if n == 1 {
		return plural(n, what) + " " + one
	}
	return plural(n, what) + " " + many
}

func (d DryRun) count(is func(Finding) bool) int {
	n := 0
	for _, f := range d.Findings {
		if is(f) {
			n++
		}
	}
	return n
}

// figure is the one of that ID and object, or nil.
func (d DryRun) figure(id, object string) *Figure {
	i := slices.IndexFunc(d.Figures, func(f Figure) bool { return f.ID == id && f.Object == object })
	if i < 0 {
		return nil
	}
	return &d.Figures[i]
}
