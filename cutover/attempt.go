package cutover

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// attempt is one try to change sides: what it was given, what is known of each
// database and each link, how it stands with its limits, and how far it has come.
// The parts of a crossing share it.
type attempt struct {
	Config
	databases []*database // of the Config, in its order
	rehearsal *rehearsal  // nil: this is the real one

	mu       sync.Mutex // guards what is below, and what is known of databases
	by       map[string]*database
	links    map[string]*linkState
	streams  standbyState
	canaries int // of sets that were proven, for the Result
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

// standbyState is who receives from the closing side.
type standbyState struct {
	asked    map[string]*pgx.Conn // sessions on standbys of the runbook that can be asked
	streamed map[string]bool      // receivers that the gate saw
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

func newAttempt(c Config) *attempt {
	a := &attempt{
		Config: c, by: map[string]*database{}, links: map[string]*linkState{},
		streams:  standbyState{asked: map[string]*pgx.Conn{}, streamed: map[string]bool{}},
		progress: progress{stopped: c.Stopped},
	}
	for i := range a.Databases {
		db := &database{Database: &a.Databases[i], moving: map[string]bool{}}
		a.databases = append(a.databases, db)
		a.by[db.Name] = db
	}
	return a
}

// remember fills in what the row of an attempt says that another run has begun.
func (a *attempt) remember(d Decision) {
	a.stopped = true // how far it came is not known
	for name, at := range d.Origins {
		a.link(name).origin = at
	}
	for name, id := range d.Subs {
		a.link(name).sub = id
	}
	for _, db := range a.databases {
		db.fence = d.Fence[db.Name]
		// What close has disabled is not seen firing any more: the row knows it.
		if restore, ok := d.RestoreTriggers[db.Name]; ok {
			db.RestoreOpening, db.RestoreTriggers = restore, restore
		}
	}
}

// memory is what the row of the attempt says of it.
func (a *attempt) memory() Memory {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := Memory{
		Fence: a.fences(), Origins: map[string]pg.LSN{}, Subs: map[string]uint32{}, Prints: map[string]string{}, Larges: map[string]int64{},
		Closing: WhomOf(a.Closing), Opening: WhomOf(a.Opening), Standbys: slices.Sorted(maps.Keys(a.streams.streamed)), RestoreTriggers: map[string][]string{},
	}
	for name, l := range a.links {
		if l.origin != 0 {
			m.Origins[name] = l.origin
		}
		if l.sub != 0 {
			m.Subs[name] = l.sub
		}
	}
	for _, db := range a.databases {
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

// rowBegins and rowEnds are the statements that write the attempt's row and take
// back what it says.
func (a *attempt) rowBegins() string {
	if a.rehearsal != nil {
		return a.Part.Own(beginRehearsal)
	}
	return a.Part.Own(armDecision)
}

func (a *attempt) rowEnds() string {
	if a.rehearsal != nil {
		return a.Part.Own(endRehearsal + ";\n" + keepRehearsal)
	}
	return a.Part.Own(voidDecision)
}

// fences are the fence LSNs that have been read, by database. a.mu is held.
func (a *attempt) fences() map[string]pg.LSN {
	all := map[string]pg.LSN{}
	for _, db := range a.databases {
		if db.fence != 0 {
			all[db.Name] = db.fence
		}
	}
	return all
}

// forgetFences: the LSNs of an attempt that was undone say nothing of the next one.
func (a *attempt) forgetFences() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, db := range a.databases {
		db.fence = 0
	}
}

// of is what is known of a database by its name. One that is no part of the
// crossing has nothing but sessions.
func (a *attempt) of(name string) *database {
	a.mu.Lock()
	defer a.mu.Unlock()
	db := a.by[name]
	if db == nil {
		db = &database{Database: &Database{Name: name}}
		a.by[name] = db
	}
	return db
}

// link is what is known of a link by its name. a.mu is held, or nobody else has a.
func (a *attempt) link(name string) *linkState {
	l := a.links[name]
	if l == nil {
		l = &linkState{}
		a.links[name] = l
	}
	return l
}

// each runs f for every database at once.
func (a *attempt) each(ctx context.Context, f func(context.Context, *database) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, db := range a.databases {
		g.Go(func() error { return f(ctx, db) })
	}
	return g.Wait()
}

// session returns the session that is kept there, on a database of a side, and
// opens it anew where it has died. It is never used to make the barrier.
func (a *attempt) session(ctx context.Context, kept **pgx.Conn, s Side, db string) (*pgx.Conn, error) {
	a.mu.Lock()
	c := *kept
	a.mu.Unlock()
	if c != nil && !c.IsClosed() {
		return c, nil
	}
	c, err := s.Server.With(db).Connect(ctx)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	*kept = c
	a.mu.Unlock()
	return c, nil
}

func (a *attempt) onClosing(ctx context.Context, db string) (*pgx.Conn, error) {
	return a.session(ctx, &a.of(db).closing, a.Closing, db)
}

func (a *attempt) onOpening(ctx context.Context, db string) (*pgx.Conn, error) {
	return a.session(ctx, &a.of(db).opening, a.Opening, db)
}

// ends are the sessions of a database on both sides.
func (a *attempt) ends(ctx context.Context, db *database) (closing, opening *pgx.Conn, err error) {
	if closing, err = a.onClosing(ctx, db.Name); err == nil {
		opening, err = a.onOpening(ctx, db.Name)
	}
	return closing, opening, err
}

// revive gives up every kept session that does not answer: the next use opens
// it anew. Nobody else may be using them: a busy session does not answer either.
func (a *attempt) revive(ctx context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, db := range a.by {
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
func (a *attempt) hangUp() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, db := range a.by {
		for _, c := range []**pgx.Conn{&db.barrier, &db.beside, &db.closing, &db.opening} {
			hangUp(*c)
			*c = nil
		}
	}
	for name, c := range a.streams.asked {
		hangUp(c)
		delete(a.streams.asked, name)
	}
}

// run executes effects of the closing or the opening side on kept sessions.
func (a *attempt) run(ctx context.Context, effects []flow.Effect, vars map[string]string) error {
	for _, e := range effects {
		get := a.onClosing
		side := a.Closing
		if e.On == a.Opening.Name {
			get, side = a.onOpening, a.Opening
		}
		conn, err := get(ctx, e.Database)
		if err != nil {
			return err
		}
		if err := pg.Exec(ctx, conn, e.Fill(vars).SQL); err != nil {
			return &pg.Error{Doing: pg.Brief(e.SQL), On: fmt.Sprintf("%s, database %s", side.Server, e.Database), Err: err}
		}
	}
	return nil
}

func (a *attempt) on(s Side, db, sql string) flow.Effect {
	return flow.Effect{On: s.Name, Database: db, SQL: sql}
}

// same wants the server of conn to be the one that the attempt began with.
func (a *attempt) same(ctx context.Context, conn *pgx.Conn, s Side) error {
	id, err := pg.Identify(ctx, conn)
	if err != nil {
		return err
	}
	if id.SystemID != s.Identity.SystemID || id.Timeline != s.Identity.Timeline || id.InRecovery {
		return fmt.Errorf("%s is not the server that this attempt began with: system identifier %s timeline %d, now %s timeline %d (in recovery: %t)",
			s.Server, s.Identity.SystemID, s.Identity.Timeline, id.SystemID, id.Timeline, id.InRecovery)
	}
	return nil
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
