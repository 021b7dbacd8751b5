package check

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"crossfade/scenarios/lab"
	"crossfade/scenarios/lab/labtest"
	"crossfade/schema"
)

// TestApart: what a cluster as bad as possible has no room for fires on real
// servers too, and what each finding says makes it go away.
func TestApart(t *testing.T) {
	l := labtest.T(t)
	old := l.Start(lab.Options{Name: "old", Major: 15, Settings: map[string]string{
		"archive_mode": "on", "archive_command": "test -n %p", "listen_addresses": "127.0.0.1, 127.0.0.2",
	}})
	nw := l.Primary("new", 18)
	stray := l.Standby(nw, "metal", lab.StandbyOptions{})
	l.Exec(old, "", "CREATE DATABASE shop", "CREATE ROLE limited LOGIN REPLICATION", "GRANT pg_monitor TO limited")
	l.Exec(old, "shop", "CREATE TABLE secrets (id int PRIMARY KEY); ALTER TABLE secrets ENABLE ROW LEVEL SECURITY",
		"DO $$ BEGIN FOR i IN 1..30 LOOP EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY)', i); END LOOP; END $$")
	client, err := old.Connect(t.Context(), "shop")
	l.Must(err)
	defer func() { l.Must(client.Close(t.Context())) }()

	o := pair(t, old, nw)
	o.Databases = append(o.Databases, Database{Name: "Shop"})
	o.Databases[0].Sets = func(inv *schema.Inventory) (sets []schema.Set) {
		for i := range inv.Tables {
			sets = append(sets, schema.Set{Name: fmt.Sprintf("s%d", i), Tables: inv.Tables[i : i+1]})
		}
		return sets
	}
	o.Poolers = []string{"192.0.2.7"}
	o.OldStandbys = []Standby{{Name: "metal", Server: server(t, "metal", stray)}}
	apart := map[string]func(){
		"database-missing":      func() { o.Databases = o.Databases[:1] },
		"many-sets":             func() { o.Databases[0].Sets = nil },
		"clients-direct":        func() { o.Poolers = nil },
		"standby-other-cluster": func() { o.OldStandbys = nil },
		"archive-off":           func() { l.Must(nw.Set(t.Context(), "archive_command", "test -n %p")) },
		"listen-addresses":      func() {},
		"row-security":          func() { l.Exec(old, "", "ALTER ROLE limited BYPASSRLS") },
		"privileges":            func() { o.Old = server(t, "old", old) },
	}
	o.Old = server(t, "old", old, "user=limited")
	fired := map[string]Finding{}
	for _, f := range run(t, o) {
		if apart[f.ID] != nil {
			fired[f.ID] = f
		}
	}
	for id, mend := range apart {
		if fired[id].ID == "" {
			t.Errorf("%s does not fire", id)
		}
		mend()
	}
	for line := range strings.Lines(fired["listen-addresses"].Fix + "\n" + fired["archive-off"].Fix) {
		if line = strings.TrimSpace(line); strings.HasSuffix(line, ";") {
			l.Exec(nw, "", line)
		}
	}
	l.Must(nw.Restart(t.Context()))
	got := run(t, o)
	for id := range apart {
		if i := slices.IndexFunc(got, func(f Finding) bool { return f.ID == id }); i >= 0 {
			t.Errorf("%s is still there: %s\n%s", id, got[i].Says, fired[id].Fix)
		}
	}
	if os.Getenv("CROSSFADE_ALL") == "" {
		return // a transaction that is long is a minute long
	}
	for _, sql := range []string{"BEGIN", "INSERT INTO t1 VALUES (1)"} {
		_, err := client.Exec(t.Context(), sql)
		l.Must(err)
	}
	long := func() bool {
		return slices.ContainsFunc(run(t, o), func(f Finding) bool { return f.ID == "long-transactions" })
	}
	if long() {
		t.Error("long-transactions fires for one that began just now")
	}
	for range 5 {
		if l.Value(old, "", "SELECT count(*) FROM pg_stat_activity WHERE xact_start < clock_timestamp() - interval '1 minute' AND datname = 'shop'") != "0" {
			break
		}
		l.Exec(old, "", "SELECT pg_sleep(15)")
	}
	if !long() {
		t.Error("long-transactions does not fire")
	}
	_, err = client.Exec(t.Context(), "COMMIT")
	l.Must(err)
	if long() {
		t.Error("long-transactions fires after the end of the transaction")
	}
}
