// Package upgrade composes an upgrade from its runbook: servers, links, plans
// and status. It is the only package that knows all the others; what each of
// them may know is in docs/contract.md and kept by a test.
package upgrade

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"crossfade/cutover"
	"crossfade/upgrade/check"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/load"
	"crossfade/upgrade/manager"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/runbook"

	"github.com/jackc/pgx/v5"
)

// Upgrade is one upgrade: a runbook and the servers that it names. Where the
// tables of old are split over several new clusters it is made of parts, one for
// each of them, and a part is as an upgrade to that cluster alone.
type Upgrade struct {
	parts parts        // nil: there is one new cluster
	whole *Upgrade     // that this is a part of, or nil
	part  cutover.Part // the cluster that this part is for; "": it is none

	rb       *runbook.Runbook
	app      string
	run      runID // of this process
	old, new *pg.Server
	// oldFromNew is how new's server reaches old, newFromOld the other way.
	oldFromNew, newFromOld *pg.Server
	// places are the hosts of old.primary where it names several; located: old is
	// the one of them that was found to be the primary.
	places   []place
	located  bool
	sessions pg.Sessions
	passed   bool       // this process has run check, and nothing blocks
	holding  *hold      // what this process holds of the upgrade now, or nil
	until    time.Time  // no attempt of a crossing begins after it; zero: no limit
	pace     *load.Pace // of every copy; nil: none

	// known are the databases that are moved, as the last survey found them.
	known atomic.Pointer[[]string]

	mu      sync.Mutex
	told    told
	found   []manager.Manager // of old; nil: nobody has looked yet
	foundOn *pg.Server        // which one they were found on
}

// Open reads the servers' addresses from the runbook. Nothing is connected.
func Open(_ context.Context, rb *runbook.Runbook) (*Upgrade, error) {
	if err := acceptable(rb); err != nil {
		return nil, err
	}
	if len(rb.New) == 1 {
		return open(rb, appOf(rb), newRunID())
	}
	old, err := pg.Parse("old", rb.Old.Primary, rb.Old.Bin)
	if err != nil {
		return nil, &exit.Error{Code: exit.Usage, Says: err.Error(), Err: err}
	}
	u := &Upgrade{rb: rb, app: appOf(rb), run: newRunID(), old: old.As(appOf(rb))}
	for _, c := range rb.New {
		p, err := open(rb.For(c.Cluster), appOf(rb)+" "+c.Cluster, u.run)
		if err != nil {
			return nil, err
		}
		p.whole, p.part = u, cutover.Part(c.Cluster)
		u.parts = append(u.parts, p)
	}
	return u, nil
}

// appOf begins the application_name of every session of an upgrade.
func appOf(rb *runbook.Runbook) string { return "crossfade " + rb.Upgrade }

// open is Open for one new cluster.
func open(rb *runbook.Runbook, app string, run runID) (*Upgrade, error) {
	u := &Upgrade{rb: rb, app: app, run: run, pace: load.NewPace(rb.Copy.Limit)}
	cluster := rb.New[0]
	for _, s := range []struct {
		at             **pg.Server
		name, conninfo string
		bin            string
	}{
		{&u.old, "old", rb.Old.Primary, rb.Old.Bin},
		{&u.new, "new", cluster.Primary, cluster.Bin},
		{&u.oldFromNew, "old", cmp.Or(cluster.FromNew, rb.Old.Primary), ""},
		{&u.newFromOld, "new", cmp.Or(cluster.FromOld, cluster.Primary), ""},
	} {
		server, err := pg.Parse(s.name, s.conninfo, s.bin)
		if err != nil {
			return nil, &exit.Error{Code: exit.Usage, Says: err.Error(), Err: err}
		}
		*s.at = server.As(u.app)
	}
	var err error
	if u.places, err = places(u.old, u.oldFromNew); err != nil {
		return nil, &exit.Error{Code: exit.Usage, Says: err.Error(), Err: err}
	}
	return u, nil
}

