package load

import (
	"context"
	"errors"

	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Assign hands the Identify and Index entries of a dump to the tables of sets
// (Options.Indexes) and what belongs to none of these, partitioned tables and
// attachments above all, to Options.Tail. Every such entry is in one of both.
func Assign(all []schema.Entry, sets []schema.Set) (indexes func(schema.Table) []schema.Entry, tail []schema.Entry) {
	of := map[string][]schema.Entry{}
	for _, s := range sets {
		for _, t := range s.Tables {
			of[t.SQL()] = nil
		}
	}
	for _, stage := range []schema.Stage{schema.Identify, schema.Index} {
		for _, e := range schema.Entries(all, stage) {
			if _, ok := of[e.Table]; ok {
				of[e.Table] = append(of[e.Table], e)
			} else {
				tail = append(tail, e)
			}
		}
	}
	return func(t schema.Table) []schema.Entry { return of[t.SQL()] }, tail
}

func (o Options) entry(e schema.Entry) flow.Effect { return e.Effect("new", o.Database) }

func (m marks) has(e schema.Entry) bool {
	_, ok := m[e.Key()]
	return ok
}

const uniqueViolation = "23505"

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
		if pg.SQLState(err) == uniqueViolation {
			hint = "old has rows that break this key, or its index there is damaged (collations may have changed below it): look with amcheck"
		}
		return fail("build "+e.Object(), o.New, hint, err)
	}
	return nil
}
