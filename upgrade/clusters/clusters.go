// Package clusters is both clusters of an upgrade, old and new: their servers as
// the runbook names them, how each reaches the other, which of old's hosts is its
// primary now, the sessions that are kept on them, and the right to change the
// upgrade, which one run has at a time.
//
// It knows nothing of where an upgrade stands: that is package survey.
package clusters

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"crossfade/cutover"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/runbook"

	"github.com/jackc/pgx/v5"
)

// Clusters is old and one new cluster. Where the tables of old are split over
// several new clusters, each has Clusters of its own.
type Clusters struct {
	Book *runbook.Runbook
	Part cutover.Part // the new cluster's name where there are several; "": there is one
	App  string       // begins the application_name of every session

	Old, New *pg.Server
	// OldFromNew is how new's server reaches old, NewFromOld the other way.
	OldFromNew, NewFromOld *pg.Server
	// Places are the hosts of old.primary where it names several; located: Old is
	// the one of them that was found to be the primary.
	Places  []Place
	located bool

	Sessions pg.Sessions
	run      runID // of this process
	holding  *hold // what this process holds of the upgrade now, or nil

	// known are the databases that are moved, as the last survey found them.
	known atomic.Pointer[[]string]

	whole *whole // that these are a part of, or nil
}

// whole is an upgrade to several new clusters, as each of them sees it.
type whole struct {
	book  *runbook.Runbook
	parts []*Clusters // in the order of the runbook
}

// Open reads the servers' addresses from a runbook. Nothing is connected. Where
// it names several new clusters there are Clusters for each of them, in its order.
func Open(rb *runbook.Runbook) ([]*Clusters, error) {
	run := newRun()
	if len(rb.New) == 1 {
		c, err := open(rb, App(rb), run)
		return []*Clusters{c}, err
	}
	all := &whole{book: rb}
	for _, cluster := range rb.New {
		c, err := open(rb.For(cluster.Cluster), App(rb)+" "+cluster.Cluster, run)
		if err != nil {
			return nil, err
		}
		c.Part, c.whole = cutover.Part(cluster.Cluster), all
		all.parts = append(all.parts, c)
	}
	return all.parts, nil
}

// open is Open for one new cluster.
func open(rb *runbook.Runbook, app string, run runID) (*Clusters, error) {
	c := &Clusters{Book: rb, App: app, run: run}
	cluster := rb.New[0]
	for _, s := range []struct {
		at             **pg.Server
		name, conninfo string
		bin            string
	}{
		{&c.Old, "old", rb.Old.Primary, rb.Old.Bin},
		{&c.New, "new", cluster.Primary, cluster.Bin},
		{&c.OldFromNew, "old", cmp.Or(cluster.FromNew, rb.Old.Primary), ""},
		{&c.NewFromOld, "new", cmp.Or(cluster.FromOld, cluster.Primary), ""},
	} {
		server, err := pg.Parse(s.name, s.conninfo, s.bin)
		if err != nil {
			return nil, err
		}
		*s.at = server.As(c.App)
	}
	var err error
	c.Places, err = places(c.Old, c.OldFromNew)
	return c, err
}

// Watching is the same clusters for one that only looks: its sessions carry a
// name of their own, by which a person knows them in pg_stat_activity.
func (c *Clusters) Watching() *Clusters {
	w := &Clusters{Book: c.Book, Part: c.Part, App: c.App, run: c.run, OldFromNew: c.OldFromNew, NewFromOld: c.NewFromOld, whole: c.whole}
	w.Old, w.New = c.Old.As(c.App+" status"), c.New.As(c.App+" status")
	for _, p := range c.Places {
		w.Places = append(w.Places, Place{p.Old.As(c.App + " status"), p.FromNew})
	}
	return w
}

// Close ends every session.
func (c *Clusters) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return c.Sessions.Close(ctx)
}

// Parts are the Clusters of every new cluster of the upgrade, in the order of the
// runbook; nil where there is one.
func (c *Clusters) Parts() []*Clusters {
	if c.whole == nil {
		return nil
	}
	return c.whole.parts
}

