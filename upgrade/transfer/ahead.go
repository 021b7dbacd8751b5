package transfer

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"crossfade/cutover"
	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// aheadBatch is how many columns are asked by one statement: each takes a lock.
const aheadBatch = 500

// AheadStep sets the sequences of old beyond what the rows that came back from
// new have used, where new itself cannot be asked any more: a cutover had set
// them ahead there by the margin, so that they are set ahead by twice that.
func (tf *Transfer) AheadStep(s *survey.Survey) flow.Step {
	var does []flow.Effect
	for _, db := range s.Databases {
		if len(db.Inventory.Sequences) > 0 {
			does = append(does, flow.SQL("old", db.Name, cutover.SetSequences))
		}
	}
	return flow.Step{
		ID: "sequences", Title: "Set the sequences of old beyond what new is known to have used", Does: does, Done: flow.Never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			for _, db := range s.Databases {
				err := tf.c.In(ctx, "old", db.Name, func(conn *pgx.Conn) error {
					seqs, err := usedByRows(ctx, conn, db.Inventory)
					if err != nil {
						return err
					}
					seqs = slices.DeleteFunc(seqs, func(q schema.Sequence) bool { return db.Apart.Has(q.SQL()) })
					sql, n := schema.SetSequences(seqs, 2*tf.c.Book.Cutover.SequenceMargin)
					if n == 0 {
						return nil
					}
					if free := slices.DeleteFunc(seqs, func(q schema.Sequence) bool { return q.OwnedBy != "" }); len(free) > 0 {
						t.Note("%d sequences of %s belong to no column (%s …): they are set ahead by %d; values that new handed out beyond are not known",
							len(free), db.Name, free[0], 2*tf.c.Book.Cutover.SequenceMargin)
					}
					return pg.Exec(ctx, conn, sql)
				})
				if err != nil {
					return &pg.Error{Doing: "set the sequences of " + db.Name, On: tf.c.Old.String(), Err: err}
				}
			}
			return nil
		},
	}
}

// usedByRows reads the sequences of a database, each that belongs to a column
// of whole numbers at least where the farthest row of its table stands.
func usedByRows(ctx context.Context, conn *pgx.Conn, inv *schema.Inventory) ([]schema.Sequence, error) {
	seqs, err := schema.ReadSequences(ctx, conn)
	if err != nil {
		return nil, err
	}
	columns := map[string]string{} // of whole numbers: by table and number, how their ends are asked for
	for _, t := range inv.Tables {
		for _, c := range t.Columns {
			if c.TypeOID == 20 || c.TypeOID == 21 || c.TypeOID == 23 {
				columns[fmt.Sprint(t.OID, " ", c.Num)] = fmt.Sprintf("SELECT $n, min(%[1]s)::int8, max(%[1]s)::int8 FROM %[2]s", pg.Ident(c.Name), t.SQL())
			}
		}
	}
	var asks []string
	for i := range seqs {
		at := slices.IndexFunc(inv.Sequences, func(q schema.Sequence) bool { return q.OID == seqs[i].OID })
		if at < 0 {
			continue
		}
		owner := inv.Sequences[at]
		seqs[i].OwnedBy = owner.OwnedBy
		if ask, ok := columns[fmt.Sprint(owner.Table, " ", owner.Column)]; ok && seqs[i].Last != nil {
			asks = append(asks, strings.Replace(ask, "$n", fmt.Sprint(i), 1))
		}
	}
	for part := range slices.Chunk(asks, aheadBatch) {
		var i int
		var low, high *int64
		err := pg.Simple(ctx, conn, strings.Join(part, " UNION ALL "), []any{&i, &low, &high}, func() error {
			q := &seqs[i]
			switch {
			case q.Increment > 0 && high != nil && *high >= *q.Last:
				q.Last, q.Called = new(min(*high, q.Max)), true
			case q.Increment < 0 && low != nil && *low <= *q.Last:
				q.Last, q.Called = new(max(*low, q.Min)), true
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return seqs, nil
}
