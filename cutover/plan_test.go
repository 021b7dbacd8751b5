package cutover

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/cutover/traffic"
	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
)

func ids(c *Crossing) []string {
	var out []string
	for _, s := range c.Plan.Steps {
		out = append(out, s.ID)
	}
	return out
}

// someConfig is a crossing of one database with something of the upgrade's at each
// place that it has.
func someConfig(t *testing.T, back bool) Config {
	t.Helper()
	side := func(name string) Side {
		server, err := pg.Parse(name, "host=127.0.0.1 port=1 dbname=postgres", "")
		if err != nil {
			t.Fatal(err)
		}
		return Side{Name: name, Server: server}
	}
	step := func(id string) []flow.Step { return []flow.Step{{ID: id}} }
	return Config{
		Direction: Forward, Closing: side("old"), Opening: side("new"), Home: "shop", Databases: []Database{{Name: "shop"}}, Back: back,
		Ahead: step("refresh/ahead"), Before: step("hook/before"), After: step("hook/after"),
	}
}

// TestOrder: a crossing runs in this order, whichever way it is begun or gone on
// with, and each plan takes the part of it that is its own.
func TestOrder(t *testing.T) {
	whole := []string{
		"refresh/ahead", "arm", "hook/before", "gate", "traffic/prepare", "back/make", "traffic/pause", "barrier", "canary", "drain", "sequences", "forward/stop", "back/prove",
		"durable", "close", "close/kept", "open", "traffic/point", "traffic/resume", "read-only", "back/follow", "forward/drop", "disarm", "hook/after", "done",
	}
	without := func(steps []string, some ...string) []string {
		return slices.DeleteFunc(slices.Clone(steps), func(s string) bool { return slices.Contains(some, s) })
	}
	afterOpen := whole[slices.Index(whole, "open"):]
	stopped := someConfig(t, true)
	stopped.Stopped = true
	for _, c := range []struct {
		name string
		got  []string
		want []string
	}{
		{"the whole", ids(New(someConfig(t, true))), whole},
		{"no way back", ids(New(someConfig(t, false))), without(whole, "back/make", "back/prove")},
		{"links were stopped", ids(New(stopped)), slices.Insert(slices.Clone(whole), 3, "forward/again")},
		{"found open", ids(Forwards(someConfig(t, true), Decision{})), append([]string{"sequences/again"}, afterOpen...)},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s:\n got %s\nwant %s", c.name, strings.Join(c.got, " "), strings.Join(c.want, " "))
		}
	}

	// What was found closed is looked at again, and the rest of it is there to be undone.
	resumed := ids(Resume(someConfig(t, true), Decision{}))
	again := slices.Index(resumed, "closed/again")
	if again < 0 || !slices.Equal(resumed[again:], append([]string{"closed/again", "durable", "close/kept"}, afterOpen...)) {
		t.Errorf("found closed: %s", strings.Join(resumed, " "))
	}
	for _, id := range []string{"arm", "back/make", "barrier", "forward/stop", "close"} {
		if i := slices.Index(resumed, id); i < 0 || i > again {
			t.Errorf("found closed, and %s cannot be undone: %s", id, strings.Join(resumed, " "))
		}
	}

	// A rehearsal takes the reversible steps, and undoes them in the other order.
	rehearsed := ids(Rehearse(someConfig(t, true), true))
	if want := whole[slices.Index(whole, "gate") : slices.Index(whole, "back/prove")+1]; !slices.Equal(rehearsed[1:len(want)+1], want) || rehearsed[0] != "arm" {
		t.Errorf("rehearsed: %s", strings.Join(rehearsed, " "))
	}
	if slices.ContainsFunc(rehearsed, func(s string) bool {
		return slices.Contains([]string{"close", "open", "hook/before", "hook/after", "refresh/ahead"}, s)
	}) {
		t.Errorf("a rehearsal closes, opens or runs hooks: %s", strings.Join(rehearsed, " "))
	}
	if !slices.Equal(rehearsed[len(rehearsed)-2:len(rehearsed)-1], []string{"undo/arm"}) {
		t.Errorf("what is undone last: %s", strings.Join(rehearsed, " "))
	}
}

