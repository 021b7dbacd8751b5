package cutover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
)

// openSQL is the one transaction that opens a database: it looks at the server
// once more and raises rather than open what is not drained.
func (x *crossing) openSQL(db *database) string {
	var b strings.Builder
	fmt.Fprintf(&b, "DO $open$\nBEGIN\n  IF pg_is_in_recovery() THEN RAISE 'this server is a standby'; END IF;\n"+
		"  IF (SELECT system_identifier FROM pg_control_system()) <> %s THEN RAISE 'this is another server than the one that was drained'; END IF;\n"+
		"  IF ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int <> %d THEN RAISE 'this server has changed its timeline since the drain'; END IF;\n",
		x.Opening.Identity.SystemID, x.Opening.Identity.Timeline)
	for _, l := range db.Links {
		fmt.Fprintf(&b, "  IF coalesce(pg_replication_origin_progress('pg_' || (SELECT oid FROM pg_subscription WHERE subname = %s), true), '0/0') < $drained_%s THEN RAISE 'link %s has not drained'; END IF;\n",
			pg.Literal(l.Name), l.Name, l.Name)
	}
	b.WriteString("END $open$;\n" + x.Part.Lowered() + ";\n" + db.Lift)
	for _, sql := range db.RestoreOpening {
		b.WriteString(";\n" + sql)
	}
	if db.Name == x.Home {
		b.WriteString(";\n" + x.Part.Own(copyDecision))
	}
	return b.String()
}

// open is the point of no return: the decision row on the closing side, and
// then the fence of the opening side. No row returned means that somebody else
// has voided the decision: nothing is opened.
func (x *crossing) open() flow.Step {
	does := []flow.Effect{x.on(x.Closing, x.Home, x.Part.Own(openDecision))}
	for _, db := range x.databases {
		does = append(does, x.on(x.Opening, db.Name, x.openSQL(db)), x.clients.endEffect(x.Opening, db.Name))
	}
	return flow.Step{
		ID: "open", Title: "Open " + x.Opening.Name, Does: does, Commit: true, Done: never, Blocks: true,
		Cost: flow.Cost{Base: 5 * time.Millisecond, Trips: 3},
		Do: func(ctx context.Context, t *flow.Turn) error {
			if err := x.decide(ctx, t); err != nil {
				return err
			}
			x.hold.decided(t)
			ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("the other side could not be opened within 2 minutes"))
			defer cancel()
			if err := x.each(ctx, func(ctx context.Context, db *database) error { return x.openDatabase(ctx, db) }); err != nil {
				return err
			}
			x.mu.Lock()
			if !x.blocked.IsZero() {
				x.took = time.Since(x.blocked)
			}
			x.mu.Unlock()
			return nil
		},
	}
}

// decide changes the row from closed to open. Where the answer is lost, it
// asks again until it knows: the row itself tells.
func (x *crossing) decide(ctx context.Context, t *flow.Turn) error {
	if x.decided {
		return nil
	}
	vars, err := x.vars(Memory{})
	if err != nil {
		return fmt.Errorf("%w: %w", flow.ErrNotTaken, err)
	}
	e := x.on(x.Closing, x.Home, x.Part.Own(openDecision)).Fill(vars)
	conn, err := x.onClosing(ctx, x.Home)
	if err == nil {
		if err = x.same(ctx, conn, x.Closing); err == nil {
			err = x.reach(ctx)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", flow.ErrNotTaken, err)
		}
		err = change(ctx, conn, e)
	}
	if err == nil {
		return nil
	}
	t.Note("the answer to the decision was lost (%v); asking again", err)
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Second, errors.New("the row was not to be read for 10 seconds"))
	defer cancel()
	var state State
	perr := pg.Poll(ctx, 50*time.Millisecond, "the decision's row", func(ctx context.Context) (bool, error) {
		conn, err := x.onClosing(ctx, x.Home)
		if err != nil {
			return false, nil // asked again until the limit
		}
		return conn.QueryRow(ctx, x.Part.Own("SELECT state FROM crossfade.upgrade WHERE attempt = $1"), x.Attempt).Scan(&state) == nil, nil
	})
	switch {
	case perr != nil:
		return fmt.Errorf("%w; it is not known whether the decision was taken: %w", err, perr)
	case state == Open:
		return nil
	}
	return fmt.Errorf("%w: the decision is %s: %w", flow.ErrNotTaken, state, err)
}

