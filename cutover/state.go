package cutover

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// crossing is what one attempt knows while it runs: of each database, of each link,
// of what sends clients, of the standbys, and of itself.
type crossing struct {
	Config
	databases []*database // of the Config, in its order
	rehearsal *rehearsal  // nil: this is the real one
	guard     Guard

	mu       sync.Mutex // guards what is below, and what is known of databases
	by       map[string]*database
	links    map[string]*linkState
	units    map[string]unitState // of the traffic
	standbys standbyState
	released []int32 // backends of the barrier that were hung up
	canaries int     // of sets that were proven, for the Result
	timing
	progress
}

// database is one database that changes sides, with its sessions and what was read
// of it so far.
type database struct {
	*Database

	closing, opening *pgx.Conn // one on each side, beside the barrier
	barrier          *pgx.Conn // holds the locks, and is never opened anew
	beside           *pgx.Conn // closing side, where there are many tables: helps after close

	fence  pg.LSN // 0: not read
	token  int64  // of the canaries that were written under the locks
	print  string // fingerprint of the catalogs; "": not taken
	larges *int64 // large objects under the locks; nil: not counted

	seqs   []schema.Sequence          // what the opening side has been set to; nil: nothing was
	theirs map[string]schema.Sequence // the opening side's own, by name
	moving map[string]bool            // sequences that moved between the gate and the barrier, by name
}

// linkState is what is known of one link to the opening side.
type linkState struct {
	origin   pg.LSN   // what the opening side had applied at the drain; 0: not drained
	sub      uint32   // oid of the subscription; 0: not seen
	failures failures // of its worker, as the gate saw them
}

// unitState is how far one unit of the traffic is after open.
type unitState struct {
	pointed bool // it sends clients to the opening side
	resumed bool // and they go on there
}

// standbyState is who receives from the closing side.
type standbyState struct {
	asked    map[string]*pgx.Conn // sessions on standbys of the runbook that can be asked
	streamed map[string]bool      // receivers that the gate saw
}

// timing is how an attempt stands with its limits.
type timing struct {
	first    time.Time     // of all attempts: patience counts from here
	blocked  time.Time     // of this attempt: max_blocked counts from here
	took     time.Duration // blocked until open
	lockWait time.Duration // for one lock of the barrier
	backoff  time.Duration // before the next try
}

// progress is how far an attempt has come, as this process knows.
type progress struct {
	announced bool   // this process has written the attempt's row
	stopped   bool   // an attempt has stopped links that are not known to go on
	closing   string // the closing side's clock just before close, as a literal; "": close was not begun
	closed    pg.LSN // position of close on the closing side
	decided   bool   // the decision row was found open
	gaveUp    bool   // an undo has waited for a server without success
}

func newCrossing(c Config) *crossing {
	x := &crossing{
		Config: c, by: map[string]*database{}, links: map[string]*linkState{}, units: map[string]unitState{},
		standbys: standbyState{asked: map[string]*pgx.Conn{}, streamed: map[string]bool{}},
		progress: progress{stopped: c.Stopped},
	}
	for i := range x.Databases {
		db := &database{Database: &x.Databases[i], moving: map[string]bool{}}
		x.databases = append(x.databases, db)
		x.by[db.Name] = db
	}
	return x
}

// remember fills in what the row of an attempt says that another run has begun.
func (x *crossing) remember(d Decision) {
	x.stopped = true // how far it came is not known
	for name, at := range d.Origins {
		x.link(name).origin = at
	}
	for name, id := range d.Subs {
		x.link(name).sub = id
	}
	for _, db := range x.databases {
		db.fence = d.Fence[db.Name]
		// What close has disabled is not seen firing any more: the row knows it.
		if restore, ok := d.RestoreTriggers[db.Name]; ok {
			db.RestoreOpening, db.RestoreTriggers = restore, restore
		}
	}
}

