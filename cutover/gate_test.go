package cutover

import (
	"context"
	"errors"
	"testing"
	"time"

	"crossfade/upgrade/flow"
)

// TestRemains: Until cuts patience, however much of it is left, and stays what it
// is for an attempt that begins later.
func TestRemains(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		name        string
		patience    time.Duration
		first       time.Time
		until       time.Time
		least, most time.Duration
	}{
		{"no limit, not begun", time.Hour, time.Time{}, time.Time{}, time.Hour, time.Hour},
		{"no limit, half is spent", time.Hour, now.Add(-30 * time.Minute), time.Time{}, 29 * time.Minute, 30 * time.Minute},
		{"spent", time.Hour, now.Add(-2 * time.Hour), time.Time{}, 0, 0},
		{"the limit is near", time.Hour, now, now.Add(time.Minute), 50 * time.Second, time.Minute},
		{"the limit is far", time.Minute, now, now.Add(time.Hour), 50 * time.Second, time.Minute},
		{"the limit is past", time.Hour, now, now.Add(-time.Second), 0, 0},
	} {
		x := newCrossing(Config{Patience: c.patience, Until: c.until})
		x.first = c.first
		if got := x.remains(); got < c.least || got > c.most {
			t.Errorf("%s: %s, want %s to %s", c.name, got, c.least, c.most)
		}
	}
}

// TestNoAttemptAfterUntil: after the limit a failed attempt is not tried again.
func TestNoAttemptAfterUntil(t *testing.T) {
	x := newCrossing(Config{Patience: time.Hour, Until: time.Now().Add(-time.Second)})
	x.first = time.Now()
	err := x.tryAgain(context.Background(), errors.New("no lock"))
	if _, ok := errors.AsType[*flow.Again](err); ok || !errors.Is(err, ErrPatience) {
		t.Errorf("it is tried again: %v", err)
	}
	x.Until = time.Now().Add(time.Hour)
	if _, ok := errors.AsType[*flow.Again](x.tryAgain(context.Background(), errors.New("no lock"))); !ok {
		t.Error("it is not tried again while there is time")
	}
}

// TestShutGate: a gate that no waiting opens says what does, one that could not be
// asked or may open says nothing of the kind.
func TestShutGate(t *testing.T) {
	look := func(err error) Gate {
		return Gate{ID: "links", Look: func(context.Context) (bool, string, error) { return false, "closed", err }}
	}
	states := Look(t.Context(), []Gate{look(nil), look(errors.New("no answer")), look(prepares("lost"))})
	if got := Do(states[:2]); got != "" {
		t.Errorf("what may open is opened by %q", got)
	}
	gate := &ErrGate{states}
	if gate.Do() != "crossfade prepare" || gate.Error() != "not ready: gate links: closed; gate links: no answer; gate links: lost" {
		t.Errorf("%v: %s", gate, gate.Do())
	}
	for _, c := range []struct {
		c    Config
		want string
	}{
		{Config{Direction: Forward}, "crossfade prepare"},
		{Config{Direction: Forward, RolledBack: true}, "crossfade abort"},
		{Config{Direction: Back}, "crossfade verify"},
	} {
		if shut, ok := errors.AsType[*ErrShut](newCrossing(c.c).gates.lost("its slot is lost")); !ok || shut.Do != c.want {
			t.Errorf("a lost link: %v, want %s", shut, c.want)
		}
	}
}
