package cutover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// State of a row of crossfade.upgrade. Row 0 is the upgrade itself (preparing,
// ready); every cutover and rollback has a row of its own.
type State string

// The states. armed → closed → open, or void from the first two. A rehearsal's
// row is there while there is something to be undone, and then gone.
const (
	Preparing  State = "preparing"
	Ready      State = "ready"
	Armed      State = "armed"
	Closed     State = "closed"
	Void       State = "void"
	Open       State = "open"
	Rehearsing State = "rehearsing"
)

// Decision is one row of crossfade.upgrade.
type Decision struct {
	Attempt   int
	Upgrade   string
	Direction Direction
	State     State
	At        time.Time
	Memory
}

// Memory is what a stranger's machine needs to know of a row.
type Memory struct {
	Fence   map[string]pg.LSN `json:"fence,omitempty"`
	Origins map[string]pg.LSN `json:"origins,omitempty"` // by link: what the opening side had applied at the drain
	Subs    map[string]uint32 `json:"subs,omitempty"`    // by link: oid of the subscription on the opening side
	// Closing and Opening are the sides of an attempt; in row 0 old and new, as
	// they were when what links them was made.
	Closing  Whom              `json:"closing,omitzero"`
	Opening  Whom              `json:"opening,omitzero"`
	Prints   map[string]string `json:"prints,omitempty"` // fingerprints of the closing side at close
	Larges   map[string]int64  `json:"larges,omitempty"`
	Sessions []Session         `json:"sessions,omitempty"`
	Host     string            `json:"host,omitempty"` // where the tool runs, and its pid
	// Standbys of the closing side that must have the close before the other
	// side opens: those that streamed at the gate.
	Standbys []string `json:"standbys,omitempty"`
	// RestoreTriggers are, by database, the statements that put the triggers of the opening
	// side back: known from the closing side, which may be gone by then.
	RestoreTriggers map[string][]string `json:"wake,omitempty"`
	// Before is what stood on either side before the upgrade: "old/shop/default_transaction_read_only".
	Before map[string]string `json:"before,omitempty"`
	// Made are the databases and roles on new that this upgrade created.
	Made []string `json:"made,omitempty"`
	// Shared is, by side, what the clusters had outside of databases when prepare
	// last made them equal (row 0).
	Shared map[string]map[string]string `json:"shared,omitempty"`
	// Undo are the statements that undo what this upgrade changed on new
	// outside of databases, in the order in which they were changed. What holds a
	// password is not among them.
	Undo []string `json:"undo,omitempty"`
	// Stopped, of an attempt that is void: the links that it had stopped are not
	// known to go on, because its undo was cut off or could not reach the opening
	// side. The next attempt resumes them.
	Stopped bool `json:"stopped,omitempty"`
	// Done: everything after open has been done, the hook after_open included.
	Done bool `json:"done,omitempty"`
	// WithTraffic: the rehearsal of this row holds clients back in the poolers.
	WithTraffic bool `json:"with_traffic,omitempty"`
	// Rehearsed are the last rehearsals of the cutover, oldest first (row 0).
	Rehearsed []Rehearsal `json:"rehearsed,omitempty"`
	// Waiting is what an unattended run waits for (row 0).
	Waiting *Waiting `json:"waiting,omitempty"`
}

// Waiting is what an unattended run waits for. It holds only as long as its
// session has the upgrade's lock: a run that was killed leaves it behind.
type Waiting struct {
	Session int32      `json:"session"` // pid of the backend that has the lock
	Host    string     `json:"host"`    // where the run is, and its pid
	Plan    string     `json:"plan"`
	Step    string     `json:"step"`
	Since   time.Time  `json:"since"`
	Until   *time.Time `json:"until,omitempty"` // when it will be over; nil: not known
	Says    string     `json:"says"`
	Next    string     `json:"next,omitempty"` // what a person may type meanwhile; "": nothing
}

// Whom identifies a cluster in a decision.
type Whom struct {
	System   string `json:"system"`
	Timeline int32  `json:"timeline"`
}

// Session is one backend of a run.
type Session struct {
	Side    string    `json:"side"`
	PID     int32     `json:"pid"`
	Started time.Time `json:"started"`
}

// Table is the statement that makes crossfade.upgrade.
func (p Part) Table() string { return p.Own(table) }

const table = `CREATE TABLE IF NOT EXISTS crossfade.upgrade (
  attempt int PRIMARY KEY,
  upgrade text NOT NULL,
  direction text NOT NULL DEFAULT 'forward',
  state text NOT NULL,
  memory jsonb NOT NULL DEFAULT '{}',
  at timestamptz NOT NULL DEFAULT clock_timestamp())`

// ReadDecisions reads crossfade.upgrade, oldest attempt first. A database
// without it has no decisions.
func (p Part) ReadDecisions(ctx context.Context, conn *pgx.Conn) ([]Decision, error) {
	var there bool
	if err := conn.QueryRow(ctx, p.Own(`SELECT to_regclass('crossfade.upgrade') IS NOT NULL`)).Scan(&there); err != nil {
		return nil, fmt.Errorf("look for crossfade.upgrade: %w", err)
	}
	if !there {
		return nil, nil
	}
	rows, err := conn.Query(ctx, p.Own(`SELECT attempt, upgrade, direction, state, memory, at FROM crossfade.upgrade ORDER BY attempt`))
	if err == nil {
		var ds []Decision
		ds, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (Decision, error) {
			var d Decision
			var memory []byte
			err := row.Scan(&d.Attempt, &d.Upgrade, &d.Direction, &d.State, &memory, &d.At)
			if err == nil {
				err = json.Unmarshal(memory, &d.Memory)
			}
			return d, err
		})
		if err == nil {
			return ds, nil
		}
	}
	return nil, fmt.Errorf("read crossfade.upgrade: %w", err)
}

