package load

import (
	"context"
	"errors"
	"strings"

	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Assign gives o the entries of a dump that the copy makes: the Identify and
// Index entries of the tables of o.Sets (Indexes), those that belong to none of
// these, partitioned tables and attachments above all (Tail), and foreign keys
// from one of these tables to another (Foreign). Other foreign keys are left.
func (o *Options) Assign(all []schema.Entry) {
	of := map[string][]schema.Entry{}
	for _, s := range o.Sets {
		for _, t := range s.Tables {
			of[t.SQL()] = nil
		}
	}
	o.Tail, o.Foreign = nil, nil
	for _, stage := range []schema.Stage{schema.Identify, schema.Index} {
		for _, e := range schema.Entries(all, stage) {
			if _, ok := of[e.Table]; ok {
				of[e.Table] = append(of[e.Table], e)
			} else {
				o.Tail = append(o.Tail, e)
			}
		}
	}
	for _, e := range schema.Entries(all, schema.Foreign) {
		_, on := of[e.Table]
		_, to := of[e.References]
		if on && to && e.Type == "FK CONSTRAINT" {
			o.Foreign = append(o.Foreign, e)
		}
	}
	o.Indexes = func(t schema.Table) []schema.Entry { return of[t.SQL()] }
}

func (o Options) entry(e schema.Entry) flow.Effect { return e.Effect("new", o.Database) }

func (m marks) has(e schema.Entry) bool {
	_, ok := m[e.Key()]
	return ok
}

const uniqueViolation, foreignViolation = "23505", "23503"

// restore builds what e says, and marks it, in one transaction whose first act
// is the mark: if a session that was lost is still at it, this waits for its
// end, and finds the mark or does the work.
func (o Options) restore(ctx context.Context, conn *pgx.Conn, e schema.Entry) error {
	err := pg.Exec(ctx, conn, o.entry(e).SQL)
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Code == uniqueViolation && pe.SchemaName == schema.Own && pe.TableName == "ledger" {
		return nil
	}
	if err != nil {
		hint := ""
		switch pg.SQLState(err) {
		case foreignViolation:
			hint = "old has rows that break this foreign key: its triggers did not fire for them there, which happens in the replica role or while they are disabled; fix the rows on old and run the same command again, which copies them again"
		case uniqueViolation:
			hint = "old has rows that break this key, or its index there is damaged (collations may have changed below it): look with amcheck, fix the rows on old and run the same command again, which copies them again"
		}
		return fail("build "+e.Object(), o.New, hint, err)
	}
	return nil
}

// Validating is a step of the same plan that makes on the copied rows what they
// may break: where they do, the sets of o that nothing is applied to yet are copied
// again when the plan is run again, so that it finds what was fixed on old.
func (o Options) Validating(s flow.Step) flow.Step {
	o = o.ready()
	do := s.Do
	s.Do = func(ctx context.Context, t *flow.Turn) error { return o.orAgain(ctx, do(ctx, t)) }
	return s
}

// orAgain forgets the sets of o where err is of their rows, and returns err. A
// set with a subscription stays: its rows follow old.
func (o Options) orAgain(ctx context.Context, err error) error {
	const integrity = "23" // the class of violated constraints
	if !strings.HasPrefix(pg.SQLState(err), integrity) {
		return err
	}
	forget := func() error {
		conn, err := o.New.Connect(ctx)
		if err != nil {
			return err
		}
		defer pg.Leave(conn)
		for _, s := range o.Sets {
			point, valid, err := o.Slot(ctx, s.Name)
			if err != nil {
				return err
			}
			if valid && point == 0 {
				continue
			}
			if err := pg.Exec(ctx, conn, o.forget(s.Name).SQL); err != nil {
				return fail("forget the marks of set "+s.Name, o.New, "", err)
			}
		}
		return nil
	}
	return errors.Join(err, forget())
}
