package report

import (
	"strings"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
)

// Levels of a finding.
const (
	Block = "block"
	Warn  = "warn"
	Note  = "note"
)

// Finding is what check has to say about one object.
type Finding struct {
	ID, Level            string   // Level: Block, Warn or Note
	On, Database, Object string   // On: old, new, or a cluster's name
	Says, Fix            string   // Fix: the statement or command that fixes it, "" where there is none
	Objects              []string // those that accept: may name; several where one finding is about them all
	Grid                 *Grid    // what it shows as rows; nil where it has none
	Accepted             bool     // the runbook accepts it
	Acceptable           bool     // false: accepting it would break the running application or lose rows
}

// Grid is rows of text under a head.
type Grid struct {
	Columns []string   `json:"columns"`
	Rows    [][]string `json:"rows"`
}

// Blocks reports whether the finding blocks the upgrade.
func (f Finding) Blocks() bool { return f.Level == Block && !f.Accepted }

type findingLine struct {
	kind
	ID         string   `json:"id"`
	Level      string   `json:"level"`
	On         *string  `json:"on"`
	Database   *string  `json:"database"`
	Object     *string  `json:"object"`
	Objects    []string `json:"objects"`
	Says       string   `json:"says"`
	Fix        *string  `json:"fix"`
	Grid       *Grid    `json:"table"`
	Accepted   bool     `json:"accepted"`
	Acceptable bool     `json:"acceptable"`
}

func (f Finding) line() any {
	if f.Objects == nil && f.Object != "" {
		f.Objects = []string{f.Object}
	}
	return findingLine{
		kind{"finding"}, f.ID, f.Level, text(f.On), text(f.Database), text(f.Object), list(f.Objects), f.Says, text(f.Fix), f.Grid, f.Accepted, f.Acceptable,
	}
}

// Draft is a runbook that init wrote.
type Draft struct {
	File string // "": to stdout
	Text string
}

func (d Draft) line() any {
	return struct {
		kind
		File *string `json:"file"`
		Text string  `json:"text"`
	}{kind{"runbook"}, text(d.File), d.Text}
}

// Step is one step of a plan, with what it will do.
type Step struct {
	Cluster         string // the new cluster that it is about, where there are several
	Plan, ID, Title string
	Effects         []flow.Effect
	Forecast        time.Duration // 0: not known
	Actual          time.Duration // what it took when it ran; 0: it has not
	Commit          bool          // it is the point of no return
	// Needs are the steps after the point of no return without which this one is not
	// tried; all others there are tried whatever became of the rest. NeedsAll: these
	// are all of them.
	Needs    []string
	NeedsAll bool
}

// After says what a step needs, for a person; "" where it needs nothing.
func (s Step) After() string {
	switch {
	case s.Commit:
		return "the point of no return: each step after it is tried, whatever becomes of the others"
	case s.NeedsAll:
		return "only when every step after the point of no return has succeeded"
	case len(s.Needs) > 0:
		return "only after " + strings.Join(s.Needs, ", ")
	}
	return ""
}

type stepLine struct {
	kind
	Cluster  string       `json:"cluster,omitempty"`
	Plan     string       `json:"plan"`
	ID       string       `json:"id"`
	Title    string       `json:"title"`
	Effects  []effectLine `json:"effects"`
	Forecast *float64     `json:"forecast_seconds"`
	Actual   *float64     `json:"actual_seconds"`
	Needs    []string     `json:"needs,omitempty"`
}

// effectLine has one of sql, run and request.
type effectLine struct {
	On       string   `json:"on"`
	Database *string  `json:"database"` // null: a program, a request, or the server's own database
	SQL      string   `json:"sql,omitempty"`
	Run      []string `json:"run,omitempty"`
	Request  string   `json:"request,omitempty"`
}

func (s Step) line() any {
	effects := each(s.Effects, func(e flow.Effect) effectLine {
		return effectLine{e.On, text(e.Database), e.SQL, e.Run, e.Request}
	})
	return stepLine{kind{"step"}, s.Cluster, s.Plan, s.ID, s.Title, list(effects), seconds(s.Forecast), seconds(s.Actual), s.Needs}
}

// Event is what happened to one step in a run.
type Event struct {
	At         time.Time
	Cluster    string // the new cluster that it is about, where there are several
	Plan, Step string
	Kind       flow.Kind // begin, end, skip, fail, undone
	Error      string
	Took       time.Duration // of end, fail and undone
}

// EventOf is e as an event, and false where e only shows how a step goes on
// (progress, note): those are for a person who watches, not for a script.
func EventOf(e flow.Event) (Event, bool) {
	out := Event{At: e.At, Cluster: e.Cluster, Plan: e.Plan, Step: e.Step, Kind: e.Kind, Took: e.Took}
	if e.Err != nil {
		out.Error = e.Err.Error()
	}
	switch e.Kind {
	case flow.Begin, flow.End, flow.Skip, flow.Fail, flow.Undone:
		return out, true
	}
	return out, false
}

type eventLine struct {
	kind
	At      stamp     `json:"at"`
	Cluster string    `json:"cluster,omitempty"`
	Plan    string    `json:"plan"`
	Step    string    `json:"step"`
	Kind    flow.Kind `json:"kind"`
	Error   *string   `json:"error"`
	Seconds *float64  `json:"seconds"`
}

func (e Event) line() any {
	l := eventLine{kind{"event"}, stamp(e.At), e.Cluster, e.Plan, e.Step, e.Kind, text(e.Error), nil}
	switch e.Kind {
	case flow.End, flow.Fail, flow.Undone:
		l.Seconds = new(e.Took.Seconds())
	}
	return l
}

// Table is what verification says of one table.
type Table struct {
	Cluster         string // where there are several new ones
	Database, Table string
	Rows            *int64   // nil: not compared
	Equal           *bool    // nil: not compared, or not settled
	LSN             *pg.LSN  // where it was proven equal
	Ranges          *int     // in how many parts it was compared
	Differing       []string // nil: not compared
	Skipped         string   // what was not compared, and why
}

type tableLine struct {
	kind
	Cluster   string   `json:"cluster,omitempty"`
	Database  string   `json:"database"`
	Table     string   `json:"table"`
	Rows      *int64   `json:"rows"`
	Equal     *bool    `json:"equal"`
	LSN       *string  `json:"lsn"`
	Ranges    *int     `json:"ranges"`
	Differing []string `json:"differing"`
	Skipped   *string  `json:"skipped"`
}

func (t Table) line() any {
	return tableLine{kind{"table"}, t.Cluster, t.Database, t.Table, t.Rows, t.Equal, lsnText(t.LSN), t.Ranges, t.Differing, text(t.Skipped)}
}

// Left is what finish and abort have left on the servers, as they prove it.
type Left struct {
	Says []string // one sentence for each server
	Lift []string // the statements that would lift what stays
}

type leftLine struct {
	kind
	Says []string `json:"says"`
	Lift []string `json:"lift"`
}

func (l Left) line() any { return leftLine{kind{"left"}, list(l.Says), list(l.Lift)} }

// Error is the last line of a command that failed.
type Error struct {
	Exit                             int
	Says, On, Object, SQLState, Hint string
}

type errorLine struct {
	kind
	Exit     int     `json:"exit"`
	Says     string  `json:"says"`
	On       *string `json:"on"`
	Object   *string `json:"object"`
	SQLState *string `json:"sqlstate"`
	Hint     *string `json:"hint"`
}

func (e Error) line() any {
	return errorLine{kind{"error"}, e.Exit, e.Says, text(e.On), text(e.Object), text(e.SQLState), text(e.Hint)}
}