// acceptable refuses accept: entries that name no finding, or one that nobody
// can answer for.
func acceptable(rb *runbook.Runbook) error {
	may := map[string]bool{}
	for _, c := range check.Checks() {
		may[c.ID] = c.Acceptable
	}
	for _, k := range otherKinds() {
		may[k.id] = k.acceptable
	}
	var problems []runbook.Problem
	for _, a := range rb.Accept {
		ok, known := may[a.ID]
		switch {
		case !known:
			problems = append(problems, rb.Problem(a.At, fmt.Sprintf("accept: there is no finding %q; crossfade check prints their ids", a.ID)))
		case !ok:
			problems = append(problems, rb.Problem(a.At, fmt.Sprintf("accept: %s cannot be accepted: going on would break the running application, lose rows, or get nowhere", a.ID)))
		}
	}
	if len(problems) > 0 {
		return &runbook.Error{Problems: problems}
	}
	return nil
}

// Watching is the same upgrade for one that only looks: its sessions carry a
// name of their own, by which a person knows them in pg_stat_activity.
func (u *Upgrade) Watching() *Upgrade {
	w := &Upgrade{rb: u.rb, app: u.app, run: u.run, oldFromNew: u.oldFromNew, newFromOld: u.newFromOld, whole: u.whole, part: u.part}
	w.old, w.new = u.old.As(u.app+" status"), u.new.As(u.app+" status")
	for _, p := range u.places {
		w.places = append(w.places, place{p.old.As(u.app + " status"), p.fromNew})
	}
	return w
}

// Close ends every session.
func (u *Upgrade) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	err := u.sessions.Close(ctx)
	for _, p := range u.parts {
		err = errors.Join(err, p.Close())
	}
	return err
}

// Runbook is what the upgrade was opened with.
func (u *Upgrade) Runbook() *runbook.Runbook { return u.rb }

// fleet executes effects on old and new, in kept sessions.
func (u *Upgrade) fleet() pg.Fleet {
	return pg.Fleet{Servers: map[string]*pg.Server{"old": u.old, "new": u.new}, Sessions: &u.sessions}
}

// do executes an effect on the server that it is for, in a kept session.
func (u *Upgrade) do(ctx context.Context, e flow.Effect) error { return u.fleet().Do(ctx, e) }

// side is the server of a side by its name in plans.
func (u *Upgrade) side(name string) *pg.Server {
	if name == "old" {
		return u.old
	}
	return u.new
}

// on runs f in a kept session of a side's own database.
func (u *Upgrade) on(ctx context.Context, side string, f func(*pgx.Conn) error) error {
	return u.sessions.Do(ctx, u.side(side), f)
}

// in runs f in a kept session of a database of a side.
func (u *Upgrade) in(ctx context.Context, side, database string, f func(*pgx.Conn) error) error {
	return u.sessions.Do(ctx, u.side(side).With(database), f)
}

// pair runs f in kept sessions of two servers at once.
func (u *Upgrade) pair(ctx context.Context, from, to *pg.Server, f func(from, to *pgx.Conn) error) error {
	return u.sessions.Do(ctx, from, func(a *pgx.Conn) error {
		return u.sessions.Do(ctx, to, func(b *pgx.Conn) error { return f(a, b) })
	})
}

// knows remembers which databases are moved, as the last survey found them.
func (u *Upgrade) knows(databases []string) { u.known.Store(&databases) }

// moves are the databases that are moved; nil where the runbook does not name
// them and no server was asked yet.
func (u *Upgrade) moves() []string {
	if known := u.known.Load(); known != nil {
		return *known
	}
	var names []string
	for _, db := range u.rb.Databases {
		names = append(names, db.Name)
	}
	return names
}

// exec is the Do of a step that only executes its effects.
func (u *Upgrade) exec(effects []flow.Effect, vars func() map[string]string) func(context.Context, *flow.Turn) error {
	return flow.Exec(u.do, effects, vars)
}

// program is a client program of new's major.
func (u *Upgrade) program(name string, major int) (string, error) {
	path, err := pg.Program(u.new.Bin, name, major)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	return path, nil
}