// reachTime is how long the opening side may take to answer just before the
// decision.
const reachTime = 2 * time.Second

// reach sees that what is to be opened answers, and is the server that was
// drained. Behind the decision there is only forward: were it out of reach then,
// nobody would take writes until it is back.
func (x *crossing) reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, reachTime, fmt.Errorf("%s did not answer within %s", x.Opening.Server, reachTime))
	defer cancel()
	return x.each(ctx, func(ctx context.Context, db *database) error {
		conn, err := x.onOpening(ctx, db.Name)
		if err != nil {
			return err
		}
		return x.same(ctx, conn, x.Opening)
	})
}

func (x *crossing) openDatabase(ctx context.Context, db *database) error {
	m := x.memory()
	vars, err := x.vars(m)
	if err != nil {
		return err
	}
	for _, l := range db.Links {
		vars["drained_"+l.Name] = pg.Literal(m.Origins[l.Name].String())
	}
	e := x.on(x.Opening, db.Name, x.openSQL(db)).Fill(vars)
	return pg.Poll(ctx, 200*time.Millisecond, "database "+db.Name+" of "+x.Opening.Name+" to open", func(ctx context.Context) (bool, error) {
		conn, err := x.onOpening(ctx, db.Name)
		if err != nil {
			return false, nil // reached again until the limit: there is only forward
		}
		if up, err := x.Part.Up(ctx, conn); err == nil && !up {
			return true, nil // opened by an earlier run: what it was drained of may be dropped by now
		}
		if err := pg.Exec(ctx, conn, e.SQL); err != nil {
			if pg.SQLState(err) == "" || conn.IsClosed() {
				return false, nil
			}
			return false, &pg.Error{Doing: "open database " + db.Name, On: x.Opening.Server.String(), Err: err}
		}
		// Sessions that were there before have the read-only default pinned.
		return true, x.clients.end(ctx, conn, x.Opening)
	})
}

// readOnly ends every session of the closed side that began before new ones were
// read-only: those that wait at the fence, so that they find the other side, and
// any that was missed. What makes new sessions read-only, so that libpq's
// target_session_attrs finds the other side, is a part of close; it is repeated,
// because somebody may have reset it. A server that is gone for good holds nothing
// up.
func (x *crossing) readOnly() flow.Step {
	var does []flow.Effect
	for _, db := range x.databases {
		if !db.Shared {
			does = append(does, x.on(x.Closing, db.Name, ReadOnly(db.Name)))
		}
	}
	all := slices.Clone(does)
	if len(does) > 0 {
		all = append(all, x.clients.endEffect(x.Closing, x.Home))
	}
	return flow.Step{
		ID: "read-only", Title: "End the sessions of " + x.Closing.Name + " that are not read-only", Does: all, Done: never,
		Beside: served, Lane: "closed", Cost: flow.Cost{Base: 2 * time.Millisecond, Trips: 2},
		Do: func(ctx context.Context, t *flow.Turn) error {
			// A client that waits at the fence goes on when it finds the other side.
			defer x.barrier.release()
			if len(does) == 0 {
				return nil
			}
			return x.ifThere(ctx, t, "its sessions end when it is back: run the same command again", func(ctx context.Context) error {
				if err := x.run(ctx, does, nil); err != nil {
					return err
				}
				conn, err := x.onClosing(ctx, x.Home)
				if err != nil {
					return err
				}
				return x.clients.end(ctx, conn, x.Closing)
			})
		},
	}
}

// ReadOnly is the statement that makes new sessions of a database read-only.
func ReadOnly(db string) string {
	return "ALTER DATABASE " + pg.Ident(db) + " SET default_transaction_read_only = on"
}

// absent reports whether err may mean that a server was not there: whatever is no
// answer of a living one.
func absent(err error) bool {
	if err == nil {
		return false
	}
	state := pg.SQLState(err)
	return state == "" || strings.HasPrefix(state, "57P") || strings.HasPrefix(state, "08")
}

