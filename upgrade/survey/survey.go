// Package survey is where an upgrade stands, as both servers say: its phase, its
// decisions, its databases, and their tables, sets and links. It is read once, and
// believed over every memory.
package survey

import (
	"errors"
	"slices"

	"crossfade/cutover"
	"crossfade/schema"
	"crossfade/upgrade/clusters"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"
	"crossfade/upgrade/rights"
	"crossfade/upgrade/runbook"
)

// Survey is what both servers say, read once.
type Survey struct {
	c *clusters.Clusters // that it is of

	Old, New       cutover.Side
	OldErr, NewErr error // why a side could not be asked
	Databases      []*Database
	Home           string
	decisions      []cutover.Decision // both sides' rows, one an attempt, oldest first
	rows           map[string]bool    // by side: it answered; whether it has such rows
	Phase          report.Phase
	Distrusted     bool  // something is copied or compared again: not ready any more
	OnlyOld        bool  // new is given up: old's tables are the truth
	FenceOld       *bool // closed, seen in the home database; nil: not known
	FenceNew       *bool
}

// Database is one database of the upgrade.
type Database struct {
	Name      string
	OID       uint32
	Encoding  string // of old's database
	Book      runbook.Database
	Inventory *schema.Inventory // of the side that serves, or of old
	Sets      []schema.Set
	Excluded  []schema.Table
	Links     []link.Link // old → new
	Way       []link.Link // new → old
	problems  []runbook.Problem
	Published map[string]bool // the sets that the side which serves publishes
	runs      *rights.Map     // nil: not read yet (Survey.Runs)

	// Of a database whose tables go to several clusters: what goes elsewhere
	// (nil: not known, or nothing), the tables among it, and the views and
	// functions that go nowhere.
	Apart       *schema.Apart
	TablesApart []string
	Nowhere     []string
}

// MayVerify wants both sides to answer, and rows on both that follow each other.
func (s *Survey) MayVerify() error {
	switch s.Phase {
	case report.PhaseReady, report.PhaseOpen, report.PhaseRolledBack:
		return s.BothAnswer()
	}
	return exit.WrongPhase(s.Phase, "verify")
}

// BothAnswer is an error where a side could not be asked.
func (s *Survey) BothAnswer() error {
	err := errors.Join(s.OldErr, s.NewErr)
	if err == nil {
		return nil
	}
	e := &exit.Error{Code: exit.Failed, Says: err.Error(), SQLState: pg.SQLState(err), Hint: "check that both servers are running and reachable", Err: err}
	if of, ok := errors.AsType[*pg.Error](err); ok && of.Hint != "" {
		e.Hint = of.Hint
	} else if hint := exit.HintOf(err); hint != "" {
		e.Hint = hint
	}
	return e
}

// Silent is why a side could not be asked; nil: it answers.
func (s *Survey) Silent(side string) error {
	if side == "old" {
		return s.OldErr
	}
	return s.NewErr
}

// Applying is the side that rows are applied on: the one that does not serve.
func (s *Survey) Applying() cutover.Side {
	if s.Serving().Name == "new" {
		return s.Old
	}
	return s.New
}

// Guarded: new refuses DDL from its first day, because its apply workers run what the
// owner of a table puts on it there with all rights.
func (s *Survey) Guarded() bool { return s.New.Version/10000 <= rights.LastAsOwner }

// ByHand says how a person changes the schema of the side that is closed.
func (s *Survey) ByHand() string {
	if to := s.Applying(); to.Name == "old" || s.Guarded() {
		return "on " + to.Name + ", SET session_replication_role = replica and BEGIN READ WRITE come before it"
	}
	return "on new, BEGIN READ WRITE comes before it"
}

// OldSystem is the system identifier of old: as it says itself, or as the last
// decision has it.
func (s *Survey) OldSystem() string {
	d := s.Last()
	switch {
	case s.OldErr == nil:
		return s.Old.Identity.SystemID
	case d == nil:
		return ""
	case d.Direction == cutover.Forward:
		return d.Closing.System
	}
	return d.Opening.System
}

// WasOpen reports whether new has been opened, be it closed again by now.
func (s *Survey) WasOpen() bool {
	return slices.ContainsFunc(s.decisions, func(d cutover.Decision) bool {
		return d.Attempt > 0 && d.Direction == cutover.Forward && d.State == cutover.Open
	})
}

// Side is the survey's Side by name.
func (s *Survey) Side(name string) cutover.Side {
	if name == "old" {
		return s.Old
	}
	return s.New
}

// Zero is the row of the upgrade itself, or nil.
func (s *Survey) Zero() *cutover.Decision {
	for i := range s.decisions {
		if s.decisions[i].Attempt == 0 {
			return &s.decisions[i]
		}
	}
	return nil
}

