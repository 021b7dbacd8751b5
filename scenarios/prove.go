package scenarios

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"crossfade/scenarios/lab"
)

// Claim is one thing that must be true, and what was seen.
type Claim struct {
	What string `json:"what"`
	Says string `json:"says"`
	True bool   `json:"true"`
}

// Proof is what was looked at while one side served, with the load stopped.
type Proof struct {
	Serves string `json:"serves"` // old or new
	// Cluster is the new cluster whose tables were looked at, where there are several.
	Cluster string  `json:"cluster,omitempty"`
	Major   int     `json:"major"` // its major version
	Claims  []Claim `json:"claims"`
}

// Passed reports whether all of it is true.
func (p Proof) Passed() bool {
	for _, c := range p.Claims {
		if !c.True {
			return false
		}
	}
	return true
}

// prover judges one side.
type prover struct {
	stage *Stage
	users *Users
	want  shape
	side  string
	claim func(Claim)
	// crossfade is the binary that is asked for the status; "": it is not.
	crossfade string
	// patience is how long the side that follows, and the standbys, may take
	// for the last rows; 0: 30 s.
	patience time.Duration
}

// prove looks at everything. An oracle that cannot look has not proven
// anything: its claim is false.
func (p *prover) prove(ctx context.Context) {
	for _, look := range []struct {
		what string
		see  func(context.Context) (string, error)
	}{
		{"clients are led to it", p.clients},
		{"acknowledged rows, each once", p.rows},
		{"errors seen by clients", p.errors},
		{"longest wait for a commit", p.waits},
		{"reads of the standbys", p.reads},
		{"pgbench's sums and rows", p.bench},
		{"rows equal on both sides", p.contents},
		{"sequences go on", p.sequences},
		{"schema, roles and settings", p.schema},
		{"standbys stream", p.standbys},
		{"the same are synchronous", p.synchronous},
		{"the other side refuses writes", p.refuses},
		{"status shows the same", p.status},
	} {
		says, err := look.see(ctx)
		switch {
		case err != nil:
			p.claim(Claim{look.what, err.Error(), false})
		case says != "":
			p.claim(Claim{look.what, says, true})
		}
	}
	p.see(ctx)
}

func (p *prover) serves() *lab.Cluster { return p.stage.side(p.side) }
func (p *prover) other() *lab.Cluster  { return p.stage.other(p.side) }

// clients asks the application's own connections where they lead.
func (p *prover) clients(ctx context.Context) (string, error) {
	for _, d := range p.stage.Scenario.Databases {
		rows, err := query(ctx, p.stage.Client(d.Name), "SELECT inet_server_port(), current_setting('server_version')")
		if err != nil {
			return "", fmt.Errorf("%s: %w", d.Name, err)
		}
		if rows[0][0] != strconv.Itoa(p.serves().Port) {
			return "", fmt.Errorf("clients of %s are at port %s (PostgreSQL %s), and %s is at port %d", d.Name, rows[0][0], rows[0][1], p.serves().Name, p.serves().Port)
		}
	}
	return fmt.Sprintf("%s, PostgreSQL %d", p.serves().Name, p.serves().Major), nil
}

func (p *prover) rows(ctx context.Context) (string, error) {
	var acked, unacked int64
	var errs []error
	for _, l := range p.stage.Scenario.Load {
		t := p.users.acknowledged[l.Database]
		if t == nil || l.Writers == 0 {
			continue
		}
		aside, err := p.aside(ctx, l.Database)
		if err != nil {
			return "", err
		}
		v, err := lab.Judge(ctx, t.reports, p.serves().Conninfo(l.Database), aside)
		if err == nil {
			err = v.Err()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", l.Database, err))
		}
		acked += v.Acked
		unacked += v.Unacked
	}
	if acked == 0 && errs == nil {
		errs = append(errs, errors.New("no row was acknowledged: nothing is proven"))
	}
	says := fmt.Sprintf("%s on %s, none on %s alone", plural(acked, "row"), p.serves().Name, p.other().Name)
	if unacked > 0 {
		says += fmt.Sprintf(" (%s more that were never acknowledged)", number(unacked))
	}
	return says, errors.Join(errs...)
}

