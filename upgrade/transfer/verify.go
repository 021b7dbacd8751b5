package transfer

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"
	"crossfade/upgrade/survey"
	"crossfade/upgrade/verify"
)

// VerifyStep compares every row of a database while both sides move.
func (tf *Transfer) VerifyStep(s *survey.Survey, db *survey.Database) flow.Step {
	return flow.Step{
		ID: "verify/" + db.Name, Title: "Compare the rows of " + db.Name, Done: tf.wasVerified(s),
		Do: func(ctx context.Context, t *flow.Turn) error {
			results, err := tf.compareRows(ctx, s, db, nil, t)
			if err != nil {
				return err
			}
			return Differing(s, results)
		},
	}
}

// wasVerified: an upgrade that is ready was compared.
func (tf *Transfer) wasVerified(s *survey.Survey) func(context.Context) (bool, error) {
	return func(context.Context) (bool, error) { return s.Ready(), nil }
}

// Differing is the error of a comparison that found differences; nil where it
// found none.
func Differing(s *survey.Survey, results []verify.Result) error {
	var bad []string
	for _, r := range results {
		if !r.Equal {
			bad = append(bad, r.Table)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	e := &exit.Error{
		Code: exit.Differences, Says: fmt.Sprintf("old and new differ in %d tables: %v", len(bad), bad),
		Hint: "crossfade verify names the rows; abort and prepare again, or find out who wrote on new",
	}
	if s.Phase == report.PhaseOpen {
		e.Hint = "crossfade verify names the rows; old is closed: what is on old alone was written there by a superuser with session_replication_role = replica, which no fence stops. " +
			"Write it again on new if it is wanted, and delete it on old before a rollback: it would be served again there"
	}
	return e
}

func (tf *Transfer) compareRows(ctx context.Context, s *survey.Survey, db *survey.Database, each func(verify.Result), t *flow.Turn) ([]verify.Result, error) {
	links, _ := db.Directed(s.Serving().Name)
	return tf.CompareTables(ctx, s, db, links, each, t)
}

// CompareTables is compareRows over links of the caller's choice, from the side
// that serves.
func (tf *Transfer) CompareTables(ctx context.Context, s *survey.Survey, db *survey.Database, links []link.Link, each func(verify.Result), t *flow.Turn) ([]verify.Result, error) {
	o := verify.Options{
		Old: tf.c.Old.With(db.Name), New: tf.c.New.With(db.Name), Database: db.Name, Jobs: tf.c.Book.Copy.Jobs, Mode: verify.Mode(tf.c.Book.Verify.Mode),
		Pass:    func(ctx context.Context) (pg.LSN, error) { return tf.pass(ctx, db, links) },
		Observe: each,
	}
	if s.Serving().Name == "new" {
		o.Back = true
	}
	for _, set := range db.Sets {
		o.Tables = append(o.Tables, set.Tables...)
	}
	if t != nil {
		o.Progress = func(done, total int64, again int) {
			says := db.Name
			if again > 0 {
				says = fmt.Sprintf("%s: looking again at %d tables that move", db.Name, again)
			}
			t.Progress(done, total, "bytes", says)
		}
	}
	runs, err := s.RunsAnywhere(ctx, db)
	if err != nil {
		return nil, err
	}
	done := tf.owners.Read(runs, &o)
	results, err := verify.Run(ctx, o)
	return results, errors.Join(err, done(ctx))
}

// LaterVerifyStep compares the rows of what was taken along.
func (tf *Transfer) LaterVerifyStep(s *survey.Survey, late *survey.Database) flow.Step {
	return flow.Step{
		ID: "verify/" + late.Name, Title: "Compare the rows of what was taken along in " + late.Name, Done: flow.Never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			results, err := tf.CompareTables(ctx, s, late, late.Links, nil, t)
			if err != nil {
				return err
			}
			return Differing(s, results)
		},
	}
}

// CompareStep compares the catalogs of both sides object by object.
func (tf *Transfer) CompareStep(s *survey.Survey, db *survey.Database) flow.Step {
	return flow.Step{
		ID: "compare/" + db.Name, Title: "Compare the catalogs of " + db.Name + " object by object", Done: flow.Never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			diff, err := survey.Differences(ctx, tf.c, db)
			if err != nil {
				return err
			}
			var bad []string
			hand := s.ByHand()
			for _, d := range diff {
				if d.Expected != "" {
					t.Note("%s: %s", d.Says, d.Expected)
					continue
				}
				bad = append(bad, d.Says)
			}
			if len(bad) > 0 {
				return &exit.Error{
					Code: exit.Failed, Says: fmt.Sprintf("the catalogs of %s differ between old and new:\n  %s", db.Name, strings.Join(bad, "\n  ")),
					Hint: "make the same change on both sides (" + hand + "), then run crossfade prepare again",
				}
			}
			return nil
		},
	}
}