// Ready reports whether a cutover may begin, and all that it stands on was looked at.
func (s *Survey) Ready() bool {
	z := s.Zero()
	return z != nil && z.State == cutover.Ready && !s.Distrusted
}

// Last is the newest attempt that was not voided, or nil. A rehearsal is none.
func (s *Survey) Last() *cutover.Decision {
	for _, d := range slices.Backward(s.decisions) {
		if d.Attempt > 0 && d.State != cutover.Void && d.State != cutover.Rehearsing {
			return &d
		}
	}
	return nil
}

// Incomplete is the last crossing if it still has steps to do after open, or nil.
// That nothing is left is recorded on the side that it opened; where that side has no
// rows any more, finish has dropped them, and had seen a complete crossing.
func (s *Survey) Incomplete() *cutover.Decision {
	last := s.Last()
	if last == nil || last.State != cutover.Open || last.Done {
		return nil
	}
	opened := "new"
	if last.Direction == cutover.Back {
		opened = "old"
	}
	if there, answered := s.rows[opened]; answered && !there {
		return nil
	}
	return last
}

// Stopped reports whether the newest attempt is one of this direction that is
// void and has left links stopped.
func (s *Survey) Stopped(dir cutover.Direction) bool {
	if len(s.decisions) == 0 {
		return false
	}
	d := s.decisions[len(s.decisions)-1]
	return d.Attempt > 0 && d.State == cutover.Void && d.Direction == dir && d.Stopped
}

// Closed reports whether a crossing was cut off between close and open.
func (s *Survey) Closed() bool {
	d := s.Last()
	return s.Phase == report.PhaseCutover && d != nil && d.State == cutover.Closed
}

// Rehearsing is the rehearsal that is under way or was cut off, or nil.
func (s *Survey) Rehearsing() *cutover.Decision {
	for _, d := range s.decisions {
		if d.State == cutover.Rehearsing {
			return &d
		}
	}
	return nil
}

// Rehearsed are the rehearsals that row 0 remembers, oldest first.
func (s *Survey) Rehearsed() []cutover.Rehearsal {
	if z := s.Zero(); z != nil {
		return z.Rehearsed
	}
	return nil
}

// Attempt is the number of the newest attempt; 0: there was none.
func (s *Survey) Attempt() int {
	n := 0
	for _, d := range s.decisions {
		n = max(n, d.Attempt)
	}
	return n
}

// Before is what stood somewhere before the upgrade changed it.
func (s *Survey) Before(key string) (string, bool) {
	if z := s.Zero(); z != nil {
		v, ok := z.Before[key]
		return v, ok
	}
	return "", false
}

// decide tells the phase from what both servers say.
func (s *Survey) decide() report.Phase {
	if d := s.Last(); d != nil {
		switch {
		case d.State == cutover.Armed || d.State == cutover.Closed:
			return report.PhaseCutover
		case d.Direction == cutover.Back:
			return report.PhaseRolledBack
		default:
			return report.PhaseOpen
		}
	}
	switch z := s.Zero(); {
	case z != nil && z.State == cutover.Ready:
		return report.PhaseReady
	case z != nil:
		return report.PhasePreparing
	case s.FenceOld != nil && *s.FenceOld, s.FenceNew != nil && *s.FenceNew:
		// What finish leaves of an upgrade is the fence of the side given up.
		return report.PhaseFinished
	}
	return report.PhaseNew
}

// GaveNewUp reports whether the upgrade was finished after a rollback: old
// serves, and new was left closed.
func (s *Survey) GaveNewUp() bool {
	return s.Phase == report.PhaseFinished && s.FenceNew != nil && *s.FenceNew
}

// Serving is the side whose tables are the truth: the one that was opened
// last. An attempt that was cut off before open has changed nothing of that.
func (s *Survey) Serving() cutover.Side {
	for _, d := range slices.Backward(s.decisions) {
		if d.Attempt > 0 && d.State == cutover.Open {
			if d.Direction == cutover.Forward && !s.OnlyOld {
				return s.New
			}
			return s.Old
		}
	}
	return s.Old
}

// Remembered is what both sides were when what links them was made; zero where
// it was not written down.
func (s *Survey) Remembered() (old, fresh cutover.Whom) {
	for _, d := range slices.Backward(s.decisions) {
		if d.Attempt == 0 || d.State == cutover.Open {
			old, fresh = d.Closing, d.Opening
			if d.Direction == cutover.Back {
				old, fresh = fresh, old
			}
			return old, fresh
		}
	}
	return old, fresh
}