// follow sees the closed side follow the open one.
func (x *crossing) follow() flow.Step {
	return flow.Step{
		ID: "back/follow", Title: x.Closing.Name + " follows " + x.Opening.Name, Done: never, Beside: served, Lane: "closed",
		Cost: flow.Cost{Base: 3 * time.Millisecond, Trips: 2},
		Do: func(ctx context.Context, t *flow.Turn) error {
			if !x.Back {
				return nil
			}
			return x.ifThere(ctx, t, "the way back does not move", func(ctx context.Context) error {
				return x.each(ctx, func(ctx context.Context, db *database) error {
					to, from, err := x.ends(ctx, db)
					if err != nil {
						return err
					}
					_, err = link.Pass(ctx, from, to, db.Way)
					return err
				})
			})
		},
	}
}

// DoneTitle is the title of the last step of a crossing.
const DoneTitle = "Record that nothing is left to do"

// done records on the open side that the crossing is complete: until then the same
// command, run again, does everything after open once more.
func (x *crossing) done() flow.Step {
	e := x.on(x.Opening, x.Home, x.Part.DoneDecision())
	return flow.Step{
		ID: "done", Title: DoneTitle, Does: []flow.Effect{e}, Late: true, Done: never,
		Do: func(ctx context.Context, _ *flow.Turn) error {
			vars, err := x.vars(Memory{})
			if err != nil {
				return err
			}
			return x.run(ctx, []flow.Effect{e}, vars)
		},
	}
}

// closedAgain looks at everything again that a decision found closed stands on.
func (x *crossing) closedAgain(d Decision) flow.Step {
	return flow.Step{
		ID: "closed/again", Title: "Look again at what the decision stands on", Done: never, Blocks: true,
		Does: append(append([]flow.Effect{x.clients.endEffect(x.Closing, x.Home)}, x.sequences.aheadEffects()...), x.leaks.flushEffects()...),
		Do: func(ctx context.Context, t *flow.Turn) error {
			x.begin()
			ctx, cancel := x.budget(ctx)
			defer cancel()
			// The run that closed may not have come to this: a session from before
			// could still use a sequence.
			conn, err := x.onClosing(ctx, x.Home)
			if err == nil {
				err = x.clients.endOthers(ctx, conn, nil)
			}
			if err != nil {
				return err
			}
			return x.lookAtDecision(ctx, d)
		},
	}
}

func (x *crossing) lookAtDecision(ctx context.Context, d Decision) error {
	if d.Closing != WhomOf(x.Closing) || d.Opening != WhomOf(x.Opening) {
		return fmt.Errorf("the decision was taken for other servers or timelines (%v → %v) than these (%v → %v)", d.Closing, d.Opening, WhomOf(x.Closing), WhomOf(x.Opening))
	}
	// What close/kept waits for: the standbys that stream, those that streamed
	// then, and those of the runbook, of which none may be missing.
	ok, says, err := x.standbys.gate(ctx)
	if err != nil {
		return err
	}
	if !ok {
		return errors.New(says)
	}
	x.mu.Lock()
	for _, name := range d.Standbys {
		x.streams.streamed[name] = true
	}
	x.mu.Unlock()
	home, err := x.onClosing(ctx, x.Home)
	if err != nil {
		return err
	}
	if err := home.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()").Scan(&x.closed); err != nil {
		return &pg.Error{Doing: "read the position of close", On: x.Closing.Server.String(), Err: err}
	}
	return x.each(ctx, func(ctx context.Context, db *database) error {
		conn, err := x.onClosing(ctx, db.Name)
		if err != nil {
			return err
		}
		up, err := x.Part.Up(ctx, conn)
		if err != nil {
			return err
		}
		if !up {
			return fmt.Errorf("database %s of %s is not closed", db.Name, x.Closing.Name)
		}
		behind, err := link.NotDrained(ctx, conn, db.Links, d.Fence[db.Name])
		if err != nil {
			return err
		}
		if behind != "" {
			return fmt.Errorf("links have not applied the fence LSN %s: %s", d.Fence[db.Name], behind)
		}
		x.mu.Lock()
		larges := d.Larges[db.Name]
		db.print, db.larges = d.Prints[db.Name], &larges
		x.mu.Unlock()
		if _, err := x.sequences.copyAll(ctx, db); err != nil {
			return err
		}
		if err := x.fence.lookAgain(ctx, db); err != nil {
			return err
		}
		if !x.Back {
			return nil
		}
		opening, err := x.onOpening(ctx, db.Name)
		if err != nil {
			return err
		}
		_, err = link.Pass(ctx, opening, conn, db.Way)
		return err
	})
}
