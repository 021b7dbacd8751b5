package report

import (
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strings"

	"crossfade/upgrade/flow"
)

func plural(n int, what string) string { return plural64(int64(n), what) }

// likeShown is how many like effects of a step are still shown one by one.
const likeShown = 20

// PlanText writes p for a person: every step with the very SQL and programs.
// More than 20 like effects of a step become one line with a count, where the
// first of them stands, unless full.
func PlanText(w io.Writer, plan Plan, full bool) error {
	p := newPage(w)
	if plan.Cluster != "" {
		p.printf("cluster %s, ", plan.Cluster)
	}
	p.printf("plan %s: %s%s", plan.Name, plural(len(plan.Steps), "step"), parted(", ", plan.about()))
	if plan.AllOrNothing {
		p.printf("; all or nothing up to its point of no return")
	}
	p.printf("\n")
	for i, s := range plan.Steps {
		p.printf("\n%3d. %s  %s", i+1, oneLine(s.ID), oneLine(s.Title))
		if takes := s.takes(); takes != "" {
			p.printf("  (%s)", takes)
		}
		if after := s.After(); after != "" {
			p.printf("  ** %s **", after)
		}
		p.printf("\n")
		effects(p, s.Effects, full)
	}
	p.printf("\n")
	return p.err
}

func effects(p *page, does []flow.Effect, full bool) {
	for _, e := range fold(does, full) {
		if e.more > 0 {
			p.printf("       %s  %s\n       … and %s more like it\n", where(e.Effect), first(e.Effect), Count(int64(e.more)))
			continue
		}
		effect(p, e.Effect)
	}
}

// folded is one effect, or the first of many that do the same to other objects.
type folded struct {
	flow.Effect
	more int // like ones that are not shown
}

// fold leaves out what a step does over and over: like effects in a row, then
// like ones that come with others, because a step takes one object after the
// other with a few statements each. Long lists of names are cut, too.
func fold(does []flow.Effect, full bool) []folded {
	if full {
		all := make([]folded, len(does))
		for i, e := range does {
			all[i].Effect = e
		}
		return all
	}
	keys := make([]string, len(does))
	for i, e := range does {
		keys[i] = like(e)
	}
	type run struct{ at, n int }
	var runs []run
	count := map[string]int{} // of those in short runs
	for i := 0; i < len(does); {
		n := 1
		for i+n < len(does) && keys[i+n] == keys[i] {
			n++
		}
		runs = append(runs, run{i, n})
		if n <= likeShown {
			count[keys[i]] += n
		}
		i += n
	}
	var shown []folded
	show := func(e flow.Effect, more int) {
		e.SQL = cutLists(e.SQL)
		shown = append(shown, folded{e, more})
	}
	for _, r := range runs {
		switch all := count[keys[r.at]]; {
		case r.n > likeShown:
			show(does[r.at], r.n-1)
		case all > likeShown: // the others come later
			show(does[r.at], all-1)
			count[keys[r.at]] = -1
		case all > 0:
			for _, e := range does[r.at : r.at+r.n] {
				show(e, 0)
			}
		}
	}
	return shown
}

var (
	listed   = regexp.MustCompile(`(?:ONLY )?"(?:[^"]|"")*"(?:\."(?:[^"]|"")*")?`)
	longList = regexp.MustCompile(listed.String() + `(?:, ` + listed.String() + `){20,}`)
)

// listShown is how many names of a list that is cut are shown.
const listShown = 3

// cutLists shortens lists of more than 20 quoted names inside a statement.
func cutLists(sql string) string {
	if strings.Count(sql, ", ") < likeShown {
		return sql
	}
	return longList.ReplaceAllStringFunc(sql, func(list string) string {
		names := listed.FindAllString(list, -1)
		return fmt.Sprintf("%s, … and %s more", strings.Join(names[:listShown], ", "), Count(int64(len(names)-listShown)))
	})
}

