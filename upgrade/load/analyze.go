package load

import (
	"context"
	"fmt"
	"strings"

	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// analyzeTargets are the stages of gathering statistics: a rough idea of every
// table soon, then a better one, at last the server's own target.
var analyzeTargets = []int{1, 10, 0}

// analyzeBatch is how many tables one ANALYZE names: few enough that workers
// end a stage at about the same time.
const analyzeBatch = 20

const analyzedKey = "analyzed"

// Analyze is "analyze/<database>": statistics of tables, in three stages, by
// o.Jobs sessions. Partitioned tables belong into tables, and their partitions
// need not. It is done when it was done once; of o only New, Database, Jobs
// and Settings count.
func Analyze(o Options, tables []schema.Table) flow.Step {
	o.Old = o.New
	o = o.ready()
	var stages [][]flow.Effect
	var does []flow.Effect
	for _, target := range analyzeTargets {
		var stage []flow.Effect
		for _, sql := range schema.Analyze(tables, target, analyzeBatch) {
			stage = append(stage, o.onNew(sql))
		}
		stages = append(stages, stage)
		does = append(does, stage...)
	}
	end := o.onNew("INSERT INTO crossfade.ledger (key, value) VALUES (" + pg.Literal(analyzedKey) + ", '{}') ON CONFLICT (key) DO NOTHING")
	return flow.Step{
		ID: "analyze/" + o.Database, Title: fmt.Sprintf("Gather statistics of the %d tables of %s", len(tables), o.Database),
		Does: append(does, end),
		Done: func(ctx context.Context) (bool, error) {
			m, err := o.readMarks(ctx)
			_, done := m[analyzedKey]
			return done, err
		},
		Do: func(ctx context.Context, t *flow.Turn) error {
			for i, stage := range stages {
				t.Progress(int64(i), int64(len(stages)), "stages", o.Database)
				if err := o.analyze(ctx, stage); err != nil {
					return err
				}
			}
			conn, err := o.New.Connect(ctx)
			if err != nil {
				return err
			}
			defer pg.Leave(conn)
			return pg.Exec(ctx, conn, end.SQL)
		},
	}
}

// analyze runs one stage: its ANALYZE statements by whoever is free, the SET
// before and the RESET after them by everybody.
func (o Options) analyze(ctx context.Context, stage []flow.Effect) error {
	var before, behind, work []flow.Effect
	for _, e := range stage {
		switch {
		case strings.HasPrefix(e.SQL, "ANALYZE "):
			work = append(work, e)
		case len(work) == 0:
			before = append(before, e)
		default:
			behind = append(behind, e)
		}
	}
	queue := make(chan flow.Effect, len(work))
	for _, e := range work {
		queue <- e
	}
	close(queue)
	g, ctx := errgroup.WithContext(ctx)
	for range min(o.Jobs, len(work)) {
		g.Go(func() error {
			conn, err := o.New.ConnectWith(ctx, both)
			if err != nil {
				return err
			}
			defer pg.Leave(conn)
			if err := o.each(ctx, conn, before); err != nil {
				return err
			}
			for e := range queue {
				if err := o.each(ctx, conn, []flow.Effect{e}); err != nil {
					return err
				}
			}
			return o.each(ctx, conn, behind)
		})
	}
	return g.Wait()
}

func (o Options) each(ctx context.Context, conn *pgx.Conn, effects []flow.Effect) error {
	for _, e := range effects {
		if err := pg.Exec(ctx, conn, e.SQL); err != nil {
			return fail(pg.Brief(e.SQL), o.New, "", err)
		}
	}
	return nil
}