// aside is where rows could be that are not on the side that serves; "" before
// prepare has made the ledger there.
func (p *prover) aside(ctx context.Context, database string) (string, error) {
	there, err := p.other().Value(ctx, database, "SELECT to_regclass('public.ledger') IS NOT NULL AND to_regclass('public.ledger_log') IS NOT NULL")
	if sqlState(err) == "3D000" {
		return "", nil
	}
	if err != nil || there != "t" {
		return "", err
	}
	return p.other().Conninfo(database), nil
}

func (p *prover) errors(context.Context) (string, error) {
	var seen, bad int64
	var errs []error
	for _, l := range p.stage.Scenario.Load {
		t := p.users.acknowledged[l.Database]
		if t == nil {
			continue
		}
		for _, f := range t.failures {
			seen += f.Count
		}
		for _, f := range unexpected(t.failures, p.stage.Scenario.Expect.Errors) {
			bad += f.Count
			errs = append(errs, fmt.Errorf("%s: %s", l.Database, f))
		}
		if t.benchFailed > 0 {
			errs = append(errs, fmt.Errorf("%s: pgbench: %s", l.Database, t.benchSays))
		}
	}
	if errs != nil {
		return "", errors.Join(errs...)
	}
	if seen > 0 {
		return fmt.Sprintf("%s refused, none of them unexpected (clients connect by themselves)", number(seen)), nil
	}
	return "none", nil
}

func (p *prover) bench(ctx context.Context) (string, error) {
	var says []string
	var errs []error
	for _, l := range p.stage.Scenario.Load {
		if l.Pgbench == nil {
			continue
		}
		sum, _, err := p.serves().PgbenchSums(ctx, l.Database)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		have, err := p.stage.counted(ctx, p.serves(), l)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		t := p.users.acknowledged[l.Database]
		have -= p.users.started[l.Database]
		if have != t.transactions {
			errs = append(errs, fmt.Errorf("%s: pgbench was acknowledged %s, and there are %s rows of them", l.Database, plural(t.transactions, "commit"), number(have)))
		}
		says = append(says, fmt.Sprintf("all four %s; %s, as many rows", number(sum), plural(t.transactions, "commit")))
	}
	return strings.Join(says, "; "), errors.Join(errs...)
}

// contents compares the rows of every table, once the side that follows has
// the last of them.
func (p *prover) contents(ctx context.Context) (string, error) {
	var tables, rows int64
	ctx, cancel := context.WithTimeoutCause(ctx, cmp.Or(p.patience, 30*time.Second), errors.New("the two sides do not become equal"))
	defer cancel()
	for _, d := range p.stage.Scenario.Databases {
		var differ string
		var want map[string]content
		err := lab.Poll(ctx, 200*time.Millisecond, func() (bool, error) {
			var err error
			if want, err = contents(ctx, p.serves(), d.Name); err != nil {
				return false, err
			}
			have, err := contents(ctx, p.other(), d.Name)
			if err != nil {
				return false, err
			}
			differ = differing(want, have)
			return differ == "", nil
		})
		if err != nil {
			return "", fmt.Errorf("%s: %w: %s", d.Name, err, differ)
		}
		for _, c := range want {
			tables, rows = tables+1, rows+c.rows
		}
	}
	return fmt.Sprintf("%s in %s", plural(rows, "row"), plural(tables, "table")), nil
}

// content is the rows of one table, whatever their order.
type content struct {
	rows int64
	sum  string
}