func effect(p *page, e flow.Effect) {
	if len(e.Run) > 0 {
		p.printf("       %s  $ %s\n", where(e), argv(e.Run))
		return
	}
	if e.Request != "" {
		p.printf("       %s  %s\n", where(e), e.Request)
		return
	}
	lines := strings.Split(strings.TrimSpace(e.SQL), "\n")
	p.printf("       %s  %s\n", where(e), lines[0])
	indent := strings.Repeat(" ", 9+len(where(e)))
	for _, l := range lines[1:] {
		p.printf("%s%s\n", indent, strings.TrimRight(l, " \r"))
	}
}

// gist is the statement without the tool's own mark in front of it, that it
// was executed: what an entry of the schema does is the entry.
func gist(sql string) string {
	if mark, rest, ok := strings.Cut(sql, ";\n"); ok && strings.HasPrefix(mark, "INSERT INTO crossfade.ledger ") {
		return rest
	}
	return sql
}

// first is an effect in one line.
func first(e flow.Effect) string {
	s := oneLine(gist(e.SQL))
	if len(e.Run) > 0 {
		s = "$ " + argv(e.Run)
	} else if e.Request != "" {
		s = e.Request
	}
	if r := []rune(s); len(r) > 120 {
		return string(r[:117]) + "…"
	}
	return s
}

func where(e flow.Effect) string {
	if e.Database == "" {
		return e.On
	}
	return e.On + "/" + e.Database
}

// like is what two effects have in common that do the same to two objects: the
// place and the words of the statement before its first name, or the program.
func like(e flow.Effect) string {
	what := ""
	if len(e.Run) > 0 {
		what = "$ " + filepath.Base(e.Run[0])
	} else if e.Request != "" {
		what, _, _ = strings.Cut(e.Request, "{")
	} else {
		n := 0
		for word := range strings.FieldsSeq(gist(e.SQL)) {
			if n == 6 || !upper(word) {
				break
			}
			n++
			what += word + " "
		}
	}
	return where(e) + " " + what
}

// upper reports whether w is a keyword as the tool writes them.
func upper(w string) bool {
	return strings.Trim(w, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// argv is a program with its arguments, quoted so that a shell would read it
// as it is run.
func argv(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		if a == "" || strings.ContainsFunc(a, needsQuotes) {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		quoted[i] = a
	}
	return strings.Join(quoted, " ")
}

func needsQuotes(r rune) bool {
	return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=:,./@%^", r)
}

// Text writes one table of a verification for a person, in one line, and the
// ranges that differ below it.
func (t Table) Text(w io.Writer) error {
	p := newPage(w)
	name := t.Database + " " + t.Table
	rows, rest := "", ""
	if t.Skipped != "" {
		rest = "; not compared: " + t.Skipped
	}
	if t.Rows != nil {
		rows = ", " + plural64(*t.Rows, "row")
	}
	at := ""
	if t.LSN != nil {
		at = " at " + t.LSN.String()
	}
	switch {
	case t.Rows == nil:
		p.printf("skipped    %s: %s\n", name, orUnknown(t.Skipped))
	case t.Equal == nil:
		p.printf("not known  %s%s%s\n", name, rows, rest)
	case *t.Equal:
		p.printf("equal      %s%s%s%s\n", name, rows, at, rest)
	default:
		p.printf("DIFFERENT  %s%s%s\n", name, rows, rest)
		for _, d := range t.Differing {
			p.indented("    ", d)
		}
	}
	return p.err
}

func plural64(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return Count(n) + " " + what + "s"
}

// Text writes what was left for a person.
func (l Left) Text(w io.Writer) error {
	p := newPage(w)
	for _, s := range l.Says {
		p.printf("%s\n", s)
	}
	if len(l.Lift) > 0 {
		p.printf("\nto reopen old for writes, run:\n")
		for _, s := range l.Lift {
			p.indented("    ", s)
		}
	}
	return p.err
}
