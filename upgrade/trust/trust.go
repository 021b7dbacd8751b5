// Package trust says whether what new has of old may still be believed, although no
// link lags: after failovers, and after what somebody did by hand. It keeps what was
// written down of a link when it was made.
package trust

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"crossfade/cutover"
	"crossfade/upgrade/clusters"
	"crossfade/upgrade/ground"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"
	"crossfade/upgrade/runbook"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// Trust is that in one upgrade.
type Trust struct {
	c      *clusters.Clusters
	ground *ground.Ground
}

// New is the trust in what c holds.
func New(c *clusters.Clusters, g *ground.Ground) *Trust { return &Trust{c, g} }

// doubts are why what new holds may not be what old holds, although no link
// lags: what somebody did by hand, and failovers.
type doubts struct {
	stranger string            // a side is another cluster: nothing can be done here
	links    map[string]string // by link: why its tables must be copied again
	verify   []string          // why rows must be compared again
	mend     []string          // what prepare puts right without either
	moved    []string          // sides that have failed over
}

// says is every doubt in words; "" is none.
func (d doubts) says() string {
	var all []string
	if d.stranger != "" {
		all = append(all, d.stranger)
	}
	all = append(all, d.moved...)
	for _, name := range slices.Sorted(maps.Keys(d.links)) {
		all = append(all, name+": "+d.links[name]+", so that its tables must be copied again")
	}
	for _, why := range d.verify {
		all = append(all, why+", so that rows must be compared again")
	}
	return strings.Join(append(all, d.mend...), "; ")
}

// hasMoved tells whether a side is still the server that it was: stranger, where
// it is another cluster, and moved, where a standby of it was promoted.
func hasMoved(side string, was cutover.Whom, now cutover.Side) (stranger, moved string) {
	id := now.Identity
	switch {
	case was.System == "" || id.SystemID == "":
	case was.System != id.SystemID:
		stranger = fmt.Sprintf("%s is another cluster (system identifier %s) than the one that this upgrade began with (%s): correct %s's primary in the runbook",
			now.Server, id.SystemID, was.System, side)
	case was.Timeline != id.Timeline:
		moved = fmt.Sprintf("%s has failed over: %s is on timeline %d, and what was made was made with timeline %d", side, now.Server, id.Timeline, was.Timeline)
	}
	return stranger, moved
}

// doubt looks for everything that makes new's rows doubtful. full: databases
// have been looked at.
func (tr *Trust) doubt(ctx context.Context, s *survey.Survey) (doubts, error) {
	d := doubts{links: map[string]string{}}
	if s.OldErr != nil || s.NewErr != nil || s.Zero() == nil {
		return d, nil
	}
	wasOld, wasNew := s.Remembered()
	strangerOld, movedOld := hasMoved("old", wasOld, s.Old)
	strangerNew, movedNew := hasMoved("new", wasNew, s.New)
	d.stranger = cmp.Or(strangerOld, strangerNew)
	for _, m := range []string{movedOld, movedNew} {
		if m != "" {
			d.moved = append(d.moved, m)
		}
	}
	if d.stranger != "" || s.Phase != report.PhasePreparing && s.Phase != report.PhaseReady {
		return d, nil
	}
	fork := forked{was: wasOld.Timeline, found: movedOld != ""}
	if fork.found {
		if err := tr.findFork(ctx, s, &fork); err != nil {
			return d, err
		}
	}
	for _, db := range s.Databases {
		if err := tr.doubtDatabase(ctx, s, db, fork, movedNew != "", &d); err != nil {
			return d, err
		}
	}
	return d, nil
}

func (tr *Trust) doubtDatabase(ctx context.Context, s *survey.Survey, db *survey.Database, fork forked, newMoved bool, d *doubts) error {
	at, err := s.Positions(ctx, db.Name, db.Links)
	if pg.SQLState(err) == "3D000" {
		return nil // not there yet on new
	}
	if err != nil {
		return err
	}
	made, err := tr.readLinks(ctx, db)
	if err != nil {
		return err
	}
	var published map[string]LinkMark
	err = tr.c.In(ctx, "old", db.Name, func(conn *pgx.Conn) (err error) {
		published, err = ReadPublished(ctx, conn, db.Links)
		return err
	})
	if err != nil {
		return err
	}
	wrong := map[string]string{}
	for _, r := range renamesOf(db, made) {
		d.mend = append(d.mend, r.String())
		if r.taken {
			wrong[r.link] = r.String() + ", a name that another replicated table had: rows may have gone into the wrong one"
		}
	}
	for _, l := range db.Links {
		p, m := at[l.Name], made[l.Name]
		why, check := tr.doubtLink(s, l, p, m, published[l.Name], fork)
		if newMoved && p.Subscription && why == "" {
			why = "new has failed over, and may have lost what it had applied"
		}
		why = cmp.Or(why, wrong[l.Name])
		switch {
		case why != "":
			d.links[l.Name] = why
		case check != "":
			d.verify = append(d.verify, check)
		case p.Subscription && p.Slot && p.Published != p.Subscribed:
			says, err := tr.mismatch(ctx, db, l, p)
			if err != nil {
				return err
			}
			d.mend = append(d.mend, says)
		case p.Subscription && !l.Reaches(m.conninfo):
			d.mend = append(d.mend, l.Name+" still asks another server for what it applies")
		}
	}
	if s.Phase != report.PhaseReady {
		return nil
	}
	open, err := tr.unfenced(ctx, db)
	if len(open) > 0 {
		d.verify = append(d.verify, fmt.Sprintf("the fence is off %s in %s on new: anybody could write there", report.Some(open), db.Name))
	}
	return err
}

