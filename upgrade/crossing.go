package upgrade

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"crossfade/cutover"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"

	"github.com/jackc/pgx/v5"
)

// CutoverOptions are what the person at the terminal decides.
type CutoverOptions struct {
	Now        bool // ignore the window
	Wait       bool // wait for the window
	WithoutNew bool // rollback only: new is gone for good
	// Approved: the person has typed the upgrade's name, or gave --yes.
	Approved bool
	// Started is when the command began: an approval file must be newer.
	Started time.Time
	// Granted: window and approval have been asked by the caller.
	Granted bool
	// Until cuts patience: no attempt begins after it. Zero: it does not.
	Until time.Time
}

// Cutover moves the right to be written from old to new. It goes on with, or
// undoes, what an earlier run left, by what the servers say.
func (u *Upgrade) Cutover(ctx context.Context, o CutoverOptions, observe func(flow.Event)) (*report.Cutover, error) {
	return u.cross(ctx, cutover.Forward, o, observe)
}

// Rollback is the same cutover with the ends swapped, over the back links.
func (u *Upgrade) Rollback(ctx context.Context, o CutoverOptions, observe func(flow.Event)) (*report.Cutover, error) {
	if o.WithoutNew {
		return u.withoutNew(ctx, o, observe)
	}
	return u.cross(ctx, cutover.Back, o, observe)
}

// begins is the phase in which a direction begins, and ends the one in which
// it is done.
func begins(d cutover.Direction, p report.Phase) (mayBegin, done bool) {
	if d == cutover.Forward {
		return p == report.PhaseReady || p == report.PhaseRolledBack, p == report.PhaseOpen
	}
	return p == report.PhaseOpen, p == report.PhaseRolledBack
}

func (u *Upgrade) cross(ctx context.Context, dir cutover.Direction, o CutoverOptions, observe func(flow.Event)) (*report.Cutover, error) {
	name := crossingName(dir)
	s, err := u.look(ctx, false)
	if err != nil {
		return nil, err
	}
	last := s.last()
	mayBegin, done := begins(dir, s.phase)
	// A crossing that is open is done only when everything after open is, too.
	forwards := done && last != nil && !u.crossed(ctx, s, *last)
	switch {
	case done && !forwards:
		return nil, nil
	case s.phase == report.PhaseCutover && last.Direction != dir:
		return nil, refused("crossfade "+otherName(dir), "a %s was cut off before open", otherName(dir))
	case s.phase != report.PhaseCutover && !mayBegin && !forwards:
		return nil, wrongPhase(s.phase, name)
	}
	if !forwards {
		if err := s.bothAnswer(); err != nil {
			return nil, err
		}
		o.Now = o.Now || s.closed()
		if err := u.mayCross(ctx, o); err != nil {
			return nil, err
		}
		if err := u.completeLast(ctx, s, dir, observe); err != nil {
			return nil, err
		}
	}
	held, release, err := u.holdServing(ctx, s, forwards, dir)
	if err != nil {
		return nil, err
	}
	defer release()
	return u.crossHeld(held, dir, o.Until, observe)
}

// completeLast does what the last crossing, which went the other way, has still to
// do after its open: only then is the side that dir closes the only one that clients
// use, and the other one closed to them in every way.
func (u *Upgrade) completeLast(ctx context.Context, s *survey, dir cutover.Direction, observe func(flow.Event)) error {
	last := s.incomplete()
	if last == nil || last.Direction == dir {
		return nil
	}
	held, release, err := u.holdServing(ctx, s, true, last.Direction)
	if err != nil {
		return err
	}
	defer release()
	if _, err := u.crossHeld(held, last.Direction, time.Time{}, observe); err != nil {
		e := Exit(err)
		return &ExitError{
			Code: ExitGate, On: e.On, Object: e.Object, SQLState: e.SQLState, Err: err,
			Says: fmt.Sprintf("the last %s is not complete, and the %s was not begun: %s", crossingName(last.Direction), crossingName(dir), e.Says),
			Hint: fmt.Sprintf("fix what the last %s has still to do, or take it out of the runbook where it is gone for good; then run crossfade %s again", crossingName(last.Direction), crossingName(dir)),
		}
	}
	return nil
}

// crossingName is the command that crosses in a direction, otherName the one
// that crosses in the other.
func crossingName(d cutover.Direction) string {
	if d == cutover.Back {
		return "rollback"
	}
	return "cutover"
}

func otherName(d cutover.Direction) string {
	if d == cutover.Forward {
		return "rollback"
	}
	return "cutover"
}

func (s *survey) bothAnswer() error {
	err := errors.Join(s.oldErr, s.newErr)
	if err == nil {
		return nil
	}
	e := &ExitError{Code: ExitFailed, Says: err.Error(), SQLState: pg.SQLState(err), Hint: "check that both servers are running and reachable", Err: err}
	if of, ok := errors.AsType[*pg.Error](err); ok && of.Hint != "" {
		e.Hint = of.Hint
	} else if hint := hintOf(err); hint != "" {
		e.Hint = hint
	}
	return e
}

