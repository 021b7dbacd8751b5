package upgrade

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"crossfade/cutover"
	"crossfade/upgrade/clusters"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"
	"crossfade/upgrade/runbook"
	"crossfade/upgrade/survey"
)

// Run prepares, and cuts over at the next window: unattended. started is when
// the command began; an approval file must be newer.
//
// What only a person can judge ends it: findings, differences, a gate that stays
// closed until patience ends (4), a cutover that failed and was undone (5). A
// window that has ended, for want of an approval, a gate or a lock, is no
// failure: it waits for the next one. The result is nil where new takes writes
// already.
func (u *Upgrade) Run(ctx context.Context, started time.Time, observe func(flow.Event)) (*report.Cutover, error) {
	if u.rb.Cutover.Approve == runbook.ApprovePrompt {
		return nil, exit.Errorf(exit.Usage, "set cutover.approve to auto, or to file:<path>", "run is unattended, and cutover.approve is prompt")
	}
	v := &vigil{u: u, observe: observe}
	for {
		out, again, err := v.once(ctx, started)
		if err != nil || !again {
			return out, err
		}
	}
}

// once does what is next to be done, up to the cutover. again: something was
// waited for, and everything is to be looked at anew.
func (v *vigil) once(ctx context.Context, started time.Time) (out *report.Cutover, again bool, err error) {
	u := v.u
	s, err := survey.Take(ctx, u.c, false)
	if err == nil {
		if out, done, err := v.goOn(ctx, s); done || err != nil {
			return out, false, err
		}
	} // else prepare says what is the matter, as findings
	if err := u.Prepare(ctx, PrepareOptions{}, v.observe); err != nil {
		return nil, false, err
	}
	if s, err = survey.Take(ctx, u.c, false); err != nil {
		return nil, false, err
	}
	if s.Phase != report.PhaseReady {
		return nil, true, nil // another command was quicker
	}
	v.home = s.Home
	until, waited, err := v.window(ctx)
	if waited || err != nil {
		return nil, true, err // what was made meanwhile is taken along first
	}
	// No attempt begins that might not end in the window.
	if in, err := v.approval(ctx, started, until, u.rb.Cutover.MaxBlocked); !in || err != nil {
		return nil, true, err
	}
	out, err = u.Cutover(ctx, CutoverOptions{Granted: true, Until: until}, v.telling)
	if windowEnded(err, until) && ctx.Err() == nil {
		v.note("window", "%v; the window has ended, and the next one is waited for", err)
		return nil, true, nil
	}
	return out, false, err
}

// windowEnded reports whether a cutover waited for a gate or a lock until the
// window that ends at until (zero: there is none) was over, and was undone.
func windowEnded(err error, until time.Time) bool {
	if err == nil || until.IsZero() || time.Until(until) > time.Second {
		return false
	}
	switch exit.Of(err).Code {
	case exit.Gate:
		return true
	case exit.Undone:
		return errors.Is(err, cutover.ErrPatience)
	}
	return false
}

// goOn does what is left to do of a cutover that was begun, or says that none
// may begin.
func (v *vigil) goOn(ctx context.Context, s *survey.Survey) (out *report.Cutover, done bool, err error) {
	switch s.Phase {
	case report.PhaseOpen:
		out, err = v.u.Cutover(ctx, CutoverOptions{Granted: true}, v.observe)
		return out, true, err
	case report.PhaseFinished:
		return nil, true, nil
	case report.PhaseRolledBack:
		return nil, true, exit.WrongPhase(s.Phase, "run")
	case report.PhaseCutover:
		d := s.Last()
		switch {
		case d.Direction == cutover.Back:
			return nil, true, exit.Refused("crossfade rollback", "a rollback was cut off before open")
		case d.State == cutover.Closed:
			// It was approved and begun in its window, and nobody takes writes:
			// that is not the time to wait for another.
			out, err = v.u.Cutover(ctx, CutoverOptions{Granted: true}, v.observe)
			return out, true, err
		}
		// Old takes writes, with a fence around it: not for as long as a window is away.
		return nil, false, v.u.undoCutOff(ctx, s, v.observe)
	}
	return nil, false, nil
}

