package survey

import (
	"slices"
	"testing"

	"crossfade/cutover"
	"crossfade/schema"
	"crossfade/upgrade/report"
	"crossfade/upgrade/runbook"
)

// TestPhase: the rows of crossfade.upgrade alone say in which phase an upgrade is, and
// whose tables are the truth.
func TestPhase(t *testing.T) {
	t.Parallel()
	zero := func(s cutover.State) cutover.Decision { return cutover.Decision{State: s} }
	row := func(n int, d cutover.Direction, s cutover.State) cutover.Decision {
		return cutover.Decision{Attempt: n, Direction: d, State: s}
	}
	closed := true
	for name, c := range map[string]struct {
		rows     []cutover.Decision
		fenceOld *bool
		phase    report.Phase
		serving  string
		attempt  int
	}{
		"nothing was done":            {phase: report.PhaseNew, serving: "old"},
		"finish has left the fence":   {fenceOld: &closed, phase: report.PhaseFinished, serving: "old"},
		"prepare was begun":           {rows: []cutover.Decision{zero("preparing")}, phase: report.PhasePreparing, serving: "old"},
		"prepare has ended":           {rows: []cutover.Decision{zero(cutover.Ready)}, phase: report.PhaseReady, serving: "old"},
		"a cutover is armed":          {rows: []cutover.Decision{zero(cutover.Ready), row(1, cutover.Forward, cutover.Armed)}, phase: report.PhaseCutover, serving: "old", attempt: 1},
		"old is closed, new not open": {rows: []cutover.Decision{zero(cutover.Ready), row(1, cutover.Forward, cutover.Closed)}, phase: report.PhaseCutover, serving: "old", attempt: 1},
		"a cutover was undone":        {rows: []cutover.Decision{zero(cutover.Ready), row(1, cutover.Forward, cutover.Void)}, phase: report.PhaseReady, serving: "old", attempt: 1},
		"a rehearsal was cut off":     {rows: []cutover.Decision{zero(cutover.Ready), row(1, cutover.Forward, cutover.Rehearsing)}, phase: report.PhaseReady, serving: "old", attempt: 1},
		"new is open":                 {rows: []cutover.Decision{zero(cutover.Ready), row(1, cutover.Forward, cutover.Open)}, phase: report.PhaseOpen, serving: "new", attempt: 1},
		"new is closed, old not open": {rows: []cutover.Decision{zero(cutover.Ready), row(1, cutover.Forward, cutover.Open), row(2, cutover.Back, cutover.Closed)}, phase: report.PhaseCutover, serving: "new", attempt: 2},
		"a rollback was undone":       {rows: []cutover.Decision{zero(cutover.Ready), row(1, cutover.Forward, cutover.Open), row(2, cutover.Back, cutover.Void)}, phase: report.PhaseOpen, serving: "new", attempt: 2},
		"rolled back":                 {rows: []cutover.Decision{zero(cutover.Ready), row(1, cutover.Forward, cutover.Open), row(2, cutover.Back, cutover.Open)}, phase: report.PhaseRolledBack, serving: "old", attempt: 2},
	} {
		s := &Survey{Old: cutover.Side{Name: "old"}, New: cutover.Side{Name: "new"}, decisions: c.rows, FenceOld: c.fenceOld}
		if got := s.decide(); got != c.phase {
			t.Errorf("%s: phase %s, want %s", name, got, c.phase)
		}
		if got := s.Serving().Name; got != c.serving {
			t.Errorf("%s: %s serves, want %s", name, got, c.serving)
		}
		if s.Applying().Name == s.Serving().Name {
			t.Errorf("%s: one side serves and applies", name)
		}
		if got := s.Attempt(); got != c.attempt {
			t.Errorf("%s: attempt %d, want %d", name, got, c.attempt)
		}
	}
}

// TestKeep: a table stays in the set that it was published with, whatever the runbook
// says by now; what is in no publication is a set of its own, under a name that no
// part has taken.
func TestKeep(t *testing.T) {
	t.Parallel()
	table := func(name string) schema.Table { return schema.Table{Schema: "public", Name: name} }
	named := func(name string) runbook.TableName { return runbook.TableName{Schema: "public", Name: name} }
	db := &Database{Sets: []schema.Set{{Name: "orders", Tables: []schema.Table{table("a"), table("b")}}, {Name: "rest", Tables: []schema.Table{table("c"), table("d")}}}}
	published := map[string][]runbook.TableName{"orders": {named("a")}, "rest": {named("b"), named("c")}}
	db.keep(published, []string{"orders", "rest", "later1"})
	var got []string
	for _, set := range db.Sets {
		for _, table := range set.Tables {
			got = append(got, set.Name+"/"+table.Name)
		}
	}
	slices.Sort(got)
	if want := []string{"later2/d", "orders/a", "rest/b", "rest/c"}; !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
}