// Siblings are the Clusters of the other new clusters.
func (c *Clusters) Siblings() []*Clusters {
	return slices.DeleteFunc(slices.Clone(c.Parts()), func(p *Clusters) bool { return p.Part == c.Part })
}

// UnderLock executes a statement that wants a strong lock for a moment: each
// try stands in the lock queue for 50 ms at most, so that clients after it,
// who may only want to read, wait no longer.
func (c *Clusters) UnderLock(ctx context.Context, e flow.Effect) error {
	last := error(nil)
	err := pg.Poll(ctx, LockPause, "a lock for "+pg.Brief(e.SQL), func(ctx context.Context) (bool, error) {
		last = c.In(ctx, e.On, e.Database, func(conn *pgx.Conn) error {
			return pg.Exec(ctx, conn, "SET LOCAL lock_timeout = '50ms'; "+e.SQL)
		})
		if pg.SQLState(last) == "55P03" {
			return false, nil
		}
		return last == nil, last
	})
	if err != nil {
		return &pg.Error{Doing: pg.Brief(e.SQL), On: c.Side(e.On).String() + ", database " + e.Database, Err: err}
	}
	return nil
}

// LockPause is how long writers go on undisturbed between two tries to have a
// strong lock on a table.
const LockPause = 300 * time.Millisecond

// App begins the application_name of every session of an upgrade.
func App(rb *runbook.Runbook) string { return "crossfade " + rb.Upgrade }

// fleet executes effects on old and new, in kept sessions.
func (c *Clusters) fleet() pg.Fleet {
	return pg.Fleet{Servers: map[string]*pg.Server{"old": c.Old, "new": c.New}, Sessions: &c.Sessions}
}

// Do executes an effect on the server that it is for, in a kept session.
func (c *Clusters) Do(ctx context.Context, e flow.Effect) error { return c.fleet().Do(ctx, e) }

// Side is the server of a side by its name in plans.
func (c *Clusters) Side(name string) *pg.Server {
	if name == "old" {
		return c.Old
	}
	return c.New
}

// Server is another server of the runbook, asked as these are. The error is bad usage.
func (c *Clusters) Server(name, conninfo, bin string) (*pg.Server, error) {
	s, err := pg.Parse(name, conninfo, bin)
	if err != nil {
		return nil, &exit.Error{Code: exit.Usage, Says: err.Error(), Err: err}
	}
	return s.As(c.App), nil
}

// On runs f in a kept session of a side's own database.
func (c *Clusters) On(ctx context.Context, side string, f func(*pgx.Conn) error) error {
	return c.Sessions.Do(ctx, c.Side(side), f)
}

// In runs f in a kept session of a database of a side.
func (c *Clusters) In(ctx context.Context, side, database string, f func(*pgx.Conn) error) error {
	return c.Sessions.Do(ctx, c.Side(side).With(database), f)
}

// Pair runs f in kept sessions of two servers at once.
func (c *Clusters) Pair(ctx context.Context, from, to *pg.Server, f func(from, to *pgx.Conn) error) error {
	return c.Sessions.Do(ctx, from, func(a *pgx.Conn) error {
		return c.Sessions.Do(ctx, to, func(b *pgx.Conn) error { return f(a, b) })
	})
}

// Knows remembers which databases are moved, as the last survey found them.
func (c *Clusters) Knows(databases []string) { c.known.Store(&databases) }

// Moves are the databases that are moved; nil where the runbook does not name
// them and no server was asked yet.
func (c *Clusters) Moves() []string {
	if known := c.known.Load(); known != nil {
		return *known
	}
	var names []string
	for _, db := range c.Book.Databases {
		names = append(names, db.Name)
	}
	return names
}

// Exec is the Do of a step that only executes its effects.
func (c *Clusters) Exec(effects []flow.Effect, vars func() map[string]string) func(context.Context, *flow.Turn) error {
	return flow.Exec(c.fleet().Do, effects, vars)
}

// Program is a client program of new's major.
func (c *Clusters) Program(name string, major int) (string, error) {
	path, err := pg.Program(c.New.Bin, name, major)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	return path, nil
}
