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
	if major := conn.PgConn().ParameterStatus("server_version"); !oldMajor(major, 15) {
		may += " OR has_parameter_privilege(s.name, 'SET')"
	}
	return may + "))"
}

// oldMajor reports whether a server_version, like 14.3 or 18beta1, is below major.
func oldMajor(version string, major int) bool {
	n := 0
	for _, c := range version {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + int(c-'0')
	}
	return n < major
}

// ExecEffect is Exec for the SQL of e with its secrets filled in. A statement
// that has some is kept out of the server's log, out of what extensions record,
// and out of pg_stat_activity, as far as the session's role may; Overheard says
// where it may not. It runs in a transaction of its own, or in the one that is
// open. The error's text never has a secret in it.
func ExecEffect(ctx context.Context, conn *pgx.Conn, e flow.Effect) error {
	if len(e.Secrets) == 0 {
		return Exec(ctx, conn, e.SQL)
	}
	alone := conn.PgConn().TxStatus() == 'I'
	if alone {
		if err := Exec(ctx, conn, "BEGIN"); err != nil {
			return err
		}
	}
	// In the simple protocol: no portal keeps its snapshot.
	results, err := conn.PgConn().Exec(ctx, `
		WITH was AS MATERIALIZED (SELECT s.name, current_setting(s.name) was, v.value FROM `+silence+` JOIN pg_settings s USING (name) WHERE `+maySet(conn)+`)
		SELECT name, was, set_config(name, value, true) FROM was`).ReadAll()
	if err == nil {
		err = Exec(ctx, conn, e.Fill(e.Secrets).SQL)
	}
	switch {
	case alone && err != nil:
		return errors.Join(err, rollback(ctx, conn))
	case alone:
		return Exec(ctx, conn, "COMMIT")
	case err != nil:
		return err // whoever began the transaction rolls back, and the settings with it
	}
	var back []string
	for _, row := range results[len(results)-1].Rows {
		back = append(back, fmt.Sprintf("set_config(%s, %s, true)", Literal(string(row[0])), Literal(string(row[1]))))
	}
	return Exec(ctx, conn, "SELECT "+strings.Join(back, ", "))
}

// rollback ends a transaction whose statement failed; a session that is gone has
// none.
func rollback(ctx context.Context, conn *pgx.Conn) error {
	if conn.IsClosed() {
		return nil
	}
	return Exec(context.WithoutCancel(ctx), conn, "ROLLBACK")
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