// TestAfterOpenNeedsNothing: after open each step is tried whatever became of the
// others, but for those that the plan says; the last needs all.
func TestAfterOpenNeedsNothing(t *testing.T) {
	steps := New(someConfig(t, true)).Plan.Steps
	open := slices.IndexFunc(steps, func(s flow.Step) bool { return s.ID == "open" })
	if !steps[open].Commit {
		t.Error("open is not the point of no return")
	}
	for _, s := range steps[open+1 : len(steps)-1] {
		if slices.Contains(s.Needs, "done") || slices.Contains(s.Needs, "hook/after") {
			t.Errorf("%s needs %v", s.ID, s.Needs)
		}
	}
	if last := steps[len(steps)-1]; last.ID != "done" || len(last.Needs) != len(steps)-open-2 {
		t.Errorf("%s needs %v", last.ID, last.Needs)
	}
}

// fullConfig is someConfig with a table, a sequence, a set and a pooler, so that every step has something to do.
func fullConfig(t *testing.T) Config {
	c := someConfig(t, true)
	c.Closing.Version, c.Opening.Version = 150000, 180000
	c.Closing.Server.App, c.Opening.Server.App = "crossfade", "crossfade"
	old := link.End{Side: "old", Server: c.Closing.Server.With("shop"), Version: c.Closing.Version}
	fresh := link.End{Side: "new", Server: c.Opening.Server.With("shop"), Version: c.Opening.Version}
	orders := schema.Table{Schema: "public", Name: "orders"}
	one := link.Link{Name: "cf_up_shop_main", Database: "shop", Set: "main", Forward: true, From: old, To: fresh, Conninfo: "host=old", Tables: []schema.Table{orders}}
	back := one
	back.Name, back.Forward, back.From, back.To, back.Conninfo = "cb_up_shop_main", false, fresh, old, "host=new"
	c.Databases = []Database{{
		Name: "shop", Tables: []schema.Table{orders}, Sequences: 1, Links: []link.Link{one}, Way: []link.Link{back},
		Pin: link.PinSettings("crossfade", "shop", 150000), Lift: "SELECT 1", Reopen: "SELECT 2",
	}}
	console, err := pg.Parse("pgbouncer", "host=127.0.0.1 port=1", "")
	if err != nil {
		t.Fatal(err)
	}
	c.Traffic = traffic.Group{&traffic.PgBouncer{Databases: []string{"shop"}, Instances: []traffic.Instance{{Admin: console, Config: "/etc/pgbouncer.ini"}}}}
	c.Point, c.MaxBlocked = c.Opening.Server, 5*time.Second
	return c
}

// TestBlockedFromPauseToResume: the steps that block writers are those from the pause
// to the resumption and no others, each has a forecast, and all but open, which there
// is no way back from, and those after it end with the budget.
func TestBlockedFromPauseToResume(t *testing.T) {
	steps := New(fullConfig(t)).Plan.Steps
	first := slices.IndexFunc(steps, func(s flow.Step) bool { return s.ID == "traffic/pause" })
	last := slices.IndexFunc(steps, func(s flow.Step) bool { return s.ID == "traffic/resume" })
	for i, s := range steps {
		if want := first <= i && i <= last; s.Blocks != want {
			t.Errorf("%s blocks writers: %t, and it stands where that is %t", s.ID, s.Blocks, want)
		}
		if s.Blocks && s.Cost.Base == 0 {
			t.Errorf("%s blocks writers and has no forecast: flow.Step.Cost", s.ID)
		}
		if s.Blocks && s.Late {
			t.Errorf("%s blocks writers and can wait for another run", s.ID)
		}
	}
}

// harmless are the effects that leave nothing to be undone: rows of the tool's own,
// values that are set again at every try, locks that go with a transaction, reloads.
var harmless = regexp.MustCompile(`^(` + strings.Join([]string{
	`UPDATE "crossfade"\."canary_main" SET n = \$canary`,
	`SELECT count\(setval\(`,
	`BEGIN; LOCK TABLE .* IN ACCESS SHARE MODE NOWAIT; COMMIT$`,
	`SET statement_timeout = '500ms'$|RESET statement_timeout$|SELECT pg_log_standby_snapshot\(\)$`,
	`SELECT pg_drop_replication_slot\(slot_name\) FROM pg_create_logical_replication_slot\('crossfade_follow', 'pgoutput', true\)$`,
}, "|") + `)`)

