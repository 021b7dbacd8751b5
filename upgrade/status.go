package upgrade

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"crossfade/cutover"
	"crossfade/upgrade/clusters"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// Status asks both servers where the upgrade stands. It needs no journal and
// no lock, and tells what it can when a server does not answer.
func (u *Upgrade) Status(ctx context.Context) (report.Status, error) {
	if u.parts != nil {
		return u.parts.status(ctx)
	}
	w := u.Watching()
	st, err := w.status(ctx)
	return st, errors.Join(err, w.Close())
}

// reading is a status on its way: what a survey says, and what else is asked.
type reading struct {
	u  *Upgrade
	s  *survey.Survey
	st *report.Status
}

func (u *Upgrade) status(ctx context.Context) (report.Status, error) {
	st := report.Status{At: time.Now(), Upgrade: u.rb.Upgrade, Writable: report.WritableUnknown}
	s, err := survey.Take(ctx, u.c, false)
	if s != nil {
		for _, name := range []string{"old", "new"} {
			if err := s.Silent(name); err != nil {
				st.Silent = append(st.Silent, report.Silence{On: name, Says: err.Error()})
			}
		}
	}
	if err != nil {
		if s != nil && s.OldErr != nil && s.NewErr != nil {
			st.Phase = ""
			return st, err
		}
		return st, err
	}
	st.Phase = s.Phase
	if s.Phase == report.PhaseNew && u.journal().says("abort") {
		st.Phase = report.PhaseAborted
	}
	st.Writable = s.Writable(ctx)
	st.Fence.Old, st.Fence.New = fenceState(s, "old"), fenceState(s, "new")
	r, opens := reading{u, s, &st}, ""
	if st.Phase != report.PhaseNew && st.Phase != report.PhaseAborted && st.Phase != report.PhaseFinished {
		if err := s.ReadTables(ctx); err != nil {
			st.Notes = append(st.Notes, err.Error())
		}
		r.links(ctx)
		opens = r.gates(ctx)
	}
	u.members.Standbys(ctx, s, &st)
	r.notes(ctx)
	// A journal that cannot be read says nothing.
	if st.Step, err = u.journal().work(); err != nil {
		st.Step = nil
	}
	st.Notes = append(st.Notes, u.members.ManagerNotes(ctx, s)...)
	st.Next = next(st, s, opens)
	r.runs(ctx)
	return st, nil
}

// notes tells what no gate says: writes that were refused on the side that
// fills, and who is old's primary where the runbook's does not answer.
func (r reading) notes(ctx context.Context) {
	u, s, st := r.u, r.s, r.st
	if s.OldErr != nil && s.Zero() != nil {
		if says := u.trust.Rivals(ctx, s); says != "" {
			st.Notes = append(st.Notes, says)
		}
	}
	if st.Phase != report.PhaseReady || s.NewErr != nil {
		return
	}
	var refused int64
	for _, db := range s.Databases {
		err := u.c.In(ctx, "new", db.Name, func(conn *pgx.Conn) error {
			n, err := u.c.Part.Refused(ctx, conn)
			refused += n
			return err
		})
		if err != nil {
			st.Notes = append(st.Notes, err.Error())
			return
		}
	}
	if refused > 0 {
		st.Notes = append(st.Notes, fmt.Sprintf("new has refused %d writes of clients since prepare: nothing of them is there; its log names who tried (SQLSTATE 25006), let it write to old", refused))
	}
}

// runs tells what runs that are under way, or were cut off, have written
// down. What no run is at work on is no step in progress.
func (r reading) runs(ctx context.Context) {
	u, s, st := r.u, r.s, r.st
	var session int32
	known := true
	for _, side := range []string{"old", "new"} {
		if s.Silent(side) != nil {
			known = false
			continue
		}
		err := u.c.In(ctx, side, s.Home, func(conn *pgx.Conn) error {
			_, pid, err := clusters.HeldBy(ctx, conn, clusters.App(u.rb)+" lock %", false)
			session = max(session, pid)
			return err
		})
		if err != nil && pg.SQLState(err) != "3D000" {
			st.Notes = append(st.Notes, err.Error())
			known = false
		}
	}
	running := session != 0
	if known && !running {
		st.Step = nil
	}
	if says := rehearsalNote(s, running || !known); says != "" && st.Phase == report.PhaseReady {
		st.Notes = append(st.Notes, says)
	}
	if s.Rehearsing() != nil && known && !running {
		st.Next = "crossfade rehearse"
	}
	z := s.Zero()
	if z == nil || z.Waiting == nil || z.Waiting.Session != session {
		return
	}
	w := z.Waiting
	st.Step = &report.Work{Plan: w.Plan, ID: w.Step, Since: &w.Since}
	if w.Until != nil {
		st.Step.ETASeconds = new(max(time.Until(*w.Until), 0).Seconds())
	}
	st.Notes = append(st.Notes, fmt.Sprintf("crossfade run (%s) waits: %s", w.Host, w.Says))
	st.Next = w.Next
}

