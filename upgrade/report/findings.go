package report

import (
	"io"
	"slices"
	"strings"
)

const (
	alikeShown   = 5   // like findings in a row that are still shown one by one
	alikeFirst   = 2   // of more than these, how many are shown in full
	rowsShown    = 10  // of a finding about several objects
	objectsShown = 10  // and how many of the others are named
	textWidth    = 100 // of what a person reads; SQL is never broken
)

// Findings writes what check found for a person who is woken up by it: what
// blocks first, each with its reason and what fixes it, and a last line that
// counts them. Of more than five findings that differ in their object alone two
// are shown, unless full.
func Findings(w io.Writer, all []Finding, full bool) error {
	p := newPage(w)
	if len(all) == 0 {
		p.printf("no findings: nothing blocks the upgrade\n")
		return p.err
	}
	groups := []struct {
		head string
		is   func(Finding) bool
		has  []Finding
	}{
		{head: "blocking", is: func(f Finding) bool { return f.Blocks() }},
		{head: "warnings", is: func(f Finding) bool { return f.Level == Warn && !f.Accepted }},
		{head: "notes", is: func(f Finding) bool { return f.Level == Note && !f.Accepted }},
		{head: "accepted by the runbook", is: func(f Finding) bool { return f.Accepted }},
	}
	for i := range groups {
		g := &groups[i]
		for _, f := range all {
			if g.is(f) {
				g.has = append(g.has, f)
			}
		}
		if len(g.has) == 0 {
			continue
		}
		p.printf("--- %s: %d ---\n\n", g.head, len(g.has))
		findings(p, g.has, full)
	}
	p.printf("%s, %s, %s", plural(len(groups[0].has), "blocking finding"), plural(len(groups[1].has), "warning"), plural(len(groups[2].has), "note"))
	if n := len(groups[3].has); n > 0 {
		p.printf(", %d accepted by the runbook", n)
	}
	p.printf("\n")
	return p.err
}

func findings(p *page, all []Finding, full bool) {
	for len(all) > 0 {
		n := 1
		for n < len(all) && alike(all[0], all[n]) {
			n++
		}
		shown := n
		if n > alikeShown && !full {
			shown = alikeFirst
		}
		for _, f := range all[:shown] {
			f.text(p, full)
		}
		if shown < n {
			more(p, all[shown:n])
		}
		all = all[n:]
	}
}

// alike says whether two findings are the same but for their object.
func alike(a, b Finding) bool {
	return a.ID == b.ID && a.Level == b.Level && a.On == b.On && a.Database == b.Database && a.Accepted == b.Accepted
}

// more names the objects of findings that are like the one above them.
func more(p *page, rest []Finding) {
	var names []string
	for _, f := range rest[:min(len(rest), objectsShown)] {
		names = append(names, f.Object)
	}
	says := strings.Join(names, ", ")
	if len(rest) > objectsShown {
		says += ", …"
	}
	p.printf("… and %s more %s (-v shows all of them):\n", Count(int64(len(rest))), rest[0].ID)
	p.wrapped("    ", says)
	p.printf("\n")
}

func (f Finding) text(p *page, full bool) {
	where := f.On
	if f.Database != "" {
		where += "/" + f.Database
	}
	level := f.Level
	if f.Blocks() {
		level = strings.ToUpper(level)
	}
	words := []string{level, f.ID, oneLine(where), oneLine(f.Object)}
	p.printf("%s", strings.Join(slices.DeleteFunc(words, func(s string) bool { return s == "" }), "  "))
	if f.Blocks() && !f.Acceptable {
		p.printf("  (cannot be accepted)")
	}
	p.printf("\n")
	p.wrapped("    ", f.Says)
	if f.Grid != nil {
		rows := [][]string{slices.Clone(f.Grid.Columns)}
		shown := f.Grid.Rows
		if len(shown) > rowsShown && len(f.Objects) > 1 && !full {
			shown = shown[:rowsShown]
		}
		for _, r := range shown {
			rows = append(rows, slices.Clone(r))
		}
		for i := range rows {
			for j := range rows[i] {
				rows[i][j] = oneLine(rows[i][j])
			}
			rows[i][0] = "      " + rows[i][0]
		}
		p.printf("\n")
		p.table(rows)
		if n := len(f.Grid.Rows) - len(shown); n > 0 {
			p.printf("      … and %s more (-v shows all of them)\n", Count(int64(n)))
		}
		if f.Fix != "" {
			p.printf("\n")
		}
	}
	if f.Fix != "" {
		p.printf("    fix:\n")
		statements, hidden := 0, 0
		for line := range strings.Lines(f.Fix) {
			if strings.HasSuffix(strings.TrimRight(line, "\r\n"), ";") {
				if statements++; statements > rowsShown && len(f.Objects) > rowsShown && !full {
					hidden++
					continue
				}
			}
			if line = strings.TrimRight(line, "\r\n"); strings.HasSuffix(line, ";") {
				p.printf("      %s\n", line)
			} else {
				p.wrapped("      ", line)
			}
		}
		if hidden > 0 {
			p.printf("      … and %s more statements (-v shows all of them)\n", Count(int64(hidden)))
		}
	}
	p.printf("\n")
}