// TestReversible: what happens before open can be undone. A step that changes
// anything has an undo, which says what it does where a rehearsal shows it.
func TestReversible(t *testing.T) {
	steps := New(fullConfig(t)).Plan.Steps
	open := slices.IndexFunc(steps, func(s flow.Step) bool { return s.ID == "open" })
	seen := 0
	for _, s := range append(slices.Clone(steps[:open]), Rehearse(fullConfig(t), false).Plan.Steps...) {
		if s.Undo != nil || strings.HasPrefix(s.ID, "undo/") {
			continue
		}
		for _, e := range s.Does {
			seen++
			if !harmless.MatchString(e.SQL) {
				t.Errorf("%s has no undo, and does %s%v", s.ID, e.SQL, e.Run)
			}
		}
	}
	if seen < 5 {
		t.Errorf("only %d effects were looked at: the test proves nothing", seen)
	}
	for _, s := range steps[open:] {
		if s.Undo != nil {
			t.Errorf("%s can be undone, and stands after the point of no return", s.ID)
		}
	}
	for _, s := range Rehearse(fullConfig(t), true).Plan.Steps {
		if s.Undo != nil && len(s.Undoes) == 0 {
			t.Errorf("%s is rehearsed and does not say what its undo does: flow.Step.Undoes", s.ID)
		}
	}
}

// TestRehearsalUndoes: what gives service back comes first, newest first, and then
// the rest; with --with-traffic alone the traffic is among it.
func TestRehearsalUndoes(t *testing.T) {
	undone := func(c *Crossing) []string {
		return slices.DeleteFunc(ids(c), func(s string) bool { return !strings.HasPrefix(s, "undo/") })
	}
	with := Rehearse(fullConfig(t), true)
	want := []string{"undo/barrier", "undo/traffic/pause", "undo/back/prove", "undo/forward/stop", "undo/back/make", "undo/traffic/prepare", "undo/arm"}
	if got := undone(with); !slices.Equal(got, want) {
		t.Errorf("undone with traffic:\n got %v\nwant %v", got, want)
	}
	without := slices.DeleteFunc(slices.Clone(want), func(s string) bool { return s == "undo/traffic/pause" })
	if got := undone(Rehearse(fullConfig(t), false)); !slices.Equal(got, without) {
		t.Errorf("undone without traffic:\n got %v\nwant %v", got, without)
	}
	for _, s := range with.Plan.Steps {
		if optional := strings.HasSuffix(s.ID, "traffic/pause"); (s.Option == "--with-traffic") != optional {
			t.Errorf("%s has option %q", s.ID, s.Option)
		}
	}
	for _, s := range New(fullConfig(t)).Plan.Steps {
		if s.Option != "" {
			t.Errorf("%s of a cutover has option %q", s.ID, s.Option)
		}
	}
	// A try that failed begins again with the step that the plan has for it.
	for paused, from := range map[bool]string{true: "traffic/pause", false: "quiet"} {
		c := fullConfig(t)
		c.Patience = time.Hour
		r := Rehearse(c, paused)
		again, ok := errors.AsType[*flow.Again](r.x.tryAgain(t.Context(), errors.New("no lock")))
		if !ok || again.From != from || !slices.Contains(ids(r), from) {
			t.Errorf("with traffic %t a try begins again with %+v, which the plan must have", paused, again)
		}
	}
}

// TestAnew: only a crossing that begins anew is forecast.
func TestAnew(t *testing.T) {
	c := fullConfig(t)
	for name, got := range map[string]*Crossing{"found open": Forwards(c, Decision{}), "found closed": Resume(c, Decision{}), "cut off": Earlier(c, Decision{}), "a rehearsal": Rehearse(c, false)} {
		if got.Anew {
			t.Errorf("%s begins anew", name)
		}
	}
	if !New(c).Anew {
		t.Error("a new one goes on with another")
	}
}

// TestEveryStepIsItsOwn: ids are an interface, and a person reads every title.
func TestEveryStepIsItsOwn(t *testing.T) {
	for _, c := range []*Crossing{New(fullConfig(t)), Resume(fullConfig(t), Decision{}), Forwards(fullConfig(t), Decision{}), Rehearse(fullConfig(t), true)} {
		seen := map[string]bool{}
		for _, s := range c.Plan.Steps {
			own := !slices.Contains([]string{"refresh/ahead", "hook/before", "hook/after"}, s.ID) // the test's
			if own && (s.Title == "" || s.Do == nil && s.Done == nil) {
				t.Errorf("%s of %s has no title or does nothing", s.ID, c.Plan.Name)
			}
			if seen[s.ID] {
				t.Errorf("%s has two steps %s", c.Plan.Name, s.ID)
			}
			seen[s.ID] = true
			for _, need := range s.Needs {
				if !seen[need] {
					t.Errorf("%s of %s needs %s, which is no earlier step", s.ID, c.Plan.Name, need)
				}
			}
		}
	}
}
