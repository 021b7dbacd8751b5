package pg_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
	"crossfade/scenarios/lab/labtest"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// everything makes a server write down every statement that it can.
var everything = map[string]string{
	"log_statement": "all", "log_duration": "on", "log_min_duration_statement": "0", "log_min_error_statement": "debug5", "log_transaction_sample_rate": "1",
	"shared_preload_libraries": "pg_stat_statements,auto_explain", "auto_explain.log_min_duration": "0", "auto_explain.log_nested_statements": "on",
}

// TestSecretsStayOut: a server that writes every statement down does not write
// down one that holds a secret: neither where it succeeds nor where it fails, nor while
// it waits. What comes before and
// after it is logged as ever.
func TestSecretsStayOut(t *testing.T) {
	for _, major := range []int{13, 18} {
		t.Run(fmt.Sprintf("v%d", major), func(t *testing.T) { t.Parallel(); secrets(t, major) })
	}
}

func secrets(t *testing.T, major int) {
	l := labtest.T(t)
	c := l.Start(lab.Options{Name: "wacken", Major: major, Settings: everything})
	l.Exec(c, "", "CREATE EXTENSION pg_stat_statements", "CREATE ROLE weak LOGIN CREATEROLE", "CREATE ROLE taken")
	s, err := pg.Parse("old", c.Conninfo("postgres"), "")
	l.Must(err)
	conn, err := s.Connect(t.Context())
	l.Must(err)
	defer pg.Leave(conn)
	role := func(name string) flow.Effect {
		return flow.Effect{SQL: "CREATE ROLE " + name + " PASSWORD $word", Secrets: map[string]string{"word": pg.Literal("hush" + name)}}
	}

	l.Must(pg.Exec(t.Context(), conn, "SELECT 'before'"))
	l.Must(pg.ExecEffect(t.Context(), conn, role("alone")))
	err = pg.ExecEffect(t.Context(), conn, role("taken"))
	if pg.SQLState(err) != "42710" || strings.Contains(err.Error(), "hush") {
		t.Errorf("a role that is there: %v", err)
	}
	if status := conn.PgConn().TxStatus(); status != 'I' {
		t.Errorf("after a statement that failed the session is in state %c", status)
	}
	l.Must(pg.Exec(t.Context(), conn, "BEGIN"))
	if err := pg.ExecEffect(t.Context(), conn, role("inside")); err == nil {
		t.Error("a secret is sent in a transaction that was begun before")
	}
	l.Must(pg.Exec(t.Context(), conn, "COMMIT"))

	// One that waits: for a role of that name that is not committed yet.
	other, err := s.Connect(t.Context())
	l.Must(err)
	defer pg.Leave(other)
	l.Must(pg.Exec(t.Context(), other, "BEGIN; CREATE ROLE waits"))
	done := make(chan error, 1)
	go func() { done <- pg.ExecEffect(t.Context(), conn, role("waits")) }()
	l.Until(c, "", "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted")
	if got := l.Value(c, "", "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%hush'||'waits%'"); got != "0" {
		t.Error("pg_stat_activity shows the secret of a statement that waits")
	}
	l.Must(pg.Exec(t.Context(), other, "ROLLBACK"))
	l.Must(<-done)
	l.Must(pg.Exec(t.Context(), conn, "SELECT 'after'"))
	for _, name := range []string{"log_statement", "log_min_duration_statement", "log_min_error_statement", "track_activities"} {
		var is, was string
		l.Must(conn.QueryRow(t.Context(), "SELECT setting, reset_val FROM pg_settings WHERE name = $1", name).Scan(&is, &was))
		if is != was {
			t.Errorf("%s is %s after it, and was %s", name, is, was)
		}
	}

	// For a role that may not turn it off the settings are named.
	conninfo := strings.Replace(c.Conninfo("postgres"), "user=postgres", "user=weak", 1)
	s, err = pg.Parse("old", conninfo, "")
	l.Must(err)
	weak, err := s.Connect(t.Context())
	l.Must(err)
	defer pg.Leave(weak)
	overheard := func(conn *pgx.Conn, want ...string) {
		t.Helper()
		got, err := pg.Overheard(t.Context(), conn)
		l.Must(err)
		if !slices.Equal(got, want) {
			t.Errorf("overheard by %v, wanted %v", got, want)
		}
	}
	overheard(conn)
	all := []string{
		"auto_explain.log_min_duration = 0", "log_min_duration_statement = 0", "log_min_error_statement = debug5", "log_statement = all",
		"log_transaction_sample_rate = 1", "pg_stat_statements.track = top",
	}
	overheard(weak, all...)
	if major >= 15 {
		l.Exec(c, "", "GRANT SET ON PARAMETER log_statement TO weak")
		overheard(weak, slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s == "log_statement = all" })...)
	}
	l.Must(pg.ExecEffect(t.Context(), weak, flow.Effect{SQL: "CREATE ROLE heard PASSWORD $word", Secrets: map[string]string{"word": "'said'"}}))

	end := fmt.Sprintf("end %d", time.Now().UnixNano())
	l.Value(c, "", "SELECT '"+end+"'")
	for range 500 {
		if strings.Contains(c.Log(), end) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	log := c.Log()
	for _, want := range []string{"SELECT 'before'", "SELECT 'after'", `role "taken" already exists`, "PASSWORD 'said'"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s", want)
		}
	}
	for _, line := range strings.Split(log, "\n") {
		if strings.Contains(line, "'hush") {
			t.Errorf("the log has a secret: %s", line)
		}
	}
	if got := l.Value(c, "", "SELECT count(*) FROM pg_stat_statements WHERE query LIKE '%''hush%'"); got != "0" {
		t.Errorf("pg_stat_statements has %s statements with a secret", got)
	}
}
