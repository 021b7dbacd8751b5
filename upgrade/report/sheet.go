package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// sheet is a dry run as HTML and Markdown lay it out: what both say in the
// same words.
type sheet struct {
	DryRun
	Full    bool
	Verdict Verdict
	Tiles   []tile
	Groups  []group
	Sizes   []databaseSizes
	Figures []figureRow
	Plans   []planSheet
}

// tile is one number of the summary.
type tile struct {
	Label, Value, Sub string
	Bad               bool
}

// group are the findings of one level and ID.
type group struct {
	Level, ID string
	Accepted  bool
	Blocks    bool
	Findings  []Finding
	More      []Finding // beyond those that are shown at first
	// Fix is what fixes all of them, where it is the same; theirs are "" then.
	Fix string
}

// FixParts are the group's fix.
func (g group) FixParts() []fixPart { return Finding{Fix: g.Fix}.FixParts() }

// groupShown is how many findings of one ID are shown at first.
const groupShown = 20

type databaseSizes struct {
	Database
	Rows, Indexes string
	SetBars       []bar
	TableBars     []bar
}

// bar is a size, in hundredths of the biggest one beside it.
type bar struct {
	Label, Sub             string
	Rows, Indexes          string
	RowsWidth, IndexesWide float64
}

type figureRow struct {
	Figure
	Label, Value, Actual string
	Limit                string  // the runbook's, "" where there is none
	Share                float64 // of the limit, in hundredths, at most 100
	TermRows             []termRow
}

type termRow struct{ Name, Value, How, Says string }

type planSheet struct {
	Name, Sub string
	Steps     []stepRow
}

type stepRow struct {
	Step
	N       int
	Takes   string
	Late    bool // after the point of no return
	Effects []effectRow
}

type effectRow struct {
	Where   string
	Program bool
	Text    string
	More    string // how many more like it are not shown; "": none
}

func newSheet(d DryRun, full bool) sheet {
	s := sheet{DryRun: d, Full: full, Verdict: d.Verdict(), Groups: groups(d.Findings)}
	s.Tiles = d.tiles()
	for _, db := range d.Databases {
		s.Sizes = append(s.Sizes, db.sizes())
	}
	for _, f := range d.Figures {
		s.Figures = append(s.Figures, f.row())
	}
	slices.SortStableFunc(s.Figures, func(a, b figureRow) int { return cmp.Compare(weight(a.ID), weight(b.ID)) })
	for _, p := range d.Plans {
		s.Plans = append(s.Plans, p.sheet(full))
	}
	return s
}

// weights is the order in which figures are read: what clients feel first.
var weights = []string{"outage", "prepare", "wal-kept", "catch-up", "copy", "indexes", "verify", "standby", "copy-rate", "wal-rate"}

func weight(id string) int {
	if i := slices.Index(weights, id); i >= 0 {
		return i
	}
	return len(weights)
}

// groups sorts findings: what blocks first, what the runbook accepts last.
func groups(all []Finding) []group {
	var out []group
	for _, f := range all {
		i := slices.IndexFunc(out, func(g group) bool { return g.ID == f.ID && g.Level == f.Level && g.Accepted == f.Accepted })
		if i < 0 {
			out = append(out, group{Level: f.Level, ID: f.ID, Accepted: f.Accepted, Blocks: f.Blocks()})
			i = len(out) - 1
		}
		g := &out[i]
		if len(g.Findings) < groupShown {
			g.Findings = append(g.Findings, f)
		} else {
			g.More = append(g.More, f)
		}
	}
	for i := range out {
		out[i].share()
	}
	rank := func(g group) int {
		r := slices.Index([]string{Block, Warn, Note}, g.Level)
		if g.Accepted {
			r += 10
		}
		return r
	}
	slices.SortStableFunc(out, func(a, b group) int { return cmp.Compare(rank(a), rank(b)) })
	return out
}

// share says a fix once that is the same for all.
func (g *group) share() {
	all := slices.Concat(g.Findings, g.More)
	if len(all) < 2 || slices.ContainsFunc(all, func(f Finding) bool { return f.Fix != all[0].Fix }) {
		return
	}
	g.Fix = all[0].Fix
	for i := range g.Findings {
		g.Findings[i].Fix = ""
	}
	for i := range g.More {
		g.More[i].Fix = ""
	}
}

// Count is how many findings the group has.
func (g group) Count() int { return len(g.Findings) + len(g.More) }

// Word is the group's level as it weighs.
func (g group) Word() string {
	switch {
	case g.Accepted:
		return "accepted"
	case g.Blocks:
		return "blocks"
	}
	return g.Level
}

// Where is the server, the database and the object of a finding.
func (f Finding) Where() string {
	where := f.On
	if f.Database != "" {
		where += "/" + f.Database
	}
	if f.Object != "" {
		where += " · " + f.Object
	}
	return where
}

