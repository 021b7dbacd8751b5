package trial

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"crossfade/schema"
	"crossfade/upgrade/check"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// rejection is the finding of a refused statement.
func rejection(database, object, sql string, major int, err error, because *schema.Rejected, undo string) check.Finding {
	f := check.Finding{ID: SchemaRejected, Level: check.Block, On: check.OnNew, Database: database, Object: object}
	said := pg.Said(err)
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Where != "" {
		said += ", in " + pg.Brief(e.Where)
	}
	f.Says = fmt.Sprintf("PostgreSQL %d refuses %s of old: %s; the statement: %s", major, object, said, pg.Brief(sql))
	state := pg.SQLState(err)
	switch {
	case undo != "":
		f.Fix = "new has no function of that name, or several; on old, in database " + database + ": " + undo
	case because != nil:
		f.Fix = "fix " + because.Entry.Object() + " first, which this one needs"
	case strings.HasPrefix(state, "58"), strings.HasPrefix(object, "extension "):
		f.Fix = "install the package of this extension on new, or drop the extension on old"
	case state == "42501":
		f.Fix = "let crossfade log in to new as a superuser"
	case slices.Contains(notFound, state):
		f.Fix = "where a function that it calls names others without a schema, which search_path does not find here: " +
			"ALTER FUNCTION … SET search_path = … on old, as the finding unqualified-names prints it; " +
			fmt.Sprintf("else change or drop it on old so that PostgreSQL %d takes it. Then run the same command again", major)
	default:
		f.Fix = fmt.Sprintf("change or drop it on old so that PostgreSQL %d takes it, then run the same command again", major)
	}
	return f
}

// compareScratch compares a scratch database with old's, apart from differences
// that are left out.
func (tl *Trial) compareScratch(ctx context.Context, conn *pgx.Conn, db *survey.Database, left func(schema.Difference) bool) ([]check.Finding, error) {
	var want *schema.Inventory
	err := survey.Catalogs(ctx, tl.c, "old", db, func(old *pgx.Conn) (err error) {
		want, err = schema.Read(ctx, old, schema.Filter{NoSizes: true, NoUncalled: true})
		return err
	})
	if err != nil {
		return nil, err
	}
	got, err := schema.Read(ctx, conn, schema.Filter{NoSizes: true, NoUncalled: true})
	if err != nil {
		return nil, fmt.Errorf("read the scratch database of %s: %w", db.Name, err)
	}
	want = want.Without(db.Apart)
	diff, err := schema.Compare(ctx, conn, want, got)
	if err != nil {
		return nil, err
	}
	var found []check.Finding
	for _, d := range schema.Unexpected(diff) {
		if d.Kind == "user mapping" && d.Property == "options" || left(d) {
			continue // no secret is in a scratch database
		}
		found = append(found, check.Finding{
			ID: SchemaDiffers, Level: check.Block, On: check.OnNew, Database: db.Name, Object: d.Kind + " " + d.Object,
			Says: "what new makes of old's schema is not the same: " + d.Says,
			Fix:  "change or drop it on old so that both majors have the same, then run crossfade again",
		})
	}
	return append(found, withoutFence(db, want, got)...), nil
}

// ofRoles says whether a difference is about who owns or may do something. A policy
// may be for a role.
func ofRoles(d schema.Difference) bool {
	return d.Property == "" && (d.Kind == "policy" || d.Kind == "comment" && strings.HasPrefix(d.Object, "policy ")) ||
		slices.Contains([]string{"owner", "privileges", "roles"}, d.Property) || slices.Contains([]string{"default privileges", "privileges", "user mapping"}, d.Kind)
}

// withoutFence are the tables that new does not make, and that could not be closed.
func withoutFence(db *survey.Database, want, got *schema.Inventory) []check.Finding {
	var found []check.Finding
	for _, t := range want.Tables {
		if got.Find(t.Schema, t.Name) != nil || t.Extension == "" {
			continue
		}
		found = append(found, check.Finding{
			ID: SchemaDiffers, Level: check.Block, On: check.OnNew, Database: db.Name, Object: t.String(),
			Says: fmt.Sprintf("table %s belongs to extension %s, which does not make it on new: it, and its rows, would be missing there", t, t.Extension),
			Fix:  fmt.Sprintf("if it is a table of yours: ALTER EXTENSION %s DROP TABLE %s on old; else update the extension there (ALTER EXTENSION %[1]s UPDATE)", pg.Ident(t.Extension), t.SQL()),
		})
	}
	return found
}