// Insert is the statement that writes a new row, or nothing where it exists.
func (d Decision) Insert() (string, error) {
	b, err := json.Marshal(d.Memory)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("INSERT INTO crossfade.upgrade (attempt, upgrade, direction, state, memory) VALUES (%d, %s, %s, %s, %s) ON CONFLICT (attempt) DO NOTHING",
		d.Attempt, pg.Literal(d.Upgrade), pg.Literal(string(d.Direction)), pg.Literal(string(d.State)), pg.Literal(string(b))), nil
}

// armDecision, closeDecision, openDecision and voidDecision are the writes of a
// decision, as plans show them; a rehearsal's row decides nothing.
const (
	armDecision   = "INSERT INTO crossfade.upgrade (attempt, upgrade, direction, state, memory) VALUES ($attempt, $upgrade, $direction, 'armed', $memory)"
	closeDecision = "UPDATE crossfade.upgrade SET state = 'closed', memory = $memory, at = clock_timestamp() WHERE attempt = $attempt AND state = 'armed' RETURNING attempt"
	openDecision  = "UPDATE crossfade.upgrade SET state = 'open', at = clock_timestamp() WHERE attempt = $attempt AND state = 'closed' RETURNING attempt"
	voidDecision  = "UPDATE crossfade.upgrade SET state = 'void', memory = memory || $stopped, at = clock_timestamp() WHERE attempt = $attempt AND state IN ('armed', 'closed', 'void') RETURNING attempt"
	copyDecision  = "INSERT INTO crossfade.upgrade (attempt, upgrade, direction, state, memory) VALUES ($attempt, $upgrade, $direction, 'open', $memory) ON CONFLICT (attempt) DO UPDATE SET state = 'open', memory = excluded.memory, at = clock_timestamp()"
)

// DoneDecision is the statement that writes down, on the open side, that nothing
// is still to do of $attempt.
func (p Part) DoneDecision() string { return p.Own(doneDecision) }

const doneDecision = "UPDATE crossfade.upgrade SET memory = memory || '{\"done\": true}' WHERE attempt = $attempt"

// errNoRow says that a decision was not in the state that a change of it wants.
var errNoRow = errors.New("another run has changed the decision")

// change executes one of the statements above and wants exactly one row.
func change(ctx context.Context, conn *pgx.Conn, e flow.Effect) error {
	tag, err := execTag(ctx, conn, e.SQL)
	if err != nil {
		return err
	}
	if tag.RowsAffected() != 1 {
		return errNoRow
	}
	return nil
}

// execTag sends one or more statements in the simple protocol and returns the
// tag of the last.
func execTag(ctx context.Context, conn *pgx.Conn, sql string) (pgconn.CommandTag, error) {
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	if len(results) == 0 {
		return pgconn.CommandTag{}, nil
	}
	last := results[len(results)-1]
	return last.CommandTag, last.Err
}

// vars fill the holes of a decision's statements.
func (a *attempt) vars(m Memory) (map[string]string, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return map[string]string{
		"attempt": fmt.Sprint(a.Attempt), "upgrade": pg.Literal(a.Upgrade),
		"direction": pg.Literal(string(a.Direction)), "memory": pg.Literal(string(b)),
		"stopped": pg.Literal(fmt.Sprintf(`{"stopped": %t}`, a.stopped)),
	}, nil
}

// Evict terminates the backends of earlier runs of this upgrade on one server
// and waits until they are gone: those that the decisions name (pid and
// backend_start), and those whose application_name is app, a blank and anything with
// the number of a run, which begins with '#'. Backends whose name ends with mine are
// the caller's own and stay; so does every session without a number, which changes
// nothing. The caller has the upgrade's lock: no run but its own has.
func Evict(ctx context.Context, conn *pgx.Conn, side, app, mine string, ds []Decision) error {
	var pids []int32
	var starts []time.Time
	for _, d := range ds {
		for _, s := range d.Sessions {
			if s.Side == side {
				pids, starts = append(pids, s.PID), append(starts, s.Started)
			}
		}
	}
	return pg.Poll(ctx, 20*time.Millisecond, "the sessions of an earlier run on "+side+" to end", func(ctx context.Context) (bool, error) {
		var left int
		err := conn.QueryRow(ctx, `
			SELECT count(*) FROM (
			  SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a
			  WHERE a.pid <> pg_backend_pid() AND a.application_name NOT LIKE '%' || $4 AND a.backend_type IN ('client backend', 'walsender')
			    AND (a.application_name LIKE $3 || ' %#%' OR (a.pid, a.backend_start) IN (SELECT * FROM unnest($1::int[], $2::timestamptz[])))) k`,
			pids, starts, app, mine).Scan(&left)
		if err != nil {
			return false, fmt.Errorf("end the sessions of an earlier run on %s: %w", side, err)
		}
		return left == 0, nil
	})
}

// Here is the machine that the tool runs on, and its pid; "" is not known.
func Here() string {
	h, err := os.Hostname()
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%s, pid %d", h, os.Getpid())
}

// WhomOf is what identifies a side now.
func WhomOf(s Side) Whom { return Whom{System: s.Identity.SystemID, Timeline: s.Identity.Timeline} }