// vigil is an unattended run that waits. It holds the upgrade meanwhile, so
// that nobody changes what it waits to change, and so that status, which asks
// the servers, can tell what it waits for and that it lives.
type vigil struct {
	u       *Upgrade
	home    string
	observe func(flow.Event)
}

// writeWaiting and clearWaiting are what a run writes down of what it waits for.
const (
	writeWaiting = "UPDATE crossfade.upgrade SET memory = jsonb_set(memory, '{waiting}', $waiting) WHERE attempt = 0"
	clearWaiting = "UPDATE crossfade.upgrade SET memory = memory - 'waiting' WHERE attempt = 0"
)

// holdAgain is how long a run whose lock was lost waits before it takes it anew.
const holdAgain = 2 * time.Second

// errWindowOver says that the window ended before what was waited for.
var errWindowOver = errors.New("the window has ended")

func (v *vigil) note(step, format string, args ...any) {
	v.observe(flow.Event{At: time.Now(), Plan: "run", Step: step, Kind: flow.Note, Says: fmt.Sprintf(format, args...)})
}

// window waits until the window is open with an attempt's time left of it, and
// returns its end; zero: it has none.
func (v *vigil) window(ctx context.Context) (until time.Time, waited bool, err error) {
	w := v.u.consent().window()
	if w.Any() {
		return time.Time{}, false, nil
	}
	from, to := w.Next(time.Now(), v.u.rb.Cutover.MaxBlocked)
	switch {
	case from.IsZero():
		return to, false, exit.Refused("make cutover.window longer than cutover.max_blocked", "no window of the next year is long enough")
	case !from.After(time.Now()):
		return to, false, nil
	}
	opens := from.Format(time.RFC3339)
	says := "for the window, which opens at " + opens
	if path := v.u.rb.Cutover.ApproveFile; path != "" {
		says += "; then for the approval, the file " + path
	}
	err = v.wait(ctx, flow.Step{
		ID: "window", Title: "Wait until the window opens, at " + opens,
		Do: func(ctx context.Context, t *flow.Turn) error {
			t.Note("waiting %s", says)
			return awaitMoment(ctx, t, from)
		},
	}, cutover.Waiting{Until: &from, Says: says})
	return to, true, err
}

// awaitMoment waits until a moment and tells how far off it is.
func awaitMoment(ctx context.Context, t *flow.Turn, at time.Time) error {
	began := time.Now()
	total := int64(at.Sub(began).Round(time.Second).Seconds())
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	opens := time.NewTimer(time.Until(at))
	defer opens.Stop()
	for {
		t.Progress(int64(time.Since(began).Seconds()), total, "seconds", "")
		select {
		case <-opens.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			// A machine that slept, or whose clock was set, is late otherwise.
			if !time.Now().Round(0).Before(at) {
				return nil
			}
		}
	}
}

