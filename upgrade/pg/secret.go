package pg

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"crossfade/upgrade/flow"

	"github.com/jackc/pgx/v5"
)

// silence are the settings by which a server writes a statement down where
// others read it, and the value that ends that: its log, extensions that audit or
// count statements, and pg_stat_activity, which deadlocks and crashes are
// reported from. Those of extensions are there where they are loaded.
const silence = `(VALUES
	('log_statement', 'none'), ('log_min_error_statement', 'panic'), ('log_duration', 'off'),
	('log_min_duration_statement', '-1'), ('log_min_duration_sample', '-1'), ('log_transaction_sample_rate', '0'),
	('debug_print_parse', 'off'), ('debug_print_rewritten', 'off'), ('debug_print_plan', 'off'), ('track_activities', 'off'),
	('auto_explain.log_min_duration', '-1'), ('pgaudit.log', 'none'),
	('pg_stat_statements.track', 'none'), ('pg_stat_monitor.pgsm_track', 'none')) v(name, value)`

// maySet is whether the session's role may set what pg_settings s is. Below 15 no
// privilege on a setting can be granted.
func maySet(conn *pgx.Conn) string {
	may := "(s.context = 'user' OR s.context = 'superuser' AND (current_setting('is_superuser') = 'on'"
	if Major(conn) >= 15 {
		may += " OR has_parameter_privilege(s.name, 'SET')"
	}
	return may + "))"
}

// Major is the major version of the server of a session, of which it needs no query.
func Major(conn *pgx.Conn) int {
	n := 0
	for _, c := range conn.PgConn().ParameterStatus("server_version") { // like 14.3 or 18beta1
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// ExecEffect is Exec for the SQL of e with its secrets filled in, which are kept
// from who reads the server's log (Silently). Outside a transaction, where it has
// some. The error's text never has a secret in it.
func ExecEffect(ctx context.Context, conn *pgx.Conn, e flow.Effect) error {
	if len(e.Secrets) == 0 {
		return Exec(ctx, conn, e.SQL)
	}
	return Silently(ctx, conn, func() error { return Exec(ctx, conn, e.Fill(e.Secrets).SQL) })
}

// Silently runs f, whose statements in the session conn hold secrets: they are
// kept out of the server's log, out of what extensions record, and out of
// pg_stat_activity, as far as the session's role may; Overheard says where it may
// not. The session is in no transaction: the server decides at the beginning of
// one whether it logs a sample of its statements. f leaves it in none.
func Silently(ctx context.Context, conn *pgx.Conn, f func() error) error {
	if conn.PgConn().TxStatus() != 'I' {
		return errors.New("a statement with a secret in a transaction that may be logged")
	}
	// In the simple protocol, so that the settings come back as they are.
	results, err := conn.PgConn().Exec(ctx, `
		WITH was AS MATERIALIZED (SELECT s.name, current_setting(s.name) was, v.value FROM `+silence+` JOIN pg_settings s USING (name) WHERE `+maySet(conn)+`)
		SELECT name, was, set_config(name, value, false) FROM was`).ReadAll()
	if err != nil {
		return fmt.Errorf("turn the log off for a statement with a secret: %w", err)
	}
	err = f()
	if conn.IsClosed() {
		return err
	}
	var back []string
	for _, row := range results[len(results)-1].Rows {
		back = append(back, fmt.Sprintf("set_config(%s, %s, false)", Literal(string(row[0])), Literal(string(row[1]))))
	}
	return errors.Join(err, Exec(context.WithoutCancel(ctx), conn, "SELECT "+strings.Join(back, ", ")))
}

// Overheard are the settings by which the server would write a statement of
// ExecEffect down with its secrets, as "name = value", because the session's role
// may not change them; none where it may.
func Overheard(ctx context.Context, conn *pgx.Conn) ([]string, error) {
	rows, err := conn.Query(ctx, `
		SELECT s.name || ' = ' || current_setting(s.name)
		FROM `+silence+` JOIN pg_settings s USING (name)
		WHERE NOT `+maySet(conn)+` AND CASE s.name
			WHEN 'log_statement' THEN s.setting IN ('ddl', 'mod', 'all')
			WHEN 'log_min_error_statement' THEN s.setting NOT IN ('fatal', 'panic')
			WHEN 'pgaudit.log' THEN s.setting NOT IN ('', 'none')
			WHEN 'log_duration' THEN false -- the duration alone
			WHEN 'track_activities' THEN false -- superusers and pg_read_all_stats read it while it runs
			ELSE s.setting <> v.value END
		ORDER BY 1`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