// mismatch tells how a publication and its subscription differ.
func (tr *Trust) mismatch(ctx context.Context, db *survey.Database, l link.Link, p *link.Position) (string, error) {
	var gone []string
	err := tr.c.In(ctx, "new", db.Name, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `
			SELECT n.nspname::text, c.relname::text FROM pg_subscription_rel r
			JOIN pg_class c ON c.oid = r.srrelid JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE r.srsubid = $1 AND n.nspname <> 'crossfade' ORDER BY 1, 2`, p.SubID)
		if err != nil {
			return err
		}
		var schema, name string
		_, err = pgx.ForEachRow(rows, []any{&schema, &name}, func() error {
			if db.Inventory.Find(schema, name) == nil {
				gone = append(gone, schema+"."+name)
			}
			return nil
		})
		return err
	})
	if err != nil {
		return "", &pg.Error{Doing: "read what " + l.Name + " subscribes to", On: tr.c.New.String(), Err: err}
	}
	if len(gone) == 0 {
		if gone, err = tr.lost(ctx, db, l); err != nil {
			return "", err
		}
		if len(gone) > 0 {
			return fmt.Sprintf("%s is not on new any more: make it again there as it is on old (BEGIN READ WRITE before it), or drop it on old, too", report.Some(gone)), nil
		}
		return fmt.Sprintf("%s publishes %d tables and subscribes %d", l.Name, p.Published, p.Subscribed), nil
	}
	return fmt.Sprintf("%s was dropped on old: drop it on new, too (BEGIN READ WRITE before it), or make it again on old from what new has", report.Some(gone)), nil
}

// lost are the tables of a link that new does not have.
func (tr *Trust) lost(ctx context.Context, db *survey.Database, l link.Link) (gone []string, err error) {
	names, quoted := []string{}, []string{}
	for _, t := range l.Tables {
		names, quoted = append(names, t.String()), append(quoted, t.SQL())
	}
	err = tr.c.In(ctx, "new", db.Name, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT coalesce(array_agg(n ORDER BY n), '{}') FROM unnest($1::text[], $2::text[]) k(n, q) WHERE to_regclass(q) IS NULL", names, quoted).Scan(&gone)
	})
	if err != nil {
		return nil, &pg.Error{Doing: "look which tables of " + l.Name + " are there", On: tr.c.New.String(), Err: err}
	}
	return gone, nil
}

// doubtLink tells why one link's tables must be copied again, or why its rows
// must be compared; both "" where it goes on as it is.
func (tr *Trust) doubtLink(s *survey.Survey, l link.Link, p *link.Position, m madeLink, now LinkMark, fork forked) (again, check string) {
	began := p.Slot || p.Subscription || m.point != 0
	switch {
	case !began:
		return "", "" // not made yet, or taken along by prepare
	case fork.found && !p.Slot:
		return "its slot did not survive the failover of old", ""
	case p.Lost:
		return "its slot has lost WAL that was not sent", ""
	case !p.Slot && p.Subscription:
		return "its slot was dropped", ""
	case s.Phase == report.PhaseReady && !p.Subscription:
		return "its subscription was dropped", ""
	case m.publication != 0 && now.Publication == 0:
		return "its publication was dropped", ""
	case m.publication != 0 && m.publication != now.Publication:
		return "its publication was dropped and made again", ""
	case m.publication != 0 && slices.ContainsFunc(now.Tables, func(oid uint32) bool { return !slices.Contains(m.tables, oid) }):
		return "tables were put into its publication by hand", ""
	}
	if !fork.found {
		return "", ""
	}
	return fork.judge(p, m, l.Reaches(m.conninfo) && p.Active, string(tr.c.Book.Verify.Mode) == string(runbook.VerifyFull))
}

// forked is where the timeline that links were made with ended.
type forked struct {
	found bool
	was   int32
	at    pg.LSN // 0: the timeline now has no such ancestor
}

