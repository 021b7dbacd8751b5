package schema

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// Ledger is the effect that makes the place for marks in a database of on.
// Everything that a step does exactly once writes its mark there in the same
// transaction.
func Ledger(on, database string) flow.Effect {
	return flow.Effect{On: on, Database: database, SQL: "CREATE SCHEMA IF NOT EXISTS " + Own + ";\n" +
		"CREATE TABLE IF NOT EXISTS " + Own + ".ledger (key text PRIMARY KEY, value jsonb NOT NULL DEFAULT '{}')"}
}

// Marks reads the keys in the ledger that begin with prefix; none where there
// is no ledger.
func Marks(ctx context.Context, conn *pgx.Conn, prefix string) (map[string]bool, error) {
	rows, err := conn.Query(ctx, `SELECT key FROM crossfade.ledger WHERE starts_with(key, $1)`, prefix)
	if err == nil {
		var key string
		marks := map[string]bool{}
		_, err = pgx.ForEachRow(rows, []any{&key}, func() error { marks[key] = true; return nil })
		if err == nil {
			return marks, nil
		}
	}
	switch pg.SQLState(err) {
	case undefinedTable, undefinedSchema:
		return nil, nil
	}
	return nil, fmt.Errorf("read the ledger: %w", err)
}

// RestoreSettings are what a session that restores entries needs beyond the
// pinned ones (pg.Server.ConnectWith): what pg_dump writes at the head of its
// output and is not pinned already.
func RestoreSettings() map[string]string {
	return map[string]string{
		"search_path": "", "check_function_bodies": "off", "client_min_messages": "warning", "default_tablespace": "",
	}
}

// Session opens a session that can restore entries of Dump, with RestoreSettings.
func Session(ctx context.Context, to *pg.Server, more map[string]string) (*pgx.Conn, error) {
	settings := RestoreSettings()
	maps.Copy(settings, more)
	return to.ConnectWith(ctx, settings)
}

// Effect is what Restore sends for the entry, once Vars are filled in: its
// mark, then its SQL, in one transaction. The mark comes first, so that a second run beside this one
// fails before it does anything.
func (e Entry) Effect(on, database string) flow.Effect {
	return flow.Effect{On: on, Database: database, Secrets: e.Vars, SQL: fmt.Sprintf(
		"INSERT INTO %s.ledger (key, value) VALUES (%s, '{\"sha256\": \"%s\"}');\n%s", Own, pg.Literal(e.Key()), e.hash(), e.SQL)}
}

// RestoreEffects are what Restore sends.
func RestoreEffects(entries []Entry, on, database string) []flow.Effect {
	effects := make([]flow.Effect, len(entries))
	for i, e := range entries {
		effects[i] = e.Effect(on, database)
	}
	return effects
}

// Restore executes those of entries, in their order, that have no mark in the
// ledger of conn's database (Ledger must have run). Small entries share a
// transaction, a big one (an index, a foreign key, a refresh) has its own; a
// mark is committed with what it stands for, so that a crash or a second run
// repeats nothing. conn should be a Session. seen is called for each entry that
// is done, committed or found done; nil is silent. The error names the entry
// that PostgreSQL refused; what was committed before it stays.
func Restore(ctx context.Context, conn *pgx.Conn, entries []Entry, seen func(Entry)) error {
	if seen == nil {
		seen = func(Entry) {}
	}
	marks, err := Marks(ctx, conn, "toc ")
	if err != nil {
		return err
	}
	var chunk []Entry
	flush := func() error {
		if len(chunk) == 0 {
			return nil
		}
		if err := restoreChunk(ctx, conn, chunk); err != nil {
			return err
		}
		for _, e := range chunk {
			seen(e)
		}
		chunk = chunk[:0]
		return nil
	}
	for _, e := range entries {
		if marks[e.Key()] {
			seen(e)
			continue
		}
		apart := e.heavy() || len(e.Vars) > 0 // a secret is sent in no transaction of others
		if apart || len(chunk) == smallEntries {
			if err := flush(); err != nil {
				return err
			}
		}
		chunk = append(chunk, e)
		if apart {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// smallEntries is how many entries share one commit.
const smallEntries = 50

func (e Entry) heavy() bool { return e.Stage != Before && e.Stage != Late }

func restoreChunk(ctx context.Context, conn *pgx.Conn, chunk []Entry) error {
	if len(chunk) == 1 { // one message is a transaction by itself
		return restoreOne(ctx, conn, chunk[0])
	}
	if err := pg.Exec(ctx, conn, "BEGIN"); err != nil {
		return fmt.Errorf("restore %s and what follows: %w", chunk[0].Object(), err)
	}
	for _, e := range chunk {
		if err := restoreOne(ctx, conn, e); err != nil {
			if conn.IsClosed() {
				return err
			}
			return joinErr(err, pg.Exec(context.WithoutCancel(ctx), conn, "ROLLBACK"))
		}
	}
	if err := pg.Exec(ctx, conn, "COMMIT"); err != nil {
		return fmt.Errorf("commit %s to %s: %w", chunk[0].Object(), chunk[len(chunk)-1].Object(), err)
	}
	return nil
}

func restoreOne(ctx context.Context, conn *pgx.Conn, e Entry) error {
	effect := e.Effect("", "")
	lent, err := e.lent(ctx, conn)
	if err == nil {
		if err = pg.ExecEffect(ctx, conn, effect.Fill(lent)); err == nil {
			return nil
		}
	}
	failed := &pg.Error{Doing: "restore " + e.Object(), Object: e.Object(), Err: err, On: "database " + conn.Config().Database}
	if ctx.Err() != nil {
		failed.Err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	}
	switch state := pg.SQLState(err); {
	case strings.HasPrefix(state, "23") && e.Stage != Before:
		failed.Hint = "rows of the other side break it: fix them there and run the same command again"
	case strings.HasPrefix(state, "58"), state == featureNotSupported && e.Type == "EXTENSION":
		failed.Hint = "install the package of this extension on that server"
	case state == duplicateTable, state == duplicateObject, state == duplicateFunction, state == duplicateSchema:
		failed.Hint = "something of that name is there that this upgrade did not make: drop it, or start with an empty database"
	case state == undefinedFunction, state == undefinedColumn, state == undefinedTable, state == undefinedObject, state == syntaxError:
		failed.Hint = "it uses something that this major does not have any more: change it on old, then run again"
	}
	return failed
}
