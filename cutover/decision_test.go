package cutover

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"crossfade/upgrade/pg"

	"github.com/google/go-cmp/cmp"
)

// TestTransitions: a decision goes armed → closed → open, or void, and each write
// names the states that it takes. Nothing leaves open: that is the point of no return.
func TestTransitions(t *testing.T) {
	to := regexp.MustCompile(`SET state = '(\w+)'`)
	from := regexp.MustCompile(`AND state (?:= '(\w+)'|IN \(([^)]*)\))`)
	for _, c := range []struct{ name, sql, from, to string }{
		{"close", closeDecision, "armed", "closed"},
		{"open", openDecision, "closed", "open"},
		{"void", voidDecision, "armed closed void", "void"},
	} {
		set, when := to.FindStringSubmatch(c.sql), from.FindStringSubmatch(c.sql)
		if set == nil || when == nil {
			t.Errorf("%s: %s does not say from which state to which", c.name, c.sql)
			continue
		}
		states := when[1] + strings.NewReplacer("'", "", ",", "").Replace(when[2])
		if set[1] != c.to || states != c.from {
			t.Errorf("%s leads from %s to %s, want from %s to %s", c.name, states, set[1], c.from, c.to)
		}
		if !strings.HasSuffix(c.sql, "RETURNING attempt") || !strings.Contains(c.sql, "WHERE attempt = $attempt") {
			t.Errorf("%s does not tell whether it changed the row of its own attempt: %s", c.name, c.sql)
		}
	}
	if !strings.Contains(endRehearsal, "state = 'rehearsing'") {
		t.Errorf("the end of a rehearsal may take a decision away: %s", endRehearsal)
	}
}

// TestInsert: a row that exists stays, and nothing in it ends the literal.
func TestInsert(t *testing.T) {
	d := Decision{Attempt: 3, Upgrade: "it's", Direction: Forward, State: Armed, Memory: Memory{Made: []string{`a\b'c`}}}
	sql, err := d.Insert()
	if err != nil {
		t.Fatal(err)
	}
	want := `INSERT INTO crossfade.upgrade (attempt, upgrade, direction, state, memory) VALUES (3, 'it''s', 'forward', 'armed',  E'{"made":["a\\\\b''c"]}') ON CONFLICT (attempt) DO NOTHING`
	if sql != want {
		t.Errorf("got  %s\nwant %s", sql, want)
	}
}

// TestMemory: what a row says of an attempt is what the next process knows of it, and
// what was never read is not said: 0 large objects are some that were counted.
func TestMemory(t *testing.T) {
	c := fullConfig(t)
	c.Databases = append(c.Databases, Database{Name: "other"})
	said := Memory{
		Fence:   map[string]pg.LSN{"shop": 0x1000, "other": 0x2000},
		Origins: map[string]pg.LSN{"cf_up_shop_main": 0x900},
		Subs:    map[string]uint32{"cf_up_shop_main": 16400},
	}
	x := newCrossing(c)
	x.remember(Decision{Memory: said})
	if !x.stopped {
		t.Error("links of an attempt that another run began may be stopped")
	}
	got := x.memory()
	if diff := cmp.Diff([]any{said.Fence, said.Origins, said.Subs}, []any{got.Fence, got.Origins, got.Subs}); diff != "" {
		t.Errorf("remembered (-said +now):\n%s", diff)
	}
	if len(got.Larges) > 0 || len(got.Prints) > 0 {
		t.Errorf("what was not read: %v %v", got.Larges, got.Prints)
	}
	none := int64(0)
	x.of("shop").larges, x.of("shop").print = &none, "p"
	got = x.memory()
	if n, ok := got.Larges["shop"]; !ok || n != 0 || len(got.Larges) != 1 || got.Prints["shop"] != "p" {
		t.Errorf("what was read: %v %v", got.Larges, got.Prints)
	}
	x.forgetFences()
	if f := (&Crossing{x: x}).Result().Fence; len(f) > 0 {
		t.Errorf("fences of an attempt that was undone: %v", f)
	}
	b, err := json.Marshal(newCrossing(someConfig(t, true)).memory())
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"fence", "origins", "subs", "prints", "larges", "standbys", "wake"} {
		if strings.Contains(string(b), `"`+key+`"`) {
			t.Errorf("a row of an attempt that has just begun has %s: %s", key, b)
		}
	}
	// A database that is no part of the crossing has sessions, and is not crossed.
	if first := x.of("postgres"); x.of("postgres") != first || len(x.databases) != 2 {
		t.Error("a database that is no part of the crossing")
	}
}