// judge tells whether new may hold rows that old's new primary never had.
// followed: the subscription has found the new primary by itself, so that its
// position says nothing of what it had before.
func (f forked) judge(p *link.Position, m madeLink, followed, verify bool) (again, check string) {
	has := m.point
	if p.Origin != nil {
		has = max(has, *p.Origin)
	}
	switch {
	case f.at == 0:
		return "old's new primary does not descend from the one that it was made with", ""
	case has <= f.at:
		return "", ""
	case followed && verify:
		return "", fmt.Sprintf("%s has followed old's failover by itself: whether it had rows beyond %s, where the timeline forked, is not known", p.Name, f.at)
	case followed:
		return fmt.Sprintf("it has followed old's failover by itself, and whether it had rows beyond %s, where the timeline forked, is not known", f.at), ""
	}
	return fmt.Sprintf("new has it up to %s, and old's new primary lacks everything of the earlier one after %s", has, f.at), ""
}

// findFork asks old's new primary where the earlier timeline ended.
func (tr *Trust) findFork(ctx context.Context, s *survey.Survey, f *forked) error {
	rep, err := tr.c.Old.Replication(ctx, s.Old.Version)
	if err != nil {
		return err
	}
	ends, err := pg.Timelines(ctx, rep, s.Old.Identity.Timeline)
	if cerr := rep.Close(context.WithoutCancel(ctx)); err == nil {
		err = cerr
	}
	if err != nil {
		return &pg.Error{Doing: "read the history of the timeline", On: tr.c.Old.String(), Err: err}
	}
	f.at = ends[f.was]
	return nil
}

// unfenced are the tables of a database of new that anybody can write to.
func (tr *Trust) unfenced(ctx context.Context, db *survey.Database) (open []string, err error) {
	err = tr.c.In(ctx, "new", db.Name, func(conn *pgx.Conn) error {
		var up bool
		if up, err = tr.c.Part.Up(ctx, conn); err != nil {
			return err
		}
		if open, err = cutover.Unarmed(ctx, conn, db.Elsewhere()); err == nil && !up {
			open = []string{"every table"}
		}
		return err
	})
	return open, err
}

// Gate wants new to hold what old holds without a doubt.
func (tr *Trust) Gate(ctx context.Context, s *survey.Survey) (bool, string, error) {
	fresh := *s
	fresh.Old, fresh.OldErr = survey.Identify(ctx, tr.c, "old")
	fresh.New, fresh.NewErr = survey.Identify(ctx, tr.c, "new")
	if err := fresh.BothAnswer(); err != nil {
		return false, "", err
	}
	d, err := tr.doubt(ctx, &fresh)
	if err != nil {
		return false, "", err
	}
	says := d.says()
	if says == "" {
		if says = tr.Rivals(ctx, &fresh); says != "" {
			return false, says, nil
		}
		return true, "no failover, and nothing was dropped by hand", nil
	}
	shut := &cutover.ErrShut{Says: says}
	switch {
	case d.stranger != "":
		shut.Do = "correct the runbook, then crossfade check"
	case s.Phase == report.PhaseReady || s.Phase == report.PhasePreparing:
		shut.Says, shut.Do = says+": run crossfade prepare", "crossfade prepare"
	case s.Phase == report.PhaseOpen:
		shut.Says = says + ": the way back may have a gap and is not taken; crossfade verify names what differs, crossfade finish goes on without a way back"
		shut.Do = "crossfade verify"
	default:
		shut.Says, shut.Do = says+": what is kept in step may have a gap; run crossfade abort, and prepare again", "crossfade abort"
	}
	return false, "", shut
}

// Rivals names standbys of old, in the runbook, that are primaries beside it:
// clients may write to one that no link reads from.
func (tr *Trust) Rivals(ctx context.Context, s *survey.Survey) string {
	was, _ := s.Remembered()
	system := was.System
	if s.OldErr == nil {
		system = s.Old.Identity.SystemID
	}
	var says []string
	look := func(server *pg.Server, name string) {
		id, err := tr.c.Ask(ctx, server, name)
		switch {
		case err != nil, id.InRecovery, id.SystemID != system:
		case s.OldErr == nil && id.Started.Equal(s.Old.Identity.Started) && id.Timeline == s.Old.Identity.Timeline: // it is old's primary
		default:
			says = append(says, fmt.Sprintf("%s has been promoted: it is a primary on timeline %d; stop the one that must not serve, let old.primary in the runbook name the other, and run crossfade prepare", name, id.Timeline))
		}
	}
	for i, p := range tr.c.Places {
		if p.Old.String() != tr.c.Old.String() && s.OldErr == nil {
			look(p.Old, fmt.Sprintf("host %d of old.primary", i+1))
		}
	}
	for _, sb := range tr.c.Book.Old.Standbys {
		if server, err := pg.Parse(sb.Name, sb.Conninfo, ""); err == nil { // check says what is wrong with it
			look(server.As(tr.c.Old.App), "standby "+sb.Name+" of old")
		}
	}
	return strings.Join(says, "; ")
}
