package flow

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// trace records what a plan's steps did, and what was observed.
type trace struct{ acts []string }

func (tr *trace) act(s string) { tr.acts = append(tr.acts, s) }

func (tr *trace) step(id string, err error) Step {
	return Step{
		ID:   id,
		Done: func(context.Context) (bool, error) { return false, nil },
		Do:   func(context.Context, *Turn) error { tr.act("do " + id); return err },
		Undo: func(context.Context, *Turn) error { tr.act("undo " + id); return nil },
	}
}

func (tr *trace) want(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(tr.acts, want) {
		t.Errorf("did  %v\nwant %v", tr.acts, want)
	}
}

func TestUndoGivesServiceBackFirst(t *testing.T) {
	var tr trace
	boom := errors.New("boom")
	a, b, c, d := tr.step("a", nil), tr.step("b", nil), tr.step("c", nil), tr.step("d", boom)
	b.Serves = true
	err := Run(t.Context(), Plan{Name: "p", AllOrNothing: true, Steps: []Step{a, b, c, d}}, nil, nil)
	tr.want(t, "do a", "do b", "do c", "do d", "undo b", "undo d", "undo c", "undo a")
	var f *Failure
	if !errors.As(err, &f) || !f.Undone || f.Committed || f.Step != "d" || !errors.Is(err, boom) {
		t.Errorf("%#v", err)
	}
}

func TestFailingUndoStopsNoOther(t *testing.T) {
	for _, serves := range []bool{true, false} {
		var tr trace
		a, b, c := tr.step("a", nil), tr.step("b", nil), tr.step("c", errors.New("boom"))
		b.Serves = serves
		b.Undo = func(context.Context, *Turn) error { tr.act("undo b fails"); return errors.New("gone") }
		var f *Failure
		err := Run(t.Context(), Plan{Name: "p", AllOrNothing: true, Steps: []Step{a, b, c}}, nil, nil)
		if !errors.As(err, &f) || f.Undone == serves || len(f.UndoErrs) != 1 {
			t.Errorf("serves %t: %#v", serves, f)
		}
		if !slices.Contains(tr.acts, "undo a") || !slices.Contains(tr.acts, "undo c") {
			t.Errorf("not every undo ran: %v", tr.acts)
		}
	}
}

func TestAfterCommitThereIsOnlyForward(t *testing.T) {
	var tr trace
	ctx, cancel := context.WithCancel(t.Context())
	a, b, c := tr.step("a", nil), tr.step("b", nil), tr.step("c", errors.New("boom"))
	b.Commit = true
	b.Do = func(context.Context, *Turn) error { tr.act("commit"); cancel(); return nil }
	err := Run(ctx, Plan{Name: "p", AllOrNothing: true, Steps: []Step{a, b, c}}, nil, nil)
	tr.want(t, "do a", "commit", "do c")
	var f *Failure
	if !errors.As(err, &f) || !f.Committed || f.Undone {
		t.Errorf("%#v", err)
	}
}

func TestCommitNotTakenIsUndone(t *testing.T) {
	var tr trace
	a, b := tr.step("a", nil), tr.step("b", errors.Join(ErrNotTaken, errors.New("voided")))
	b.Commit = true
	var f *Failure
	err := Run(t.Context(), Plan{Name: "p", AllOrNothing: true, Steps: []Step{a, b}}, nil, nil)
	if !errors.As(err, &f) || f.Committed || !f.Undone {
		t.Errorf("%#v", f)
	}
	tr.want(t, "do a", "do b", "undo b", "undo a")
}

func TestAgainUndoesBackToItsStep(t *testing.T) {
	var tr trace
	tries := 0
	a, b, c := tr.step("a", nil), tr.step("b", nil), tr.step("c", nil)
	c.Do = func(context.Context, *Turn) error {
		if tries++; tries < 3 {
			tr.act("c must wait")
			return &Again{From: "b", Err: errors.New("busy")}
		}
		tr.act("do c")
		return nil
	}
	if err := Run(t.Context(), Plan{Name: "p", AllOrNothing: true, Steps: []Step{a, b, c}}, nil, nil); err != nil {
		t.Fatal(err)
	}
	tr.want(t, "do a", "do b", "c must wait", "undo c", "undo b", "do b", "c must wait", "undo c", "undo b", "do b", "do c")
}

func TestInterruptUndoesWithACause(t *testing.T) {
	var tr trace
	stop := errors.New("somebody pressed Ctrl-C")
	ctx, cancel := context.WithCancelCause(t.Context())
	a, b := tr.step("a", nil), tr.step("b", nil)
	b.Do = func(ctx context.Context, _ *Turn) error { cancel(stop); <-ctx.Done(); return ctx.Err() }
	err := Run(ctx, Plan{Name: "p", AllOrNothing: true, Steps: []Step{a, b}}, nil, nil)
	if !errors.Is(err, stop) {
		t.Errorf("the cause is lost: %v", err)
	}
	tr.want(t, "do a", "undo b", "undo a")
}

