package cutover

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// recheck is what a try begins with, while nobody is blocked yet.
type recheck struct {
	*attempt
	barrier   *barrier
	fence     *fence
	gates     *gates
	sequences *sequences
}

// look waits until no old transaction writes, and makes ready whatever would take time
// under the locks.
func (k *recheck) look(ctx context.Context, t *flow.Turn) error {
	if err := k.mayBegin(ctx, t); err != nil {
		return err
	}
	k.forgetFences()
	if err := k.buildsEnd(ctx, t); err != nil {
		return err
	}
	if err := k.meetBarrier(ctx); err != nil {
		return err
	}
	for _, s := range Look(ctx, k.gates.cataloged()) {
		if !s.OK {
			return &ErrGate{[]GateState{s}}
		}
	}
	if err := k.freshen(ctx, t); err != nil {
		return err
	}
	return k.sequences.aheadOfTheWindow(ctx)
}

// effects are what look changes or locks.
func (k *recheck) effects() []flow.Effect {
	var does []flow.Effect
	for _, db := range k.databases {
		if e, ok := k.barrier.warmEffect(db); ok {
			does = append(does, e)
		}
	}
	if end, ok := k.sender(); ok {
		for range follows {
			does = append(does, end.FollowEffects()...)
			for _, db := range k.databases {
				if len(db.Links) > 0 {
					does = append(does, link.CanaryEffect(db.Links))
				}
			}
		}
	}
	return append(does, k.sequences.aheadEffects()...)
}

// mayBegin waits, with nobody blocked, until no write transaction is older
// than half of max_blocked, and none through a pooler older than its PAUSE
// waits: such a one would only use the budget up. It ends those older than
// kill_after.
func (k *recheck) mayBegin(ctx context.Context, t *flow.Turn) error {
	ctx, cancel := context.WithTimeoutCause(ctx, k.remains(), ErrPatience)
	defer cancel()
	noted := time.Time{}
	gate, says := "", ""
	err := pg.Poll(ctx, 100*time.Millisecond, "old transactions to end", func(ctx context.Context) (bool, error) {
		gate, says = "", ""
		for _, db := range k.databases {
			if err := k.kill(ctx, t, db.Name); err != nil {
				return false, err
			}
			said, err := k.gates.closingGate(ctx, db)
			if err != nil {
				return false, err
			}
			if said != "" {
				gate, says = "closing", said
			}
		}
		if says == "" {
			ok, said, err := k.gates.poolGate(ctx)
			if err != nil {
				return false, err
			}
			if !ok {
				gate, says = "pool", said
			}
		}
		if says != "" && time.Since(noted) > 5*time.Second {
			noted = time.Now()
			t.Note("not begun yet: %s", says)
		}
		return says == "", nil
	})
	if errors.Is(err, ErrPatience) && says != "" {
		return &ErrGate{[]GateState{{ID: gate, Says: says}}}
	}
	return err
}

// buildTime is how long is waited for indexes that are built CONCURRENTLY.
const buildTime = 5 * time.Second

// buildsEnd waits a while for indexes that are built CONCURRENTLY on the closing
// side. Such a build waits for snapshots that began before, as the gates' looks at
// the catalogs have them: when these end it swaps its index in, and close would be
// undone over catalogs that have changed. One that takes longer is not waited for:
// that it ends in the moment of the close is unlikely then.
func (k *recheck) buildsEnd(ctx context.Context, t *flow.Turn) error {
	if k.Closing.Version < 120000 { // it cannot be asked
		return nil
	}
	late := fmt.Errorf("%s have passed", buildTime)
	bounded, cancel := context.WithTimeoutCause(ctx, min(buildTime, k.remains()), late)
	defer cancel()
	var builds []string
	err := pg.Poll(bounded, 20*time.Millisecond, "indexes that are built CONCURRENTLY", func(ctx context.Context) (bool, error) {
		var now []string
		for _, db := range k.databases {
			conn, err := k.onClosing(ctx, db.Name)
			if err != nil {
				return false, err
			}
			rows, err := conn.Query(ctx, "SELECT format('%s by pid %s in %s', command, pid, datname) FROM pg_stat_progress_create_index WHERE datname = current_database() AND command LIKE '%CONCURRENTLY' ORDER BY pid")
			if err != nil {
				return false, err
			}
			some, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				return false, err
			}
			now = append(now, some...)
		}
		builds = now
		return len(builds) == 0, nil
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(context.Cause(bounded), late) && ctx.Err() == nil:
		if len(builds) > 0 {
			t.Note("an index that is being built on %s is not waited for: %s", k.Closing.Name, strings.Join(builds, ", "))
		}
		return nil
	}
	return &pg.Error{Doing: "look for indexes that are being built", On: k.Closing.Server.String(), Err: err}
}