const tablesSQL = `
	SELECT format('SELECT %L, count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) FROM ONLY %I.%I t', format('%I.%I', nspname, relname), nspname, relname)
	FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
	WHERE relkind = 'r' AND relpersistence = 'p' AND nspname NOT IN ('pg_catalog', 'information_schema', 'crossfade')
	AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
	ORDER BY 1`

func contents(ctx context.Context, c *lab.Cluster, database string) (map[string]content, error) {
	queries, err := c.Query(ctx, database, tablesSQL)
	if err != nil {
		return nil, err
	}
	var parts []string
	for _, q := range queries {
		parts = append(parts, q[0])
	}
	all := map[string]content{}
	if parts == nil {
		return all, nil
	}
	// The same text of every value on every major.
	rows, err := c.Query(ctx, database, "SET search_path = ''; SET timezone = 'UTC'; SET extra_float_digits = 1; "+strings.Join(parts, " UNION ALL "))
	for _, r := range rows {
		n, perr := strconv.ParseInt(r[1], 10, 64)
		err = errors.Join(err, perr)
		all[r[0]] = content{n, r[2]}
	}
	return all, err
}

func differing(want, have map[string]content) string {
	var says []string
	for t, w := range want {
		if h, ok := have[t]; !ok {
			says = append(says, t+" is missing")
		} else if h != w {
			says = append(says, fmt.Sprintf("%s has %d rows and %d", t, w.rows, h.rows))
		}
	}
	for t := range have {
		if _, ok := want[t]; !ok {
			says = append(says, t+" is on one side only")
		}
	}
	if len(says) > 5 {
		says = append(says[:5], fmt.Sprintf("and %d more", len(says)-5))
	}
	return strings.Join(says, "; ")
}

// sequencesSQL asks the sequences themselves: views do not say what a sequence
// gives next that was set but not called.
const sequencesSQL = `
	SELECT format('SELECT %L, last_value, is_called, %s FROM %I.%I', format('%I.%I', nspname, relname), seqincrement, nspname, relname)
	FROM pg_sequence JOIN pg_class c ON c.oid = seqrelid JOIN pg_namespace n ON n.oid = relnamespace
	WHERE nspname <> 'crossfade' AND NOT seqcycle`

// sequences compares what each sequence would give next.
func (p *prover) sequences(ctx context.Context) (string, error) {
	var n int64
	var behind []string
	for _, d := range p.stage.Scenario.Databases {
		have, err := nextValues(ctx, p.serves(), d.Name)
		if err != nil {
			return "", err
		}
		floor, err := nextValues(ctx, p.other(), d.Name)
		if err != nil {
			return "", err
		}
		for name, f := range floor {
			n++
			h, ok := have[name]
			if !ok || (f.step > 0 && h.next < f.next) || (f.step < 0 && h.next > f.next) {
				behind = append(behind, fmt.Sprintf("%s in %s gives %d next, on the other side %d", name, d.Name, h.next, f.next))
			}
		}
	}
	if behind != nil {
		return "", errors.New(strings.Join(behind, "; "))
	}
	if n == 0 {
		return "", nil
	}
	return plural(n, "sequence"), nil
}

type nextValue struct{ next, step int64 }

func nextValues(ctx context.Context, c *lab.Cluster, database string) (map[string]nextValue, error) {
	queries, err := c.Query(ctx, database, sequencesSQL)
	if err != nil || len(queries) == 0 {
		return nil, err
	}
	var parts []string
	for _, q := range queries {
		parts = append(parts, q[0])
	}
	rows, err := c.Query(ctx, database, strings.Join(parts, " UNION ALL "))
	all := map[string]nextValue{}
	for _, r := range rows {
		var v nextValue
		if _, perr := fmt.Sscan(r[1]+" "+r[3], &v.next, &v.step); perr != nil {
			return nil, perr
		}
		if r[2] == "t" {
			v.next += v.step
		}
		all[r[0]] = v
	}
	return all, err
}