// memory is what the row of the attempt says of it.
func (x *crossing) memory() Memory {
	x.mu.Lock()
	defer x.mu.Unlock()
	m := Memory{
		Fence: x.fences(), Origins: map[string]pg.LSN{}, Subs: map[string]uint32{}, Prints: map[string]string{}, Larges: map[string]int64{},
		Closing: WhomOf(x.Closing), Opening: WhomOf(x.Opening), Standbys: slices.Sorted(maps.Keys(x.standbys.streamed)), RestoreTriggers: map[string][]string{},
	}
	for name, l := range x.links {
		if l.origin != 0 {
			m.Origins[name] = l.origin
		}
		if l.sub != 0 {
			m.Subs[name] = l.sub
		}
	}
	for _, db := range x.databases {
		if db.print != "" {
			m.Prints[db.Name] = db.print
		}
		if db.larges != nil {
			m.Larges[db.Name] = *db.larges
		}
		if len(db.RestoreOpening) > 0 {
			m.RestoreTriggers[db.Name] = db.RestoreOpening
		}
	}
	return m
}

// fences are the fence LSNs that have been read, by database. x.mu is held.
func (x *crossing) fences() map[string]pg.LSN {
	all := map[string]pg.LSN{}
	for _, db := range x.databases {
		if db.fence != 0 {
			all[db.Name] = db.fence
		}
	}
	return all
}

// forgetFences: the LSNs of an attempt that was undone say nothing of the next one.
func (x *crossing) forgetFences() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, db := range x.databases {
		db.fence = 0
	}
}

// of is what is known of a database by its name. One that is no part of the
// crossing has nothing but sessions.
func (x *crossing) of(name string) *database {
	x.mu.Lock()
	defer x.mu.Unlock()
	db := x.by[name]
	if db == nil {
		db = &database{Database: &Database{Name: name}}
		x.by[name] = db
	}
	return db
}

// link is what is known of a link by its name. x.mu is held, or nobody else has x.
func (x *crossing) link(name string) *linkState {
	l := x.links[name]
	if l == nil {
		l = &linkState{}
		x.links[name] = l
	}
	return l
}

// each runs f for every database at once.
func (x *crossing) each(ctx context.Context, f func(context.Context, *database) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, db := range x.databases {
		g.Go(func() error { return f(ctx, db) })
	}
	return g.Wait()
}

// session returns the session that is kept there, on a database of a side, and
// opens it anew where it has died. It is never used to make the barrier.
func (x *crossing) session(ctx context.Context, kept **pgx.Conn, s Side, db string) (*pgx.Conn, error) {
	x.mu.Lock()
	c := *kept
	x.mu.Unlock()
	if c != nil && !c.IsClosed() {
		return c, nil
	}
	c, err := s.Server.With(db).Connect(ctx)
	if err != nil {
		return nil, err
	}
	x.mu.Lock()
	*kept = c
	x.mu.Unlock()
	return c, nil
}

func (x *crossing) onClosing(ctx context.Context, db string) (*pgx.Conn, error) {
	return x.session(ctx, &x.of(db).closing, x.Closing, db)
}

func (x *crossing) onOpening(ctx context.Context, db string) (*pgx.Conn, error) {
	return x.session(ctx, &x.of(db).opening, x.Opening, db)
}

// ends are the sessions of a database on both sides.
func (x *crossing) ends(ctx context.Context, db *database) (closing, opening *pgx.Conn, err error) {
	if closing, err = x.onClosing(ctx, db.Name); err == nil {
		opening, err = x.onOpening(ctx, db.Name)
	}
	return closing, opening, err
}

// revive gives up every kept session that does not answer: the next use opens
// it anew. Nobody else may be using them: a busy session does not answer either.
func (x *crossing) revive(ctx context.Context) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, db := range x.by {
		for _, c := range []**pgx.Conn{&db.closing, &db.opening, &db.beside} {
			if *c == nil {
				continue
			}
			once, cancel := context.WithTimeout(ctx, time.Second)
			if err := (*c).Ping(once); err != nil {
				hangUp(*c)
				*c = nil
			}
			cancel()
		}
	}
}

// hangUp ends every session of the crossing.
func (x *crossing) hangUp() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, db := range x.by {
		for _, c := range []**pgx.Conn{&db.barrier, &db.beside, &db.closing, &db.opening} {
			hangUp(*c)
			*c = nil
		}
	}
	for name, c := range x.standbys.asked {
		hangUp(c)
		delete(x.standbys.asked, name)
	}
	// The guard's process ends by itself when its pipe closes; a RESUME too many is harmless.
	x.guard = nil
}

// hangUp closes a connection without waiting for a server that may be gone.
func hangUp(c *pgx.Conn) {
	if c == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	// The connection is given up either way; what its close says changes nothing.
	if err := c.Close(ctx); err != nil {
		return
	}
}
