package bench

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"crossfade/scenarios/lab"
)

// crossed is one cutover or rollback.
type crossed struct {
	command string
	outage  time.Duration // the longest that nobody had a row acknowledged
	blocked float64       // as the tool says, in seconds
	report  lab.Report
	failed  []lab.Failure // of the clients' statements and connections
	steps   map[string]float64
	order   []string
}

// cutoverLine is what cutover and rollback print last.
type cutoverLine struct {
	Type    string
	Blocked *float64 `json:"blocked_seconds"`
	Steps   []struct {
		ID      string
		Seconds float64
	}
}

const crossScript = `exec crossfade %s --now --yes --json > "$DIR/events"; `

// cutovers measures the outage at the client.
func (b *bench) cutovers(ctx context.Context) (*Report, error) {
	r := &Report{
		Title: "The cutover",
		Says: []string{
			"Outage: the longest time in which none of four clients, which write without pause, had a row acknowledged. Blocked: what the tool says. Each database has so many tables with a key and a sequence each. `pooled` goes through PgBouncer, `direct` is libpq's multi-host connection with `target_session_attrs=read-write`: its connections end once, and what fails is what was sent meanwhile.",
			"Aims through PgBouncer: 100 ms with 10 tables, 150 ms with 1,000, 400 ms with 10,000, and no failed statement. The rounds are cutover, rollback, cutover …, all against running clients; a rollback is the same plan with the ends swapped.",
			"pg_easy_replicate is not of this run: a first look at a database of 75 MB measured 1,022 ms and 920 failed statements, growing with its size.",
		},
		Tables: []Table{
			{Header: []string{"clients", "tables", "outage of cutovers, median", "spread", "outage of rollbacks, median", "blocked, median", "failed at the client, most"}},
			{Title: "Every step's milliseconds, medians of the cutovers:", Header: []string{"step"}},
		},
		Commands: []Command{
			{"once", "crossfade prepare"}, {"each round", "crossfade cutover --now --yes --json\ncrossfade rollback --now --yes --json"},
		},
	}
	var order []string
	var columns []map[string]float64
	var pooledOutages []float64
	for _, tables := range b.Tables {
		for _, pooled := range []bool{true, false} {
			all, err := b.crossings(ctx, tables, pooled)
			if err != nil {
				return nil, fmt.Errorf("%d tables: %w", tables, err)
			}
			r.Tables[0].Rows = append(r.Tables[0].Rows, outages(tables, pooled, all))
			head := fmt.Sprintf("%d tables, direct", tables)
			if pooled {
				head = fmt.Sprintf("%d tables, pooled", tables)
				pooledOutages = append(pooledOutages, median(each(all, "cutover", func(c crossed) float64 { return c.outage.Seconds() })))
			}
			r.Tables[1].Header = append(r.Tables[1].Header, head)
			for _, c := range all {
				for _, id := range c.order {
					if c.command == "cutover" && !slices.Contains(order, id) {
						order = append(order, id)
					}
				}
			}
			took := map[string]float64{}
			for _, id := range order {
				took[id] = median(each(all, "cutover", func(c crossed) float64 { return c.steps[id] }))
			}
			columns = append(columns, took)
		}
	}
	for _, id := range order {
		row := []string{"`" + id + "`"}
		for _, took := range columns {
			if s, ok := took[id]; ok {
				row = append(row, milliseconds(s))
			} else {
				row = append(row, "–")
			}
		}
		r.Tables[1].Rows = append(r.Tables[1].Rows, row)
	}
	if n := len(b.Tables); n > 1 {
		last, first := float64(b.Tables[n-1]), float64(b.Tables[0])
		r.Says = append(r.Says, fmt.Sprintf("From %.0f to %.0f tables the outage through PgBouncer grows with a slope of %.2f (1 would be ten times the outage for ten times the tables).",
			first, last, slope([]float64{first, last}, []float64{pooledOutages[0], pooledOutages[n-1]})))
	}
	return r, nil
}

func milliseconds(s float64) string { return fmt.Sprintf("%.0f", s*1000) }

func each(all []crossed, command string, f func(crossed) float64) []float64 {
	var values []float64
	for _, c := range all {
		if c.command == command {
			values = append(values, f(c))
		}
	}
	return values
}

func outages(tables int, pooled bool, all []crossed) []string {
	name := "direct"
	if pooled {
		name = "pooled"
	}
	outage := func(c crossed) float64 { return c.outage.Seconds() }
	there, back := each(all, "cutover", outage), each(all, "rollback", outage)
	most := "0"
	var count int64
	for _, c := range all {
		n := int64(0)
		var says []string
		for _, f := range c.failed {
			n += f.Count
			says = append(says, fmt.Sprintf("%d %s", f.Count, cmp.Or(f.SQLState, "connection")))
		}
		if n > count {
			count, most = n, fmt.Sprintf("%d (%s)", n, strings.Join(says, ", "))
		}
	}
	fields := []string{name, fmt.Sprint(tables), milliseconds(median(there)) + " ms"}
	if len(there) > 0 {
		fields = append(fields, fmt.Sprintf("%s … %s ms", milliseconds(slices.Min(there)), milliseconds(slices.Max(there))))
	} else {
		fields = append(fields, "–")
	}
	if len(back) > 0 {
		fields = append(fields, milliseconds(median(back))+" ms")
	} else {
		fields = append(fields, "–")
	}
	return append(fields, milliseconds(median(each(all, "cutover", func(c crossed) float64 { return c.blocked })))+" ms", most)
}

