package scenarios

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
	"crossfade/scenarios/lab/labtest"
)

const judged = `
title: two servers that look as after an upgrade
old: {major: 15, standbys: [{name: metal}]}
new: {majors: [17]}
databases: [{name: shop, pgbench: 1, sql: [small.sql]}]
poolers: [{name: pgbouncer, databases: [shop]}]
load: [{database: shop, writers: 2, pause: 1ms, pgbench: {clients: 2, rate: 100}}]
runbook: "none"
`

// Judges that can only acquit prove nothing: each claim must be true of two
// servers that are as they should be, and turn false by the damage that it is
// there to see.
func TestProveSeesDamage(t *testing.T) {
	labtest.Need(t, 15, 17)
	ctx := t.Context()
	s, err := Parse("judged", []byte(judged))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "crossfade-judged-") // the servers' user may not enter a test's own
	if err != nil {
		t.Fatal(err)
	}
	st, err := Boot(ctx, s, dir, false, func(what, says string) { t.Log(what, says) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Down(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
	want, err := st.shape(ctx)
	if err != nil {
		t.Fatal(err)
	}
	u := NewUsers(st)
	if err := u.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := u.Flow(ctx, 100); err != nil {
		t.Fatal(err)
	}
	if err := st.Old.Until(ctx, "shop", "SELECT EXISTS (SELECT FROM pgbench_history)"); err != nil { // it begins when it likes
		t.Fatal(err)
	}
	if _, err := u.Stop(); err != nil {
		t.Fatal(err)
	}
	mirror(t, st)
	look := func(patience time.Duration) (all map[string]bool, says string) {
		all = map[string]bool{}
		p := &prover{stage: st, users: u, want: want, side: sideOld, patience: patience}
		p.claim = func(c Claim) {
			all[c.What] = c.True
			says += c.What + ": " + c.Says + "\n"
		}
		p.prove(ctx)
		return all, says
	}
	before, says := look(0)
	if len(before) != 10 || slices.Contains(slices.Collect(maps.Values(before)), false) {
		t.Fatalf("undamaged, and not all is true:\n%s", says)
	}
	exec := func(c *lab.Cluster, sql string) func() error {
		return func() error { return c.Exec(ctx, "shop", sql) }
	}
	for _, damage := range []struct {
		claim string
		do    func() error
	}{
		{"acknowledged rows, each once", exec(st.Old, "DELETE FROM ledger WHERE (worker, n) = (SELECT worker, n FROM ledger LIMIT 1)")},
		{"errors seen by clients", func() error {
			u.acknowledged["shop"].failures = []lab.Failure{{SQLState: "40001", Says: "could not serialize", Count: 1}}
			return nil
		}},
		{"longest wait for a commit", func() error { u.acknowledged["shop"].worst.Length = time.Hour; return nil }},
		{"reads of the standbys", func() error { u.acknowledged["shop"].replica = lab.ReadReport{Queries: 7, Back: 1}; return nil }},
		{"pgbench's sums and rows", exec(st.Old, "DELETE FROM pgbench_history WHERE ctid = (SELECT min(ctid) FROM pgbench_history)")},
		{"rows equal on both sides", nil}, // by what was deleted
		{"sequences go on", exec(st.New, "SELECT nextval('tickets_id_seq')")},
		{"schema, roles and settings", exec(st.Old, "ALTER TABLE tickets ALTER COLUMN sold DROP NOT NULL")},
		{"standbys stream", func() error { return st.Standbys[sideOld][0].Cluster.Stop(ctx, lab.Fast) }},
		{"the other side refuses writes", exec(st.New, "DROP TRIGGER closed ON ledger")},
		{"clients are led to it", func() error { st.clients["shop"] = st.New.Conninfo("shop"); return nil }},
	} {
		if damage.do != nil {
			if err := damage.do(); err != nil {
				t.Fatal(err)
			}
		}
		if after, says := look(500 * time.Millisecond); after[damage.claim] {
			t.Errorf("the damage to %q was not seen:\n%s", damage.claim, says)
		}
	}
	if says, err := st.left(ctx, sideOld, "nothing"); err != nil {
		t.Errorf("left: %s, %v", says, err)
	}
	if err := st.New.Exec(ctx, "shop", "CREATE PUBLICATION cb_x_shop_main"); err != nil {
		t.Fatal(err)
	}
	if _, err := st.left(ctx, sideOld, "nothing"); err == nil || !strings.Contains(err.Error(), "cb_x_shop_main") {
		t.Errorf("a publication that was left was not seen: %v", err)
	}
}

// mirror fills new with all that old has, and closes it.
func mirror(t *testing.T, st *Stage) {
	t.Helper()
	ctx := t.Context()
	text, err := st.Lab.Run(ctx, filepath.Join(st.New.Bin, "pg_dumpall"), "-d", st.Old.Conninfo(""))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.New.Psql(ctx, "", strings.Replace(text, "CREATE ROLE postgres;", "", 1)); err != nil {
		t.Fatal(err)
	}
	err = st.New.Exec(ctx, "shop",
		"CREATE FUNCTION closed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'closed' USING ERRCODE = '25006'; END $$",
		"CREATE TRIGGER closed BEFORE INSERT ON ledger FOR EACH STATEMENT EXECUTE FUNCTION closed()")
	if err != nil {
		t.Fatal(err)
	}
}

func TestSQLState(t *testing.T) {
	if s := sqlState(errors.New("no server's word")); s != "" {
		t.Error(s)
	}
}

// What status tells and the servers do not, and the reverse, is seen.
func TestAgree(t *testing.T) {
	text := func(s string) *string { return &s }
	row := func(state, sent string) listedReceiver {
		return listedReceiver{State: text(state), SyncState: text("async"), SyncPriority: new(int), Sent: text(sent)}
	}
	one := func(state, sent string) map[string]listedReceiver {
		return map[string]listedReceiver{"old/primary to metal": row(state, sent)}
	}
	for _, c := range []struct {
		name                  string
		listed, before, after map[string]listedReceiver
		agrees                bool
	}{
		{"the same", one("streaming", "1/10"), one("streaming", "0/FFFFFFFF"), one("streaming", "1/10"), true},
		{"another state", one("catchup", "1/10"), one("streaming", "1/10"), one("streaming", "1/10"), false},
		{"ahead", one("streaming", "1/11"), one("streaming", "1/10"), one("streaming", "1/10"), false},
		{"behind", one("streaming", "0/FFFFFFFF"), one("streaming", "1/0"), one("streaming", "1/10"), false},
		{"not there", one("streaming", "1/10"), nil, nil, false},
		{"not listed", nil, one("streaming", "1/10"), one("streaming", "1/10"), false},
	} {
		if err := agree(c.listed, c.before, c.after); (err == nil) != c.agrees {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
