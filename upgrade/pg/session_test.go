package pg_test

import (
	"fmt"
	"strings"
	"testing"

	"crossfade/scenarios/lab"
	"crossfade/scenarios/lab/labtest"
	"crossfade/upgrade/pg"
)

// TestPinned: whatever roles and databases are set to, a session has no limit of
// time, and fires no trigger where its role may decide that.
func TestPinned(t *testing.T) {
	for _, major := range []int{13, 15, 18} {
		t.Run(fmt.Sprintf("v%d", major), func(t *testing.T) {
			l := labtest.T(t)
			c := l.Start(lab.Options{Name: "wacken", Major: major})
			limits := []string{"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"}
			if major >= 14 {
				limits = append(limits, "idle_session_timeout")
			}
			if major >= 17 {
				limits = append(limits, "transaction_timeout")
			}
			l.Exec(c, "", "CREATE ROLE plain LOGIN", "CREATE ROLE trusted LOGIN", "CREATE ROLE boss LOGIN SUPERUSER")
			if major >= 15 {
				l.Exec(c, "", "GRANT SET ON PARAMETER session_replication_role TO trusted")
			}
			for _, name := range limits {
				l.Exec(c, "", "ALTER DATABASE postgres SET "+name+" = '1h'", "ALTER ROLE ALL SET "+name+" = '2h'")
			}
			for role, may := range map[string]bool{"boss": true, "trusted": major >= 15, "plain": false} {
				s, err := pg.Parse("old", strings.Replace(c.Conninfo("postgres"), "user=postgres", "user="+role, 1), "")
				l.Must(err)
				conn, err := s.Connect(t.Context())
				l.Must(err)
				want := map[string]string{"session_replication_role": "origin"}
				if may {
					want["session_replication_role"] = "replica"
				}
				if major >= 17 {
					want["event_triggers"] = "on"
					if role == "boss" {
						want["event_triggers"] = "off"
					}
				}
				for _, name := range limits {
					want[name] = "0"
				}
				for name, value := range want {
					var is string
					l.Must(conn.QueryRow(t.Context(), "SELECT setting FROM pg_settings WHERE name = $1", name).Scan(&is))
					if is != value {
						t.Errorf("%s: %s is %s, want %s", role, name, is, value)
					}
				}
				pg.Leave(conn)
			}
		})
	}
}