// tiles are the numbers that a summary needs.
func (d DryRun) tiles() []tile {
	var rows, indexes int64
	tables := 0
	for _, db := range d.Databases {
		r, i := db.bytes()
		rows, indexes = rows+r, indexes+i
		for _, s := range db.Sets {
			tables += s.Tables
		}
	}
	tiles := []tile{{
		Label: "to copy", Value: Size(rows),
		Sub: fmt.Sprintf("%s, %s of indexes, %s", plural(tables, "table"), Size(indexes), plural(len(d.Databases), "database")),
	}}
	add := func(id, label, sub string) {
		if f := d.figure(id, ""); f != nil {
			tiles = append(tiles, tile{Label: label, Value: f.value(), Sub: sub, Bad: f.Exceeds})
		}
	}
	add("prepare", "prepare", "while old serves")
	if f := d.figure("outage", ""); f != nil {
		add("outage", "writers wait", "of at most "+limitOf(*f, "max_blocked"))
	}
	if f := d.figure("wal-kept", ""); f != nil {
		add("wal-kept", "WAL kept on old", "at its peak, of at most "+limitOf(*f, "catchup.max_wal"))
	}
	never, longest := false, tile{Label: "catch up", Value: "", Sub: "after the copy"}
	most := -1.0
	for _, f := range d.Figures {
		if f.ID != "catch-up" {
			continue
		}
		never = never || f.Never
		if f.Value != nil && *f.Value > most {
			most, longest.Value = *f.Value, f.value()
		}
	}
	if never {
		longest.Value, longest.Bad = "never", true
	}
	if longest.Value != "" {
		tiles = append(tiles, longest)
	}
	return tiles
}

// limitOf is a term of f as text.
func limitOf(f Figure, name string) string {
	for _, t := range f.Terms {
		if t.Name == name {
			return amount(t.Value, t.Unit)
		}
	}
	return unknown
}

// limits are the terms that a figure must stay below.
var limits = map[string]string{"outage": "max_blocked", "wal-kept": "catchup.max_wal"}

func (f Figure) row() figureRow {
	r := figureRow{Figure: f, Label: f.Label(), Value: f.value()}
	if f.Actual != nil {
		r.Actual = amount(*f.Actual, f.Unit)
	}
	for _, t := range f.Terms {
		r.TermRows = append(r.TermRows, termRow{t.Name, amount(t.Value, t.Unit), t.How, t.Says})
		if t.Name == limits[f.ID] && t.Value > 0 && f.Value != nil {
			r.Limit, r.Share = amount(t.Value, t.Unit), min(100, 100**f.Value/t.Value)
		}
	}
	return r
}

func (d Database) sizes() databaseSizes {
	rows, indexes := d.bytes()
	s := databaseSizes{Database: d, Rows: Size(rows), Indexes: Size(indexes)}
	var most int64 = 1
	for _, set := range d.Sets {
		most = max(most, set.Bytes+set.IndexBytes)
	}
	for _, set := range d.Sets {
		s.SetBars = append(s.SetBars, sizeBar(set.Name, plural(set.Tables, "table"), set.Bytes, set.IndexBytes, most))
	}
	most = 1
	for _, t := range d.Biggest {
		most = max(most, t.Bytes+t.IndexBytes)
	}
	for _, t := range d.Biggest {
		if t.Bytes+t.IndexBytes == 0 {
			continue
		}
		count := ""
		if t.Rows >= 0 {
			count = "about " + plural64(t.Rows, "row")
		}
		s.TableBars = append(s.TableBars, sizeBar(t.Name, count, t.Bytes, t.IndexBytes, most))
	}
	return s
}

func sizeBar(label, sub string, rows, indexes, most int64) bar {
	return bar{
		Label: label, Sub: sub, Rows: Size(rows), Indexes: Size(indexes),
		RowsWidth: 100 * float64(rows) / float64(most), IndexesWide: 100 * float64(indexes) / float64(most),
	}
}

func (p Plan) sheet(full bool) planSheet {
	s := planSheet{Name: p.Name, Sub: plural(len(p.Steps), "step")}
	if about := p.about(); about != "" {
		s.Sub += ", " + about
	}
	if p.AllOrNothing {
		s.Sub += "; all or nothing up to its point of no return"
	}
	late := false
	for i, st := range p.Steps {
		row := stepRow{Step: st, N: i + 1, Takes: st.takes(), Late: late}
		late = late || st.Commit
		before := ""
		for _, e := range fold(st.Effects, full) {
			one := effectRow{Where: where(e.Effect), Program: len(e.Run) > 0, Text: strings.TrimSpace(e.SQL)}
			if one.Program {
				one.Text = argv(e.Run)
			} else if e.Request != "" {
				one.Text = e.Request
			}
			if e.more > 0 {
				one.More = Count(int64(e.more))
				if !one.Program {
					one.Text = first(e.Effect)
				}
			}
			if here := one.Where; here == before && !one.Program {
				one.Where = "" // as the one above it
			} else {
				before = here
			}
			row.Effects = append(row.Effects, one)
		}
		row.Step.Effects = nil
		s.Steps = append(s.Steps, row)
	}
	return s
}