// kill ends transactions that write and are older than kill_after.
func (k *recheck) kill(ctx context.Context, t *flow.Turn, db string) error {
	if k.KillAfter <= 0 {
		return nil
	}
	conn, err := k.onClosing(ctx, db)
	if err != nil {
		return err
	}
	var ended *string
	err = conn.QueryRow(ctx, `
		SELECT string_agg(format('pid %s of %s', pid, usename), ', ') FROM (
		  SELECT a.pid, a.usename, pg_terminate_backend(a.pid) FROM pg_stat_activity a
		  WHERE a.datname = current_database() AND a.backend_xid IS NOT NULL AND a.pid <> pg_backend_pid()
		    AND a.backend_type = 'client backend' AND a.application_name <> $2 AND a.application_name NOT LIKE $2 || ' %'
		    AND a.xact_start < now() - make_interval(secs => $1::double precision)) k`, k.KillAfter.Seconds(), k.app()).Scan(&ended)
	if err != nil {
		return &pg.Error{Doing: "end transactions older than kill_after", On: k.Closing.Server.String(), Err: err}
	}
	if ended != nil {
		t.Note("ended transactions older than kill_after (%s) in %s: %s", k.KillAfter, db, *ended)
	}
	return nil
}

// manyTables is from how many tables of a database on another session is worth it that
// helps after close.
const manyTables = 1000

// meetBarrier opens the sessions of the barrier and takes the fingerprint of the
// catalogs in them. What recheck looks at after it depends on the catalogs alone, and
// needs not be asked under the locks, as long as the fingerprint stays.
func (k *recheck) meetBarrier(ctx context.Context) error {
	k.barrier.renew()
	return k.each(ctx, func(ctx context.Context, db *database) error {
		conn, err := k.barrier.open(ctx, db)
		if err != nil {
			return err
		}
		conns := []*pgx.Conn{conn}
		if len(db.Tables) >= manyTables {
			// Where there is no room for it, one does it all, as of a small database.
			if beside, err := k.session(ctx, &db.beside, k.Closing, db.Name); err == nil {
				conns = append(conns, beside)
			}
		}
		print, err := k.fence.print(ctx, conns...)
		if err != nil {
			return err
		}
		k.mu.Lock()
		db.print = print
		k.mu.Unlock()
		return k.barrier.warm(ctx, conn, db)
	})
}

// freshTime is how long slots may take to begin where the server is.
const freshTime = 2 * time.Second

// follows is how often slots are let follow. Where one begins lies before what the
// server wrote down last when the oldest open transaction began: the first time that
// is somewhere before, the second time it is the first time's.
const follows = 2

// freshen lets the slots begin where the server is now, so that there is little
// to be decoded when close looks for leaks. Where that does not come in time, close
// takes longer; where it would take longer than max_blocked, it is undone.
func (k *recheck) freshen(ctx context.Context, t *flow.Turn) error {
	end, ok := k.sender()
	if !ok {
		return nil
	}
	conn, err := k.onClosing(ctx, end.Server.Database())
	if err != nil {
		return err
	}
	late := fmt.Errorf("a canary was not confirmed within %s", freshTime)
	bounded, cancel := context.WithTimeoutCause(ctx, freshTime, late)
	defer cancel()
	for range follows {
		refused, err := end.Follow(ctx, conn)
		if err != nil {
			return err
		}
		if refused != nil {
			t.Note("the slots of %s do not follow at once, so that the look for leaks takes longer: %v", k.Closing.Name, refused)
			return nil
		}
		err = k.confirm(bounded)
		if errors.Is(context.Cause(bounded), late) {
			t.Note("the slots of %s do not follow at once, so that the look for leaks takes longer: %v", k.Closing.Name, late)
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// confirm waits until each link has told the closing side that it has everything
// up to now: that a canary was seen is not enough, because a worker tells so only
// every wal_receiver_status_interval.
func (k *recheck) confirm(ctx context.Context) error {
	return k.each(ctx, func(ctx context.Context, db *database) error {
		if len(db.Links) == 0 {
			return nil
		}
		from, to, err := k.ends(ctx, db)
		if err != nil {
			return err
		}
		token := link.Token()
		at, err := link.WriteCanary(ctx, from, db.Links, token)
		if err != nil {
			return err
		}
		_, err = link.Drain(ctx, from, to, db.Links, token, at)
		return err
	})
}

// sender is the closing side as a link knows it; false where nothing is sent.
func (k *recheck) sender() (link.End, bool) {
	for _, db := range k.databases {
		if len(db.Links) > 0 {
			return db.Links[0].From, true
		}
	}
	return link.End{}, false
}
