package scenarios

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// leftSQL lists everything in a database that bears crossfade's names, or is a
// setting that it makes.
const leftSQL = `
	SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname = 'crossfade'
	UNION ALL SELECT 'publication ' || pubname FROM pg_publication WHERE pubname ~ '^c[fb]_'
	UNION ALL SELECT 'subscription ' || subname FROM pg_subscription WHERE subname ~ '^c[fb]_'
	UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE slot_name ~ '^c[fb]_'
	UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger WHERE evtname ~ '^crossfade'
	UNION ALL SELECT 'trigger ' || tgname || ' on ' || tgrelid::regclass FROM pg_trigger WHERE tgname ~ '^crossfade' AND NOT tgisinternal
	UNION ALL SELECT 'setting ' || c FROM pg_db_role_setting, unnest(setconfig) c WHERE c ~ '^default_transaction_read_only'
	UNION ALL SELECT 'in postgresql.auto.conf: ' || name FROM pg_file_settings WHERE sourcefile ~ 'postgresql.auto.conf$'
		AND name NOT IN ('primary_conninfo', 'primary_slot_name', 'synchronous_standby_names', 'recovery_min_apply_delay', 'cluster_name')`

// fenceKept is what finish leaves on the side that does not serve: its fence,
// until it is retired.
func fenceKept(thing string) bool {
	return strings.HasPrefix(thing, "schema crossfade") || strings.HasPrefix(thing, "trigger crossfade_fence") || strings.HasPrefix(thing, "setting ")
}

// left looks for what crossfade has left while one side serves: with "fence"
// there must be the fence of the other side, and nothing else.
func (st *Stage) left(ctx context.Context, serves, may string) (string, error) {
	var bad []string
	var kept int64
	for _, side := range []string{sideOld, sideNew} {
		for _, d := range st.Scenario.Databases {
			rows, err := st.side(side).Query(ctx, d.Name, leftSQL)
			if sqlState(err) == "3D000" && side == sideNew {
				continue // abort has dropped what prepare had made
			}
			if err != nil {
				return "", err
			}
			for _, r := range rows {
				if may == "fence" && side != serves && fenceKept(r[0]) {
					kept++
					continue
				}
				bad = append(bad, fmt.Sprintf("%s in %s on %s", r[0], d.Name, side))
			}
		}
	}
	if bad != nil {
		return "", errors.New(strings.Join(bad, "; "))
	}
	if may == "fence" {
		if kept == 0 {
			return "", errors.New("the fence of the side that was given up is gone")
		}
		return "the fence of the side that was given up, and nothing else", nil
	}
	return "nothing on any server", nil
}

// query runs one statement over a connection of its own, in the simple
// protocol, which poolers pass on.
func query(ctx context.Context, conninfo, sql string) (rows [][]string, err error) {
	conn, err := pgconn.Connect(ctx, conninfo)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	for _, r := range results {
		for _, row := range r.Rows {
			var texts []string
			for _, v := range row {
				texts = append(texts, string(v))
			}
			rows = append(rows, texts)
		}
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("%s: no row", sql)
	}
	return rows, nil
}

// sqlState is the SQLSTATE of an error, "" where a server has not sent one.
func sqlState(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// errNotRefused names the case in which there is no error at all.
func errNotRefused(err error) error {
	if err == nil {
		return errors.New("success")
	}
	return nil
}

// lastLines is the end of a text.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// logs is the end of every server's log, for who looks for the reason of a
// failure.
func (st *Stage) logs(n int) string {
	var b strings.Builder
	for _, c := range st.Lab.Clusters() {
		if text := c.Log(); text != "" {
			fmt.Fprintf(&b, "--- log of %s (PostgreSQL %d, port %d)\n%s\n", c.Name, c.Major, c.Port, lastLines(text, n))
		}
	}
	return b.String()
}
