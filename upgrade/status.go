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
	s  *survey
	st *report.Status
}

func (u *Upgrade) status(ctx context.Context) (report.Status, error) {
	st := report.Status{At: time.Now(), Upgrade: u.rb.Upgrade, Writable: report.WritableUnknown}
	s, err := u.look(ctx, false)
	if s != nil {
		for _, name := range []string{"old", "new"} {
			if err := s.silent(name); err != nil {
				st.Silent = append(st.Silent, report.Silence{On: name, Says: err.Error()})
			}
		}
	}
	if err != nil {
		if s != nil && s.oldErr != nil && s.newErr != nil {
			st.Phase = ""
			return st, err
		}
		return st, err
	}
	st.Phase = s.phase
	if s.phase == report.PhaseNew && u.journal().says("abort") {
		st.Phase = report.PhaseAborted
	}
	st.Writable = u.writableSide(ctx, s)
	st.Fence.Old, st.Fence.New = fenceState(s, "old"), fenceState(s, "new")
	r, opens := reading{u, s, &st}, ""
	if st.Phase != report.PhaseNew && st.Phase != report.PhaseAborted && st.Phase != report.PhaseFinished {
		if err := u.lookTables(ctx, s); err != nil {
			st.Notes = append(st.Notes, err.Error())
		}
		r.links(ctx)
		opens = r.gates(ctx)
	}
	u.statusStandbys(ctx, s, &st)
	r.notes(ctx)
	// A journal that cannot be read says nothing.
	if st.Step, err = u.journal().work(); err != nil {
		st.Step = nil
	}
	st.Notes = append(st.Notes, u.managerNotes(ctx, s)...)
	st.Next = next(st, s, opens)
	r.runs(ctx)
	return st, nil
}

// notes tells what no gate says: writes that were refused on the side that
// fills, and who is old's primary where the runbook's does not answer.
func (r reading) notes(ctx context.Context) {
	u, s, st := r.u, r.s, r.st
	if s.oldErr != nil && s.zero() != nil {
		if says := u.rivals(ctx, s); says != "" {
			st.Notes = append(st.Notes, says)
		}
	}
	if st.Phase != report.PhaseReady || s.newErr != nil {
		return
	}
	var refused int64
	for _, db := range s.databases {
		err := u.c.In(ctx, "new", db.name, func(conn *pgx.Conn) error {
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
		if s.silent(side) != nil {
			known = false
			continue
		}
		err := u.c.In(ctx, side, s.home, func(conn *pgx.Conn) error {
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
	if s.rehearsing() != nil && known && !running {
		st.Next = "crossfade rehearse"
	}
	z := s.zero()
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
	s, err := u.look(ctx, false)
	if err != nil {
		return "", err
	}
	return string(u.writableSide(ctx, s)), nil
}

// writableSide tells which side takes a client's write in every database.
func (u *Upgrade) writableSide(ctx context.Context, s *survey) report.Writable {
	old, oldErr := u.takesWrites(ctx, s, "old")
	fresh, newErr := u.takesWrites(ctx, s, "new")
	// A new cluster that this upgrade has not closed yet serves nobody.
	if s.phase == report.PhaseNew || s.phase == report.PhaseFinished && s.fenceOld != nil && !*s.fenceOld {
		fresh, newErr = false, nil
	}
	switch {
	case oldErr != nil || newErr != nil:
		// One side alone tells enough when it says that it is open.
		switch {
		case oldErr == nil && old:
			return report.WritableOld
		case newErr == nil && fresh && s.phase != report.PhasePreparing:
			return report.WritableNew
		}
		return report.WritableUnknown
	case old && fresh:
		if s.phase == report.PhasePreparing {
			return report.WritableOld // new is being made, and closed before rows arrive
		}
		return report.WritableBoth
	case old:
		return report.WritableOld
	case fresh:
		return report.WritableNew
	}
	return report.WritableNone
}

// takesWrites reports whether a side is a primary whose fence is open in every
// database of the upgrade.
func (u *Upgrade) takesWrites(ctx context.Context, s *survey, side string) (bool, error) {
	if side == "old" && s.oldErr != nil {
		return false, s.oldErr
	}
	if side == "new" && s.newErr != nil {
		return false, s.newErr
	}
	if s.side(side).Identity.InRecovery {
		return false, nil
	}
	for _, db := range s.databases {
		up := false
		err := u.c.In(ctx, side, db.name, func(conn *pgx.Conn) error {
			var err error
			up, err = u.c.Part.Up(ctx, conn)
			return err
		})
		if pg.SQLState(err) == "3D000" || up {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

func fenceState(s *survey, side string) report.FenceState {
	up := s.fenceOld
	if side == "new" {
		up = s.fenceNew
	}
	switch {
	case up == nil:
		return ""
	case *up:
		return report.FenceClosed
	case s.zero() == nil:
		return report.FenceNone
	}
	return report.FenceArmed
}

// links reads every link that exists, in both directions.
func (r reading) links(ctx context.Context) {
	u, s, st := r.u, r.s, r.st
	var kept int64
	for _, db := range s.databases {
		for _, links := range [][]link.Link{db.links, db.way} {
			at, err := u.positions(ctx, s, db.name, links)
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
							WriteLag: seconds(r.WriteLag), FlushLag: seconds(r.FlushLag), ReplayLag: seconds(r.ReplayLag),
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

// positions reads links of one database where their servers answer.
func (u *Upgrade) positions(ctx context.Context, s *survey, db string, links []link.Link) (map[string]*link.Position, error) {
	if len(links) == 0 {
		return nil, nil
	}
	var at map[string]*link.Position
	conns := map[string]*pgx.Conn{}
	read := func() error {
		var err error
		at, err = link.Positions(ctx, conns[links[0].From.Side], conns[links[0].To.Side], links)
		return err
	}
	with := func(side string, then func() error) func() error {
		if side == "old" && s.oldErr != nil || side == "new" && s.newErr != nil {
			return then
		}
		return func() error {
			return u.c.In(ctx, side, db, func(conn *pgx.Conn) error {
				conns[side] = conn
				return then()
			})
		}
	}
	err := with("old", with("new", read))()
	return at, err
}

// gates asks the gates. It returns what opens them where no waiting does.
func (r reading) gates(ctx context.Context) (opens string) {
	u, s, st := r.u, r.s, r.st
	dir := cutover.Forward
	switch s.phase {
	case report.PhaseOpen:
		dir = cutover.Back
	case report.PhaseReady, report.PhaseRolledBack:
	default:
		return ""
	}
	if s.oldErr != nil || s.newErr != nil || len(s.databases) == 0 || s.databases[0].inventory == nil {
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
func next(st report.Status, s *survey, opens string) string {
	last := s.last()
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
