package cutover

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// Gate is a condition that must hold before a cutover may begin.
type Gate struct {
	ID string
	// Look asks the servers. A gate that is closed says why; an error is a
	// gate that could not be asked, and counts as closed. It is an *ErrShut where
	// no waiting opens the gate.
	Look func(ctx context.Context) (ok bool, says string, err error)
	// Costly gates are looked at only when all others are open.
	Costly bool
}

// ErrShut is a gate that cannot open while a crossing waits for it: what would
// open it is a command of this program, which the crossing itself keeps out, or a
// change that its armed fence refuses. What another session may end, a server may
// do by itself, or a person may put right on a server is not shut: it is waited for.
type ErrShut struct {
	Says string
	// Do is the command, or what a person does, that opens it.
	Do string
}

func (e *ErrShut) Error() string { return e.Says }

// GateState is what a gate said.
type GateState struct {
	ID   string
	OK   bool
	Says string
	// Do is what opens a gate that no waiting opens; "" where it may be waited for.
	Do string
}

// ErrGate is a gate that stayed closed until patience ended, or that no waiting
// opens.
type ErrGate struct{ Closed []GateState }

// Do is what opens a gate that no waiting opens; "" where there is none.
func (e *ErrGate) Do() string { return Do(e.Closed) }

// Do is what opens the first of the gates that no waiting opens; "" where all
// that are closed may be waited for.
func Do(states []GateState) string {
	for _, g := range states {
		if !g.OK && g.Do != "" {
			return g.Do
		}
	}
	return ""
}

func (e *ErrGate) Error() string {
	var b strings.Builder
	b.WriteString("not ready:")
	for i, g := range e.Closed {
		if i > 0 {
			b.WriteString(";")
		}
		fmt.Fprintf(&b, " gate %s: %s", g.ID, g.Says)
	}
	return b.String()
}

// gates are the conditions of a crossing, the built-in ones and those that were given.
type gates struct {
	*attempt
	sequences *sequences
	standbys  *standbys
}

// step waits until every gate is open at once.
func (g *gates) step() flow.Step {
	return flow.Step{
		ID: "gate", Title: "Wait until every gate is open", Done: never,
		Cost: flow.Cost{Base: 500 * time.Millisecond, Table: 600 * time.Microsecond, Trips: 20, Stable: true}, // gate schema compares catalogs
		Does: g.sequences.aheadEffects(),
		Do: func(ctx context.Context, t *flow.Turn) error {
			// The session that reads must not be the one that a gate waits for.
			ctx, cancel := context.WithTimeoutCause(ctx, max(g.remains(), time.Second), ErrPatience)
			defer cancel()
			if err := g.wait(ctx, t); err != nil {
				return err
			}
			return g.sequences.aheadOfTheWindow(ctx)
		},
	}
}

// ErrPatience says that what was waited for (a gate, a lock) did not come in time.
var ErrPatience = errors.New("timed out (cutover.patience)")

func (g *gates) wait(ctx context.Context, t *flow.Turn) error {
	gates := append(g.builtin(), g.Gates...)
	noted := time.Time{}
	var closed []GateState
	err := pg.Poll(ctx, 200*time.Millisecond, "the gates", func(ctx context.Context) (bool, error) {
		now := stillClosed(ctx, gates)
		if ctx.Err() != nil {
			return false, context.Cause(ctx) // what was said last is what was closed
		}
		closed = now
		if Do(closed) != "" {
			return false, &ErrGate{closed}
		}
		if len(closed) > 0 && time.Since(noted) > 5*time.Second {
			noted = time.Now()
			t.Note("%s", (&ErrGate{closed}).Error())
		}
		return len(closed) == 0, nil
	})
	shut, ok := errors.AsType[*ErrGate](err)
	switch {
	case ok:
		return shut
	case err == nil || len(closed) == 0:
		return err
	case errors.Is(err, ErrPatience):
		return fmt.Errorf("%w (%w)", &ErrGate{closed}, err)
	}
	return fmt.Errorf("%w (%s)", err, &ErrGate{closed})
}

// stillClosed asks the gates, the costly ones only when all others are open.
func stillClosed(ctx context.Context, gates []Gate) []GateState {
	for _, costly := range []bool{false, true} {
		var some []Gate
		for _, g := range gates {
			if g.Costly == costly {
				some = append(some, g)
			}
		}
		var closed []GateState
		for _, s := range Look(ctx, some) {
			if !s.OK {
				closed = append(closed, s)
			}
		}
		if len(closed) > 0 {
			return closed
		}
	}
	return nil
}