// approval waits for the approval, but no longer than while need of the window
// that ends at until is left (zero: it has no end). in: it was given in time,
// and is used up.
func (v *vigil) approval(ctx context.Context, started, until time.Time, need time.Duration) (in bool, err error) {
	if !until.IsZero() {
		until = until.Add(-need)
	}
	if v.u.rb.Cutover.Approve == runbook.ApproveAuto {
		return true, nil
	}
	path := v.u.rb.Cutover.ApproveFile
	given, _, err := approval(path, started)
	if err != nil {
		return false, err
	}
	if !given {
		waiting := cutover.Waiting{Says: "for the approval, the file " + path, Next: "touch " + path}
		if !until.IsZero() {
			waiting.Says += ", until " + until.Format(time.RFC3339) + ", when the window ends"
		}
		err = v.wait(ctx, flow.Step{
			ID: "approval", Title: "Wait for the approval, the file " + path,
			Do: func(ctx context.Context, t *flow.Turn) error { return awaitFile(ctx, t, path, started, until) },
		}, waiting)
		if errors.Is(err, errWindowOver) {
			v.note("approval", "no approval before the window ended: the next one is waited for")
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, useApproval(path)
}

func awaitFile(ctx context.Context, t *flow.Turn, path string, started, until time.Time) error {
	noted := false
	return pg.Poll(ctx, 200*time.Millisecond, "the approval "+path, func(context.Context) (bool, error) {
		given, older, err := approval(path, started)
		if older && !noted {
			noted = true
			t.Note("%s is older than this run, and does not count; touch it to approve", path)
		}
		if err == nil && !given && !until.IsZero() && !time.Now().Round(0).Before(until) {
			err = errWindowOver
		}
		return given, err
	})
}

// wait runs a step that waits, under the hold. A hold that is lost meanwhile
// (old was restarted, the network was away) is taken anew: nothing has begun.
func (v *vigil) wait(ctx context.Context, s flow.Step, w cutover.Waiting) error {
	s.Done = flow.Never
	s.Does = []flow.Effect{flow.SQL("old", v.home, v.u.c.Part.Own(writeWaiting)), flow.SQL("old", v.home, v.u.c.Part.Own(clearWaiting))}
	w.Plan, w.Step, w.Since, w.Host = "run", s.ID, time.Now().UTC(), cutover.Here()
	for had := false; ; {
		held, err := v.holding(ctx, s, w)
		had = had || held
		if err == nil || ctx.Err() != nil || errors.Is(err, flow.ErrHeld) || !had || held && !errors.Is(err, clusters.ErrHoldLost) {
			return err
		}
		v.note(s.ID, "%v; taking it again", err)
		if w.Until != nil && time.Until(*w.Until) < holdAgain {
			return sleepUntil(ctx, *w.Until) // whoever goes on says what is the matter
		}
		if err := sleepUntil(ctx, time.Now().Add(holdAgain)); err != nil {
			return err
		}
	}
}

// holding runs s while the upgrade is held. held: it was had.
func (v *vigil) holding(ctx context.Context, s flow.Step, w cutover.Waiting) (had bool, err error) {
	u := v.u
	held, release, err := u.c.Hold(ctx, u.c.Old.With(v.home))
	if err != nil {
		return false, err
	}
	defer release()
	j, err := u.journal().open()
	if err != nil {
		return true, err
	}
	defer closeQuietly(j)
	w.Session = u.c.Holder()
	if err := v.write(held, &w); err != nil {
		return true, err
	}
	defer func() {
		clearing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		// What stays counts no more once the hold is released.
		if cerr := v.write(clearing, nil); cerr != nil && err == nil {
			v.note(s.ID, "%v", cerr)
		}
	}()
	// It may be days: no other session is kept for that.
	if err := u.c.Sessions.Close(held); err != nil {
		return true, err
	}
	return true, flow.Run(held, flow.Plan{Name: "run", Cluster: string(u.c.Part), Steps: []flow.Step{s}}, j, func(e flow.Event) {
		u.running.watch(e)
		v.observe(e)
	})
}

// write writes down what is waited for, or with nil that nothing is.
func (v *vigil) write(ctx context.Context, w *cutover.Waiting) error {
	sql, vars := clearWaiting, map[string]string{}
	if w != nil {
		b, err := json.Marshal(w)
		if err != nil {
			return err
		}
		sql, vars["waiting"] = writeWaiting, pg.Literal(string(b))
	}
	return v.u.c.Do(ctx, flow.SQL("old", v.home, v.u.c.Part.Own(sql)).Fill(vars))
}

// telling observes a cutover, and writes down that it waits for its gates:
// nobody is blocked then.
func (v *vigil) telling(e flow.Event) {
	if e.Plan == "cutover" && e.Step == "gate" && v.u.c.Holder() != 0 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		var err error
		switch e.Kind {
		case flow.Begin:
			err = v.write(ctx, &cutover.Waiting{
				Session: v.u.c.Holder(), Host: cutover.Here(), Plan: e.Plan, Step: e.Step, Since: e.At.UTC(),
				Says: "for the gates, up to cutover.patience",
			})
		case flow.End, flow.Fail:
			err = v.write(ctx, nil)
		}
		if err != nil {
			v.note(e.Step, "%v", err)
		}
	}
	v.observe(e)
}