// slowest tells the steps that took longest of those within which clients wait;
// traffic/pause has what it does before in its time, too.
func (c *crossed) slowest() string {
	from, to := slices.Index(c.order, "traffic/pause"), slices.Index(c.order, "read-only")
	if from < 0 || to < from {
		return ""
	}
	order := slices.Clone(c.order[from : to+1])
	slices.SortStableFunc(order, func(a, b string) int { return cmp.Compare(c.steps[b], c.steps[a]) })
	var says []string
	for _, id := range order[:min(4, len(order))] {
		says = append(says, id+" "+milliseconds(c.steps[id])+" ms")
	}
	return strings.Join(says, ", ")
}

// crossings prepares one upgrade and crosses over and back, Rounds cutovers in all.
func (b *bench) crossings(ctx context.Context, tables int, pooled bool) (all []crossed, err error) {
	const db = "shop"
	b.count++
	p := &place{b: b, db: db}
	for i, major := range []int{b.Old, b.New} {
		c, err := b.start(ctx, fmt.Sprintf("side%d_%d", i, b.count), major)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, c.Remove(context.WithoutCancel(ctx))) }()
		if i == 0 {
			p.old = c
		} else {
			p.new = c
		}
	}
	if err := p.old.Exec(ctx, "", "CREATE DATABASE "+db); err != nil {
		return nil, err
	}
	if err := lab.Ledger(ctx, p.old.Conninfo(db)); err != nil {
		return nil, err
	}
	if err := p.old.Exec(ctx, db, sequenced(tables), "VACUUM ANALYZE"); err != nil {
		return nil, err
	}
	q, err := b.place(ctx, db, p.old, p.new)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, q.remove(ctx)) }()
	q.options = "verify: {mode: off}\ncatchup: {stable: 100ms}\ncutover:\n  approve: auto\n"
	clients := fmt.Sprintf("host=%s,%s port=%d,%d user=postgres dbname=%s sslmode=disable target_session_attrs=read-write",
		p.old.Address(), p.new.Address(), p.old.Port, p.new.Port, db)
	if pooled {
		pool, err := b.lab.PgBouncer(ctx, lab.PoolOptions{Name: fmt.Sprintf("pool%d", b.count), Databases: map[string]lab.Backend{db: {Cluster: p.old}}})
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, pool.Stop(context.WithoutCancel(ctx))) }()
		clients = pool.Conninfo(db)
		q.options += fmt.Sprintf("  traffic:\n    - pgbouncer: {databases: [%s], instances: [{admin: %q, config: %q}]}\n", db, pool.AdminConninfo(), pool.Config)
	}
	if err := q.runbook(ctx); err != nil {
		return nil, err
	}
	if _, err := q.run(ctx, `exec crossfade prepare -q > /dev/null`); err != nil {
		return nil, err
	}
	for i := range 2*b.Rounds - 1 {
		c, err := q.cross(ctx, []string{"cutover", "rollback"}[i%2], clients)
		if err != nil {
			return nil, err
		}
		b.Say(fmt.Sprintf("%s of %d tables, pooled %t: outage %v, blocked %.3f s, failed %v; %s", c.command, tables, pooled, c.outage, c.blocked, c.failed, c.slowest()))
		all = append(all, c)
	}
	// The last crossing is a cutover. No acknowledged row may be lost by any.
	var reports []lab.Report
	for _, c := range all {
		reports = append(reports, c.report)
	}
	v, err := lab.Judge(ctx, reports, q.new.Conninfo(db), q.old.Conninfo(db))
	return all, errors.Join(err, v.Err())
}

// cross runs one crossing under clients that write.
func (p *place) cross(ctx context.Context, command, clients string) (c crossed, err error) {
	c = crossed{command: command, steps: map[string]float64{}}
	w, err := lab.Write(ctx, clients, lab.WriterOptions{Writers: 4, Pause: time.Millisecond})
	if err != nil {
		return c, err
	}
	if err := w.Flow(ctx, 500); err != nil {
		return c, err
	}
	began := time.Now()
	_, err = p.run(ctx, fmt.Sprintf(crossScript, command))
	if err == nil {
		err = w.Flow(ctx, 500)
	}
	report := w.Stop()
	if err != nil {
		return c, err
	}
	c.report = report
	c.outage, c.failed = report.GapBetween(began, report.End).Length, report.Failures
	out, err := p.run(ctx, `cat "$DIR/events"`)
	if err != nil {
		return c, err
	}
	for s := bufio.NewScanner(strings.NewReader(out.Stdout)); s.Scan(); {
		var l cutoverLine
		if json.Unmarshal(s.Bytes(), &l) != nil || l.Type != "cutover" {
			continue
		}
		if l.Blocked != nil {
			c.blocked = *l.Blocked
		}
		for _, st := range l.Steps {
			c.steps[st.ID] = st.Seconds
			c.order = append(c.order, st.ID)
		}
	}
	return c, nil
}

// sequenced are n tables with a sequence each and some rows.
func sequenced(n int) string {
	return fmt.Sprintf(`DO $do$ BEGIN FOR t IN 1..%d LOOP
		EXECUTE format('CREATE TABLE t_%%s (id bigserial PRIMARY KEY, v text NOT NULL)', t);
		EXECUTE format('INSERT INTO t_%%s (v) VALUES (''one''), (''two'')', t);
		IF t %% 500 = 0 THEN COMMIT; END IF;
	END LOOP; END $do$`, n)
}