func (p *prover) schema(ctx context.Context) (string, error) {
	text, err := p.stage.dumpText(ctx, p.serves())
	if err != nil {
		return "", err
	}
	have := p.stage.readDump(text)
	if some, n := have.differences(p.stage.readDump(p.want[p.side])); n > 0 {
		return "", fmt.Errorf("%s differ from old as it was: %s", plural(int64(n), "object"), strings.Join(some, "; "))
	}
	return fmt.Sprintf("%s, as pg_dump prints them, equal to old's before", plural(int64(len(have)), "object")), nil
}

// standbys looks at every standby of the side that serves, as its upstream
// shows it.
func (p *prover) standbys(ctx context.Context) (string, error) {
	var says []string
	ctx, cancel := context.WithTimeoutCause(ctx, cmp.Or(p.patience, 30*time.Second), errors.New("it does not catch up"))
	defer cancel()
	for _, n := range p.stage.Standbys[p.side] {
		if p.side == sideOld && p.stage.Scenario.takes(n.Name) && !n.Cluster.Running() {
			says = append(says, n.Name+" taken by new's")
			continue
		}
		up := p.stage.upstream(p.side, n.Standby)
		rows, err := up.Query(ctx, "", "SELECT state, sync_state FROM pg_stat_replication WHERE application_name = '"+n.Name+"'")
		if err != nil {
			return "", err
		}
		if len(rows) != 1 || rows[0][0] != "streaming" {
			return "", fmt.Errorf("%s shows %q for %s", up.Name, rows, n.Name)
		}
		delay, err := n.Cluster.Value(ctx, "", "SELECT setting FROM pg_settings WHERE name = 'recovery_min_apply_delay' AND pg_is_in_recovery()")
		if err != nil {
			return "", err
		}
		if delay != strconv.FormatInt(n.Delay.Milliseconds(), 10) {
			return "", fmt.Errorf("%s has a delay of %s ms, and must have %d", n.Name, delay, n.Delay.Milliseconds())
		}
		word := n.Name + " " + rows[0][1]
		if n.Upstream != "" {
			word += " following " + n.Upstream
		}
		if n.Delay > 0 {
			word += " with a delay of " + n.Delay.String()
		} else if err := p.serves().CaughtUp(ctx, n.Cluster); err != nil {
			return "", err
		}
		says = append(says, word)
	}
	return strings.Join(says, ", "), nil
}

// synchronous wants the list to be old's, and what each standby is in it: the
// first of FIRST are sync and the rest potential, all of ANY are quorum.
func (p *prover) synchronous(ctx context.Context) (string, error) {
	if p.stage.Scenario.Old.Synchronous == "" {
		return "", nil
	}
	got, err := synchronousOf(ctx, p.serves())
	if err != nil {
		return "", err
	}
	names, err := p.serves().Value(ctx, "", "SHOW synchronous_standby_names")
	if err != nil {
		return "", err
	}
	if names != p.stage.Scenario.Old.Synchronous || got != p.stage.synchronous {
		return "", fmt.Errorf("%s waits for %s (%s), and old waited for %s (%s)", p.serves().Name, names, got, p.stage.Scenario.Old.Synchronous, p.stage.synchronous)
	}
	return names + ": " + got, nil
}

// insists is a write of one who knows how to get around a read-only default.
const insists = "BEGIN READ WRITE; INSERT INTO public.ledger (worker, n) VALUES (-1, -1); ROLLBACK"

// refuses tries to write on the other side, as a superuser who insists.
func (p *prover) refuses(ctx context.Context) (string, error) {
	for _, d := range p.stage.Scenario.Databases {
		err := p.other().Exec(ctx, d.Name, insists)
		if state := sqlState(err); state != "25006" {
			return "", fmt.Errorf("an INSERT into %s on %s ended with %w, and must end with SQLSTATE 25006", d.Name, p.other().Name, errors.Join(err, errNotRefused(err)))
		}
	}
	return fmt.Sprintf("%s, a superuser's too", p.other().Name), nil
}