// Look asks every gate once.
func Look(ctx context.Context, gates []Gate) []GateState {
	states := make([]GateState, len(gates))
	for i, g := range gates {
		ok, says, err := g.Look(ctx)
		if err != nil {
			ok, says = false, err.Error()
		}
		states[i] = GateState{ID: g.ID, OK: ok, Says: says}
		if shut, is := errors.AsType[*ErrShut](err); is {
			states[i].Do = shut.Do
		}
	}
	return states
}

// Gates are the built-in gates of a crossing, for status: those that need no
// armed fence. The caller closes the crossing they come from.
func Gates(c Config) ([]Gate, *Crossing) {
	x := newCrossing(c)
	all := x.gates.builtin()
	kept := all[:0]
	for _, g := range all {
		if g.ID != "armed" {
			kept = append(kept, g)
		}
	}
	return append(kept, c.Gates...), &Crossing{x: x}
}

// builtin are the gates that follow from the servers alone.
func (g *gates) builtin() []Gate {
	return []Gate{
		{ID: "lag", Look: g.lagGate()},
		{ID: "tables", Look: g.perDatabase(g.tablesGate)},
		{ID: "links", Look: g.perDatabase(g.linksGate)},
		{ID: "armed", Look: g.perDatabase(g.armedGate)},
		{ID: "closing", Look: g.perDatabase(g.closingGate)},
		{ID: "opening", Look: g.perDatabase(g.openingGate)},
		{ID: "standbys-closing", Look: g.standbys.gate},
		{ID: "pool", Look: g.poolGate},
	}
}

// cataloged are the gates that are read again just before the barrier, with the
// fingerprint that holds for what they say.
func (g *gates) cataloged() []Gate {
	return []Gate{
		{ID: "tables", Look: g.perDatabase(g.tablesGate)},
		{ID: "armed", Look: g.perDatabase(g.armedGate)},
	}
}

// fast are the gates that are read again under the locks. That the fence is on
// every table is seen behind close: no lock of the barrier lets it be taken off.
func (g *gates) fast() []Gate {
	return []Gate{
		{ID: "links", Look: g.perDatabase(g.linksGate)},
		{ID: "closing", Look: g.perDatabase(g.preparedGate)},
	}
}

func (g *gates) perDatabase(look func(context.Context, *database) (string, error)) func(context.Context) (bool, string, error) {
	return func(ctx context.Context) (bool, string, error) {
		says, do := make([]string, len(g.databases)), make([]string, len(g.databases))
		err := g.each(ctx, func(ctx context.Context, db *database) error {
			i := slices.Index(g.databases, db)
			said, err := look(ctx, db)
			if shut, ok := errors.AsType[*ErrShut](err); ok {
				said, do[i], err = shut.Says, shut.Do, nil
			}
			if said != "" {
				says[i] = said + " (database " + db.Name + ")"
			}
			return err
		})
		var closed []string
		for _, s := range says {
			if s != "" {
				closed = append(closed, s)
			}
		}
		if err == nil && len(closed) == 0 {
			return true, "nothing blocks it", nil
		}
		if i := slices.IndexFunc(do, func(s string) bool { return s != "" }); err == nil && i >= 0 {
			err = &ErrShut{Says: strings.Join(closed, "; "), Do: do[i]}
		}
		return false, strings.Join(closed, "; "), err
	}
}

// prepares shuts a gate that only prepare opens.
func prepares(says string) error { return &ErrShut{Says: says, Do: "crossfade prepare"} }

// lost shuts a gate over a link that is gone for good, or nearly so: says what
// there is to do.
func (g *gates) lost(says string) error {
	switch {
	case g.Direction == Back:
		return &ErrShut{
			Says: says + ": the way back is lost with it; crossfade verify compares what is on both sides, crossfade finish goes on without a way back",
			Do:   "crossfade verify",
		}
	case g.RolledBack:
		return &ErrShut{Says: says + ": the new cluster is not kept in step any more; run crossfade abort, then crossfade prepare", Do: "crossfade abort"}
	}
	return prepares(says + ": run crossfade prepare, which copies its tables again")
}

// lagGate wants the lag of every link below MaxLag for Stable without a break.
func (g *gates) lagGate() func(context.Context) (bool, string, error) {
	var since time.Time
	return func(ctx context.Context) (bool, string, error) {
		worst, err := g.worstLag(ctx)
		if err != nil || worst > g.MaxLag {
			since = time.Time{}
			return false, fmt.Sprintf("a link is %d bytes behind, more than catchup.max_lag (%d)", worst, g.MaxLag), err
		}
		if since.IsZero() {
			since = time.Now()
		}
		if held := time.Since(since); held < g.Stable {
			return false, fmt.Sprintf("lag is low; confirming for %s (catchup.stable), so far %s", g.Stable, held.Round(time.Second)), nil
		}
		return true, fmt.Sprintf("%d bytes behind", worst), nil
	}
}

