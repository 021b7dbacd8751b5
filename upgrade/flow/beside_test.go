package flow

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// beside makes one step of a lane in group g.
func beside(g, lane, id string, do func(context.Context, *Turn) error) Step {
	return Step{ID: id, Beside: g, Lane: lane, Do: do}
}

func TestLanesRunSideBySide(t *testing.T) {
	var mu sync.Mutex
	var did []string
	act := func(id string) func(context.Context, *Turn) error {
		return func(context.Context, *Turn) error {
			mu.Lock()
			defer mu.Unlock()
			did = append(did, id)
			return nil
		}
	}
	// Each waits for the other: one after the other they would wait for ever.
	met := make(chan struct{})
	meet := func(ctx context.Context, _ *Turn) error {
		select {
		case met <- struct{}{}:
		case <-met:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		return nil
	}
	boom := errors.New("boom")
	broken := true
	j, err := Open(filepath.Join(t.TempDir(), "j"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = j.Close() }()
	p := Plan{Name: "p", Steps: []Step{
		{ID: "first", Do: act("first")},
		beside("g", "a", "a/meet", meet), beside("g", "a", "a/1", func(ctx context.Context, t *Turn) error {
			if broken {
				return boom
			}
			return act("a/1")(ctx, t)
		}), beside("g", "a", "a/2", act("a/2")),
		beside("g", "b", "b/meet", meet), beside("g", "b", "b/1", act("b/1")), beside("g", "b", "b/2", act("b/2")),
		beside("h", "a", "h/a", act("h/a")), beside("h", "b", "h/b", act("h/b")),
		{ID: "last", Do: act("last")},
	}}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Second, errors.New("they did not meet"))
	defer cancel()
	err = Run(ctx, p, j, func(e Event) {
		if strings.HasPrefix(e.Step, "a/") != (e.Beside == "g" && strings.HasPrefix(e.Step, "a")) {
			t.Errorf("%s is told beside %q", e.Step, e.Beside)
		}
	})
	// The other lane was not ended by the one that failed; what follows was.
	var f *Failure
	if !errors.As(err, &f) || f.Step != "a/1" || !errors.Is(err, boom) || !slices.Equal(did, []string{"first", "b/1", "b/2"}) {
		t.Errorf("%v, did %v", err, did)
	}
	broken, did = false, nil
	if err := Run(ctx, p, j, nil); err != nil {
		t.Fatal(err)
	}
	slices.Sort(did[2:4])
	if !slices.Equal(did, []string{"a/1", "a/2", "h/a", "h/b", "last"}) {
		t.Errorf("run again, it did %v", did)
	}
}

func TestLanesTellEveryFailure(t *testing.T) {
	fail := func(says string) func(context.Context, *Turn) error {
		return func(context.Context, *Turn) error { return errors.New(says) }
	}
	err := Run(t.Context(), Plan{Name: "p", Steps: []Step{beside("g", "a", "a", fail("no disk")), beside("g", "b", "b", fail("no network"))}}, nil, nil)
	var f *Failure
	if !errors.As(err, &f) || f.Step != "a" || !strings.Contains(err.Error(), "no disk") || !strings.Contains(err.Error(), "step b: no network") {
		t.Errorf("%v", err)
	}
}

func TestInterruptStopsWhatStops(t *testing.T) {
	enough := errors.New("the operator has had enough")
	for _, stops := range []bool{true, false} {
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := false
		err := Run(ctx, Plan{Name: "p", Interrupt: enough, AllOrNothing: true, Steps: []Step{
			{ID: "open", Commit: true},
			{ID: "long", Late: true, Stops: stops, Do: func(ctx context.Context, _ *Turn) error {
				cancel(enough)
				select {
				case <-ctx.Done():
					return context.Cause(ctx)
				case <-time.After(300 * time.Millisecond):
				}
				ended = true
				return nil
			}},
			{ID: "next", Late: true},
		}}, nil, nil)
		cancel(nil)
		var f *Failure
		if !errors.As(err, &f) || !f.Committed || !errors.Is(err, enough) || ended == stops || f.Step != map[bool]string{true: "long", false: "next"}[stops] {
			t.Errorf("stops %t: %v, ended %t", stops, err, ended)
		}
	}
}