// holdServing takes the hold on the side that is closed by the crossing: the
// one that has the decision. Behind open it may be gone for good; then the
// hold on the open side is enough.
func (u *Upgrade) holdServing(ctx context.Context, s *survey, forwards bool, dir cutover.Direction) (context.Context, func(), error) {
	server := u.old
	if forwards && dir == cutover.Forward || !forwards && dir == cutover.Back {
		server = u.new
	}
	return u.hold(ctx, server.With(s.home))
}

// mine reports whether this process may still change the upgrade.
func (u *Upgrade) mine(ctx context.Context) error {
	if u.holding == nil {
		return nil
	}
	err := u.holding.still(ctx)
	if errors.Is(err, flow.ErrHeld) {
		return fmt.Errorf("%w: %w", cutover.ErrTakenOver, err)
	}
	return err
}

// crossHeld runs the crossing while nobody else can.
func (u *Upgrade) crossHeld(ctx context.Context, dir cutover.Direction, until time.Time, observe func(flow.Event)) (*report.Cutover, error) {
	s, err := u.look(ctx, true)
	if err != nil {
		return nil, err
	}
	j, err := u.openJournal()
	if last := s.last(); err != nil && !errors.Is(err, flow.ErrHeld) && last != nil && last.State == cutover.Open && last.Direction == dir {
		// After open it is only a memory, and the servers know what is to do.
		observe(flow.Event{At: time.Now(), Kind: flow.Note, Plan: crossingName(dir), Step: "open", Says: fmt.Sprintf("the run goes on without its journal: %v", err)})
		j, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer closeQuietly(j)
	// However often the configuration is built anew on the way, this stays.
	u.until = until
	defer func() { u.until = time.Time{} }()
	c, err := u.config(ctx, s, dir)
	if err != nil {
		return nil, err
	}
	// A crossing that has begun is in phase cutover, whichever way it goes.
	now := told{phase: report.PhaseCutover, behind: report.PhaseOpen}
	if dir == cutover.Back {
		now.behind = report.PhaseRolledBack
	}
	u.tell(now)
	steps := map[string]time.Duration{}
	watch := func(e flow.Event) {
		if e.Kind == flow.End {
			steps[e.Step] = e.Took
		}
		u.watch(e)
		observe(e)
	}
	x, err := u.chooseCrossing(ctx, s, c, j, watch)
	if err != nil {
		return nil, err
	}
	defer x.Close()
	now.crossing = x
	u.tell(now)
	x.Plan.Interrupt, x.Plan.Cluster = ErrInterrupted, string(u.part)
	if err := u.foreseeCrossing(ctx, s, x); err != nil {
		return nil, err
	}
	err = flow.Run(ctx, x.Plan, j, watch)
	out := u.outcome(context.WithoutCancel(ctx), x, steps, dir)
	if err != nil {
		return out, u.judge(context.WithoutCancel(ctx), dir, err)
	}
	return out, nil
}

// chooseCrossing decides by the decision row, never by the journal, what is to
// be done: go on, go forward, or undo what was left and begin anew.
func (u *Upgrade) chooseCrossing(ctx context.Context, s *survey, c cutover.Config, j *flow.Journal, watch func(flow.Event)) (*cutover.Crossing, error) {
	if s.rehearsing() != nil {
		if err := u.endRehearsal(ctx, s, j, watch); err != nil {
			return nil, err
		}
		// What was undone is seen as it stands now: triggers fire again.
		var err error
		if c, err = u.config(ctx, s, c.Direction); err != nil {
			return nil, err
		}
	}
	d := s.last()
	if d == nil || d.Direction != c.Direction {
		return cutover.New(c), nil
	}
	if err := u.evict(ctx, s); err != nil {
		return nil, err
	}
	again := c
	again.Attempt = d.Attempt
	switch d.State {
	case cutover.Open:
		return cutover.Forwards(again, *d), nil
	case cutover.Closed:
		return cutover.Resume(again, *d), nil
	case cutover.Armed:
		// The locks went with the process; old may have been written since.
		earlier := cutover.Earlier(c, *d)
		defer earlier.Close()
		earlier.Plan.Cluster = string(u.part)
		if err := flow.Undo(ctx, earlier.Plan, j, watch); err != nil {
			return nil, err
		}
		// What was undone is seen as it stands now: triggers fire again.
		var err error
		if c, err = u.config(ctx, s, c.Direction); err != nil {
			return nil, err
		}
	}
	return cutover.New(c), nil
}

// crossed reports whether everything after open has been done. A side that did
// not answer then may still lack the end of its links.
func (u *Upgrade) crossed(ctx context.Context, s *survey, d cutover.Decision) bool {
	if !d.Done {
		return false
	}
	full, err := u.look(ctx, true)
	if err != nil || full.oldErr != nil || full.newErr != nil {
		return false // what is still to do for the side that answers is done again
	}
	for _, db := range full.databases {
		links := db.links
		if d.Direction == cutover.Back {
			links = db.way
		}
		left := false
		for _, end := range []string{"old", "new"} {
			err := u.sessions.Do(ctx, u.side(end).With(db.name), func(conn *pgx.Conn) error {
				from, to := conn, conn
				at, err := link.Positions(ctx, from, to, links)
				for _, p := range at {
					left = left || p.Slot || p.Subscription
				}
				return err
			})
			if err != nil {
				return false
			}
		}
		if left {
			return false
		}
	}
	return true
}

// judge turns a failed crossing into what the servers say: 5 only where the
// side that served is seen to take writes again.
func (u *Upgrade) judge(ctx context.Context, dir cutover.Direction, err error) error {
	var f *flow.Failure
	if !errors.As(err, &f) {
		return err
	}
	e := Exit(err)
	if errors.Is(err, cutover.ErrTakenOver) && !f.Committed {
		e.Code, e.Hint = ExitFailed, "another run has taken this upgrade over, and this one has changed nothing since; ask crossfade status"
		return e
	}
	if e.Code == ExitBehind {
		e.Hint = stillToDo(f, dir)
		return e
	}
	if e.Code != ExitUndone && e.Code != ExitGate {
		return e
	}
	serving := "old"
	if dir == cutover.Back {
		serving = "new"
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	// A server that has crashed is asked until it is back.
	var w string
	var lerr error
	perr := pg.Poll(ctx, 200*time.Millisecond, serving+" to serve again", func(ctx context.Context) (bool, error) {
		now, err := u.writable(ctx)
		if ctx.Err() == nil { // what is asked as the time ends says nothing of the server
			w, lerr = now, err
		}
		return w == serving, nil
	})
	if perr == nil {
		lerr = nil
	}
	switch {
	case lerr != nil:
		e.Code, e.Hint = ExitFailed, fmt.Sprintf("undone, but it was not seen that %s serves again: %v; ask crossfade status", serving, lerr)
	case w != serving:
		e.Code, e.Hint = ExitFailed, fmt.Sprintf("undone, but writable is %s; ask crossfade status", w)
	case len(f.UndoErrs) > 0:
		e.Hint = fmt.Sprintf("%s serves again; some of what was made is left, and the next crossfade %s removes it and resumes links that are stopped; until then crossfade status shows it", serving, crossingName(dir))
	case e.Code == ExitGate:
		e.Hint += "; " + serving + " serves on, and what was changed was reverted"
	default:
		e.Hint = serving + " serves again; nothing was lost"
	}
	return e
}

// stillToDo is what a person types after a crossing that failed after open.
func stillToDo(f *flow.Failure, dir cutover.Direction) string {
	opened := "new"
	if dir == cutover.Back {
		opened = "old"
	}
	if len(f.Left) > 0 && slices.ContainsFunc(f.Left, func(l flow.Left) bool { return l.Step == "open" }) {
		return fmt.Sprintf("the decision to open %s has been taken: make %s answer, then run crossfade %s again; it only moves forward", opened, opened, crossingName(dir))
	}
	return fmt.Sprintf("%s is open and takes writes; fix what is named, then run crossfade %s again: it only moves forward", opened, crossingName(dir))
}

// outcome is the cutover object of the contract.
func (u *Upgrade) outcome(ctx context.Context, x *cutover.Crossing, took map[string]time.Duration, dir cutover.Direction) *report.Cutover {
	r := x.Result()
	out := &report.Cutover{FenceLSN: r.Fence, BlockedSeconds: r.Blocked.Seconds(), Canaries: r.Canaries}
	for _, st := range x.Plan.Steps {
		if d, ok := took[st.ID]; ok {
			out.Steps = append(out.Steps, stepTook(st, d))
		}
	}
	closed := "old"
	if dir == cutover.Back {
		closed = "new"
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	out.RefusedWrites = -1 // not known where that side is gone
	if n, err := u.refused(ctx, closed); err == nil {
		out.RefusedWrites = n
	}
	return out
}

func (u *Upgrade) refused(ctx context.Context, side string) (int64, error) {
	s, err := u.look(ctx, false)
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, db := range s.databases {
		err := u.sessions.Do(ctx, u.side(side).With(db.name), func(conn *pgx.Conn) error {
			n, err := u.part.Refused(ctx, conn)
			sum += n
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	return sum, nil
}

// accepted reports whether the runbook accepts a finding.
func (u *Upgrade) accepted(id, object string) bool {
	for _, a := range u.rb.Accept {
		if a.ID == id && a.Matches(object) {
			return true
		}
	}
	return false
}

func (u *Upgrade) openJournal() (*flow.Journal, error) {
	j, err := flow.Open(u.rb.Journal, "")
	if err != nil {
		return nil, err
	}
	return j, nil
}

// closeQuietly closes a journal whose every record is on disk already.
func closeQuietly(j *flow.Journal) {
	if err := j.Close(); err != nil {
		return
	}
}

// watch remembers the step in work.
func (u *Upgrade) watch(e flow.Event) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch e.Kind {
	case flow.Begin:
		u.act = Activity{Plan: e.Plan, Step: e.Step, Since: e.At}
	case flow.Progress:
		u.act.Done, u.act.Total = e.Done, e.Total
	case flow.End, flow.Fail, flow.Undone:
		u.act = Activity{}
	}
	if e.Commits && e.Kind == flow.End {
		u.told.phase = u.told.behind
	}
}