func (g *gates) worstLag(ctx context.Context) (int64, error) {
	var worst int64
	for _, db := range g.databases {
		conn, err := g.onClosing(ctx, db.Name)
		if err != nil {
			return 0, err
		}
		at, err := link.Positions(ctx, conn, nil, db.Links)
		if err != nil {
			return 0, err
		}
		for _, p := range at {
			lag := p.LagBytes()
			if !p.Slot && !p.Subscription {
				continue // the gate "links" says which tables it was to carry
			}
			if lag == nil {
				return 0, fmt.Errorf("slot %s is %s", p.Name, p.State())
			}
			worst = max(worst, *lag)
		}
	}
	return worst, nil
}

// tablesGate wants the tables of the catalog to be those that the plan knows.
func (g *gates) tablesGate(ctx context.Context, db *database) (string, error) {
	conn, err := g.onClosing(ctx, db.Name)
	if err != nil {
		return "", err
	}
	rows, err := conn.Query(ctx, userTables, db.Elsewhere)
	if err != nil {
		return "", err
	}
	there, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return "", err
	}
	known := map[string]bool{}
	for _, t := range db.Tables {
		known[pg.Ident(t.Schema, t.Name)] = true
	}
	var extra []string
	for _, t := range there {
		if !known[t] {
			extra = append(extra, t)
		}
		delete(known, t)
	}
	switch {
	case len(extra) > 0:
		return "", prepares("made since prepare: " + strings.Join(extra, ", ") + "; run crossfade prepare, which takes them along")
	case len(known) > 0:
		return "", prepares(fmt.Sprintf("%d tables that prepare knew are gone; run crossfade prepare", len(known)))
	}
	return "", nil
}

// linksGate wants every link of a database healthy.
func (g *gates) linksGate(ctx context.Context, db *database) (string, error) {
	from, to, err := g.ends(ctx, db)
	if err != nil {
		return "", err
	}
	at, err := link.Positions(ctx, from, to, db.Links)
	if err != nil {
		return "", err
	}
	var bad []string
	var shut error // the first that no waiting opens
	closes := func(err error) {
		bad = append(bad, err.Error())
		if shut == nil {
			shut = err
		}
	}
	for _, l := range db.Links {
		p := at[l.Name]
		g.mu.Lock()
		state := g.link(l.Name)
		state.sub, state.failures = p.SubID, state.failures.look(p.Errors)
		fails := state.failures
		g.mu.Unlock()
		want := len(l.Tables) + 1 // the canary
		switch {
		case p.State() == "missing":
			closes(prepares(fmt.Sprintf("%s was made since prepare: run crossfade prepare, which takes it along", tableNames(l.Tables))))
		case p.Slot && !p.Subscription:
			closes(g.lost(l.Name + " has no subscription"))
		case p.State() == "lost" || p.State() == "slot missing":
			closes(g.lost(fmt.Sprintf("%s is %s", l.Name, p.State())))
		case p.State() == "waiting" && p.Errors > 0, p.State() == "streaming" && time.Since(fails.grew) < calm:
			bad = append(bad, fmt.Sprintf("%s does not apply (%d errors so far): the log of %s says why; %s", l.Name, p.Errors, g.Opening.Name, l.Again()))
		case p.State() == "stopped":
			bad = append(bad, l.Name+" is stopped: "+g.goesOn(l))
		case p.State() != "streaming":
			bad = append(bad, l.Name+" is "+p.State())
		case p.Published != want || p.Subscribed != want:
			closes(prepares(fmt.Sprintf("%s publishes %d tables and subscribes %d; the plan has %d: run crossfade prepare", l.Name, p.Published, p.Subscribed, want)))
		case p.Ready != want:
			bad = append(bad, fmt.Sprintf("%s subscribes %d tables, of which %d are ready", l.Name, p.Subscribed, p.Ready))
		}
	}
	if e, ok := errors.AsType[*ErrShut](shut); ok {
		return "", &ErrShut{Says: strings.Join(bad, ", "), Do: e.Do}
	}
	return strings.Join(bad, ", "), nil
}

// goesOn says what lets a stopped link go on.
func (g *gates) goesOn(l link.Link) string {
	says := l.Enable().SQL + " on " + g.Opening.Name + " resumes it"
	switch {
	case !g.Stopped:
		return says
	case g.Direction == Back:
		return says + ", and so does the next crossfade rollback: an attempt has left it so"
	}
	return says + ", and so does the next crossfade cutover: an attempt has left it so"
}