// TestOwn: where tables of old go to several clusters, no object of the tool's own is
// called as that of another.
func TestOwn(t *testing.T) {
	for _, sql := range []string{
		lowered, Part("").Raised("up", NobodyEnds), Part("").Detain(), armDecision, closeDecision, openDecision, voidDecision, copyDecision, table,
		strings.Join(Part("").Guards("up"), "\n"), strings.Join(Part("").Ground("up", true), "\n"),
	} {
		own := Part("a").Own(sql)
		rest := regexp.MustCompile(`crossfade\.(upgrade|fence|refused|refuse_ddl|refuse_drop|refuse_start)_a\b|crossfade_ddl(_drop|_start)?_a\b|'fence_a'`).ReplaceAllString(own, "")
		if own == sql || regexp.MustCompile(`crossfade\.(upgrade|fence|refused|refuse_)|crossfade_ddl|'fence'`).MatchString(rest) {
			t.Errorf("an object of another part:\n%s", own)
		}
		if Part("").Own(sql) != sql {
			t.Errorf("an upgrade to one cluster calls its objects otherwise:\n%s", Part("").Own(sql))
		}
	}
}

// TestReceivers: a standby has the close when its flush is at or after it, wherever in
// the cascade; one whose position nobody knows has not.
func TestReceivers(t *testing.T) {
	at := func(n uint64) *pg.LSN { l := pg.LSN(n); return &l }
	r := receivers{"a": at(10), "b": at(9), "c following a": at(11), "d": nil}
	if got := r.missing(map[string]bool{"a": true, "b": true, "c following a": true, "d": true, "gone": true}, 10); cmp.Diff([]string{"b", "d", "gone"}, got) != "" {
		t.Errorf("without the close: %v", got)
	}
	for name, want := range map[string]bool{"a": true, "c": true, "c following": false, "e": false} {
		if r.knows(name) != want {
			t.Errorf("%s is known: %t", name, !want)
		}
	}
}

// TestFailures: a worker that fails is seen as long as errors come, not for those that
// were there before anybody looked.
func TestFailures(t *testing.T) {
	f := failures{}.look(7)
	if !f.grew.IsZero() {
		t.Error("errors of before count")
	}
	if f = f.look(7); !f.grew.IsZero() {
		t.Error("no error has come, and one counts")
	}
	if f = f.look(8); time.Since(f.grew) > time.Minute {
		t.Error("an error has come, and does not count")
	}
}

// TestForecastIsTheMedian: one rehearsal in a bad moment does not spoil the others.
func TestForecastIsTheMedian(t *testing.T) {
	of := func(seconds ...float64) (rs []Rehearsal) {
		for _, s := range seconds {
			rs = append(rs, Rehearsal{Steps: map[string]float64{"barrier": s}})
		}
		return rs
	}
	for _, c := range []struct {
		rs   []Rehearsal
		want time.Duration
	}{{of(0.1, 5, 0.2), 200 * time.Millisecond}, {of(0.1, 0.3), 200 * time.Millisecond}, {of(0.4), 400 * time.Millisecond}} {
		if got := Forecast(c.rs)["barrier"]; (got - c.want).Abs() > time.Microsecond {
			t.Errorf("%v: %s, want %s", c.rs, got, c.want)
		}
	}
	if len(Forecast(nil)) > 0 {
		t.Error("a forecast of nothing")
	}
}

// TestWindow: the next window is the one that is open, where enough of it is left;
// on the nights when clocks change it is as long as it is.
func TestWindow(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Brussels")
	if err != nil {
		t.Skip("no zone files here: package runbook brings its own") // time/tzdata
	}
	at := func(s string) time.Time {
		when, err := time.ParseInLocation("2006-01-02 15:04", s, zone)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	w := Window{Zone: zone, Days: []time.Weekday{time.Sunday}, From: time.Hour, To: 4 * time.Hour}
	for _, c := range []struct {
		now, from string
		need      time.Duration
		open      bool
	}{
		{"2026-10-17 12:00", "2026-10-18 01:00", time.Hour, false},
		{"2026-10-18 01:00", "2026-10-18 01:00", time.Hour, true},
		{"2026-10-18 03:00", "2026-10-18 01:00", time.Hour, true},
		{"2026-10-18 03:01", "2026-10-25 01:00", time.Hour, true},
		{"2026-10-18 04:00", "2026-10-25 01:00", time.Hour, false},
		{"2026-10-12 00:00", "2026-10-25 01:00", 4 * time.Hour, false}, // once a year it is four hours long
		{"2026-03-23 00:00", "2026-04-05 01:00", 3 * time.Hour, false}, // and once two
	} {
		now := at(c.now)
		if from, _ := w.Next(now, c.need); !from.Equal(at(c.from)) || w.Open(now) != c.open {
			t.Errorf("at %s with need of %s: from %s, open %t", c.now, c.need, from, w.Open(now))
		}
	}
	if from, to := w.Next(at("2026-10-19 00:00"), 5*time.Hour); !from.IsZero() || !to.IsZero() {
		t.Errorf("a window that is never long enough: %s to %s", from, to)
	}
	if any := (Window{}); !any.Any() || !any.Open(time.Now()) {
		t.Error("no window is any time")
	}
}