func TestPanicIsCaughtAndUndone(t *testing.T) {
	var tr trace
	a, b := tr.step("a", nil), tr.step("b", nil)
	b.Do = func(context.Context, *Turn) error { panic("at the disco") }
	err := Run(t.Context(), Plan{Name: "p", AllOrNothing: true, Steps: []Step{a, b}}, nil, nil)
	if p, ok := errors.AsType[*Panic](err); !ok || p.Value != "at the disco" || len(p.Stack) == 0 {
		t.Errorf("%v", err)
	}
	tr.want(t, "do a", "undo b", "undo a")
}

func TestTimeoutSaysWhatTookTooLong(t *testing.T) {
	s := Step{ID: "slow", Timeout: time.Millisecond, Do: func(ctx context.Context, _ *Turn) error { <-ctx.Done(); return ctx.Err() }}
	err := Run(t.Context(), Plan{Name: "p", Steps: []Step{s}}, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "step slow took longer than its limit of 1ms") {
		t.Error(err)
	}
}

func TestJournalResumes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.journal")
	j := must(Open(path, "fp"))(t)
	var tr trace
	a := Step{ID: "a", Do: func(context.Context, *Turn) error { tr.act("a"); return nil }}
	b := Step{ID: "b", Do: func(_ context.Context, turn *Turn) error {
		var n int
		if _, err := turn.Load(&n); err != nil {
			return err
		}
		tr.act("b" + string(rune('0'+n)))
		if err := turn.Save(n + 1); err != nil {
			return err
		}
		if n == 0 {
			return errors.New("crash")
		}
		return nil
	}}
	p := Plan{Name: "p", Steps: []Step{a, b}}
	if err := Run(t.Context(), p, j, nil); err == nil {
		t.Fatal("b did not fail")
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = must(Open(path, "fp"))(t)
	if err := Run(t.Context(), p, j, nil); err != nil {
		t.Fatal(err)
	}
	tr.want(t, "a", "b0", "b1")
	p.Attempt = 1 // believes none of the records of attempt 0
	if err := Run(t.Context(), p, j, nil); err == nil {
		t.Fatal("b remembered another attempt")
	}
	tr.want(t, "a", "b0", "b1", "a", "b0")
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestJournalIsHeldAndKnowsItsUpgrade(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.journal")
	j := must(Open(path, "one"))(t)
	if _, err := Open(path, "one"); !errors.Is(err, ErrHeld) {
		t.Errorf("a second run got in: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, "two"); !errors.Is(err, ErrOther) {
		t.Errorf("another upgrade's journal was taken: %v", err)
	}
	j = must(Open(path, ""))(t)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestJournalDropsATornLastLineOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.journal")
	good := `{"at":"2026-01-01T00:00:00Z","plan":"p","step":"a","kind":"end"}` + "\n"
	for _, torn := range []string{`{"at":"2026-01-0`, `{"at":"2026-01-01T00:00:00Z","plan":"p"}`, "\x00\x00\n"} {
		if err := os.WriteFile(path, []byte(good+torn), 0o600); err != nil {
			t.Fatal(err)
		}
		j := must(Open(path, ""))(t)
		if n := len(j.Records()); n != 1 {
			t.Errorf("%q: %d records", torn, n)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if b, _ := os.ReadFile(path); string(b) != good {
			t.Errorf("%q was not cut off: %q", torn, b)
		}
	}
	if err := os.WriteFile(path, []byte("damaged\n"+good), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, ""); err == nil {
		t.Error("a line damaged in the middle was taken")
	}
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte("{}\n{\"kind\":\"end\"}\n{\"ki"))
	f.Fuzz(func(t *testing.T, b []byte) {
		records, whole, err := decode(b)
		if err != nil {
			return
		}
		again, n, err := decode(b[:whole])
		if err != nil || n != whole || len(again) != len(records) {
			t.Errorf("cut at %d: %d records, then %d (%v)", whole, len(records), len(again), err)
		}
	})
}

func TestFillLeavesDollarQuotesAlone(t *testing.T) {
	e := Effect{SQL: "DO $fence$ BEGIN PERFORM $fence, $1, $unknown; END $fence$", Run: []string{"a", "$dir/x"}}
	got := e.Fill(map[string]string{"fence": "'0/1'", "dir": "/tmp"})
	if got.SQL != "DO $fence$ BEGIN PERFORM '0/1', $1, $unknown; END $fence$" || got.Run[1] != "/tmp/x" {
		t.Errorf("%q %q", got.SQL, got.Run)
	}
	if e.Run[1] != "$dir/x" {
		t.Error("the plan's own value was changed")
	}
}