// failures are the apply errors of a link, and when one came last. A worker that
// fails lives for a moment at each try, and looks healthy in it.
type failures struct {
	seen   bool
	errors int64
	grew   time.Time
}

// calm is how long no error may have come.
const calm = 3 * time.Second

func (f failures) look(errors int64) failures {
	if f.seen && errors > f.errors {
		f.grew = time.Now()
	}
	f.seen, f.errors = true, errors
	return f
}

// tableNames names some tables for a person.
func tableNames(tables []schema.Table) string {
	var n []string
	for i, t := range tables {
		if i == 5 {
			n = append(n, fmt.Sprintf("%d more", len(tables)-i))
			break
		}
		n = append(n, t.String())
	}
	return strings.Join(n, ", ")
}

func (g *gates) armedGate(ctx context.Context, db *database) (string, error) {
	conn, err := g.onClosing(ctx, db.Name)
	if err != nil {
		return "", err
	}
	open, err := Unarmed(ctx, conn, db.Elsewhere)
	if err != nil || len(open) == 0 {
		return "", err
	}
	return "the fence is not on " + strings.Join(open, ", "), nil
}

//go:embed sql/closing.sql
var closingSQL string

//go:embed sql/opening.sql
var openingSQL string

// closingGate is what would let a write slip by, or hold the barrier up.
func (g *gates) closingGate(ctx context.Context, db *database) (string, error) {
	conn, err := g.onClosing(ctx, db.Name)
	if err != nil {
		return "", err
	}
	return g.ask(ctx, conn, g.Closing, closingSQL, append(names(db.Way), db.Others...), (g.MaxBlocked / 2).Seconds())
}

// preparedGate is the part of closingGate that is read again under the locks.
func (g *gates) preparedGate(ctx context.Context, db *database) (string, error) {
	conn, err := g.onClosing(ctx, db.Name)
	if err != nil {
		return "", err
	}
	return g.ask(ctx, conn, g.Closing, closingSQL, append(names(db.Way), db.Others...), (24 * time.Hour).Seconds())
}

// poolAnswer limits how long a pooler's console takes to tell who works.
const poolAnswer = 3 * time.Second

// poolGate wants no transaction through a pooler that is older than a PAUSE
// would wait for it: all other clients would be held back for as long, for
// nothing.
func (g *gates) poolGate(ctx context.Context) (bool, string, error) {
	asking, cancel := context.WithTimeoutCause(ctx, poolAnswer, fmt.Errorf("the pooler did not answer within %s", poolAnswer))
	defer cancel()
	busy, err := g.Traffic.Busy(asking)
	if err != nil {
		return false, "", err
	}
	conn, err := g.onClosing(ctx, g.Home)
	if err != nil {
		return false, "", err
	}
	var says []string
	for _, b := range busy {
		var who *string
		err := conn.QueryRow(ctx, `
			SELECT string_agg(format('pid %s of %s in database %s (%s), open for %s: %s', pid, usename, datname, coalesce(nullif(application_name, ''), '?'),
			                         date_trunc('second', clock_timestamp() - xact_start), left(query, 80)), '; ')
			FROM pg_stat_activity WHERE pid = ANY ($1) AND xact_start < clock_timestamp() - make_interval(secs => $2::double precision)`,
			b.Backends, b.Patience.Seconds()).Scan(&who)
		if err != nil {
			return false, "", &pg.Error{Doing: "look for old transactions through the pooler", On: g.Closing.Server.String(), Err: err}
		}
		if who != nil {
			says = append(says, b.Says+": "+*who)
		}
	}
	return len(says) == 0, strings.Join(says, "; "), nil
}

func (g *gates) openingGate(ctx context.Context, db *database) (string, error) {
	conn, err := g.onOpening(ctx, db.Name)
	if err != nil {
		return "", err
	}
	return g.ask(ctx, conn, g.Opening, openingSQL)
}

func (g *gates) ask(ctx context.Context, conn *pgx.Conn, s Side, sql string, args ...any) (string, error) {
	var says *string
	if err := conn.QueryRow(ctx, sql, args...).Scan(&says); err != nil {
		return "", &pg.Error{Doing: "ask a gate", On: s.Server.String(), Err: err}
	}
	if says == nil {
		return "", nil
	}
	return *says, nil
}

func names(links []link.Link) []string {
	n := make([]string, len(links))
	for i, l := range links {
		n[i] = l.Name
	}
	return n
}