// writable asks both sides' servers, and not what was written about them.
func (u *Upgrade) writable(ctx context.Context) (string, error) {
	s, err := survey.Take(ctx, u.c, false)
	if err != nil {
		return "", err
	}
	return string(s.Writable(ctx)), nil
}

func fenceState(s *survey.Survey, side string) report.FenceState {
	up := s.FenceOld
	if side == "new" {
		up = s.FenceNew
	}
	switch {
	case up == nil:
		return ""
	case *up:
		return report.FenceClosed
	case s.Zero() == nil:
		return report.FenceNone
	}
	return report.FenceArmed
}

// links reads every link that exists, in both directions.
func (r reading) links(ctx context.Context) {
	u, s, st := r.u, r.s, r.st
	var kept int64
	for _, db := range s.Databases {
		for _, links := range [][]link.Link{db.Links, db.Way} {
			at, err := s.Positions(ctx, db.Name, links)
			if err != nil {
				st.Notes = append(st.Notes, err.Error())
				continue
			}
			for _, l := range links {
				p := at[l.Name]
				if !p.Slot && !p.Subscription {
					continue
				}
				kept = max(kept, p.KeptBytes)
				row := report.Link{
					Database: l.Database, Set: l.Set, Cluster: u.rb.New[0].Cluster, Direction: report.Forward,
					State: p.State(), Sent: p.Sent, Confirmed: p.Confirmed, LagBytes: p.LagBytes(),
				}
				if !l.Forward {
					row.Direction = report.Back
				}
				if r := p.Receiver; r != nil {
					row.Receiver = &report.Receiver{
						State: r.State, SyncState: r.SyncState, SyncPriority: r.SyncPriority,
						Received: report.Received{
							Sent: p.Sent, Write: r.Write, Flush: r.Flush, Replay: r.Replay,
							WriteLag: report.Seconds(r.WriteLag), FlushLag: report.Seconds(r.FlushLag), ReplayLag: report.Seconds(r.ReplayLag),
						},
					}
				}
				if p.Errors > 0 && p.Worker == nil {
					row.Error = fmt.Sprintf("%d apply errors; the log of %s says why", p.Errors, l.To.Server)
				}
				st.Links = append(st.Links, row)
			}
		}
	}
	st.WALKeptBytes = &kept
}

// gates asks the gates. It returns what opens them where no waiting does.
func (r reading) gates(ctx context.Context) (opens string) {
	u, s, st := r.u, r.s, r.st
	dir := cutover.Forward
	switch s.Phase {
	case report.PhaseOpen:
		dir = cutover.Back
	case report.PhaseReady, report.PhaseRolledBack:
	default:
		return ""
	}
	if s.OldErr != nil || s.NewErr != nil || len(s.Databases) == 0 || s.Databases[0].Inventory == nil {
		return ""
	}
	c, err := u.config(ctx, s, dir)
	if err != nil {
		st.Notes = append(st.Notes, err.Error())
		return ""
	}
	c.Stable = 0 // one look tells the lag, not how long it has been low
	gates, x := cutover.Gates(c)
	defer x.Close()
	states := cutover.Look(ctx, gates)
	for _, g := range states {
		st.Gates = append(st.Gates, report.Gate{ID: g.ID, OK: g.OK, Says: g.Says})
	}
	return cutover.Do(states)
}

// next is the command to type next. What was cut off after open, or whose hook
// failed, is run again first; then comes what opens a gate that no waiting opens,
// before a cutover that would end at it. finish is never what to type next: it
// ends the possibility of a rollback, and only a person knows when.
func next(st report.Status, s *survey.Survey, opens string) string {
	last := s.Last()
	switch st.Phase {
	case report.PhaseNew, report.PhaseAborted, report.PhasePreparing:
		return "crossfade prepare"
	case report.PhaseReady:
		return cmp.Or(opens, "crossfade cutover")
	case report.PhaseCutover:
		return "crossfade " + crossingName(last.Direction)
	case report.PhaseOpen, report.PhaseRolledBack:
		switch {
		case last != nil && !last.Done:
			return "crossfade " + crossingName(last.Direction)
		case st.Phase == report.PhaseOpen:
			return cmp.Or(opens, report.Watch)
		}
		return cmp.Or(opens, "crossfade cutover")
	}
	return ""
}
