package cutover

import (
	"slices"
	"strings"
	"testing"

	"crossfade/upgrade/flow"
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
