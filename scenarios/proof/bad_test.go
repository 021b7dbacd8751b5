package proof

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios"
	"crossfade/scenarios/lab"
	"crossfade/upgrade/check"

	"github.com/jackc/pgx/v5"
)

// silent are the checks that one pair of clusters of 15 and 18 in this lab
// cannot make fire beside all others. All but clock-skew, compression-missing,
// manager-sync, name-too-long and those that depend on the machine fire on real
// servers in the tests of upgrade/check or in those of this package that are named.
var silent = map[string]string{
	"server-unreachable":         "nothing else would be seen",
	"server-is-standby":          "nothing else would be seen",
	"server-through-pooler":      "nothing else would be seen",
	"same-server":                "nothing else would be seen",
	"server-version":             "nothing else would be seen",
	"privileges":                 "the tool is a superuser, so that everything else is seen",
	"row-security":               "the tool is a superuser",
	"password-logged":            "the tool is a superuser",
	"function-rights":            "no table here calls a function of an ordinary role; TestFunctionRights",
	"owner-login":                "no table here calls a function of an ordinary role",
	"owner-schema":               "no table here calls a function of an ordinary role",
	"database-missing":           "a mistake of the runbook, which is said before anything is asked",
	"name-too-long":              "the runbook takes no name that is too long",
	"attribute-version":          "needs an old of a minor that stores pg_attver",
	"client-programs":            "pg_dump is new's own",
	"known-bad-minor":            "depends on the minors that are installed",
	"clock-skew":                 "one machine has one clock",
	"old-disk":                   "depends on the machine",
	"new-disk":                   "the runbook gives no host of new, so that disk-unknown is seen",
	"many-sets":                  "depends on the machine",
	"listen-addresses":           "the lab listens on its own machine alone",
	"clients-direct":             "there is no pooler on another machine",
	"event-triggers-off":         "the setting is 17's",
	"synchronized-standby-slots": "the setting is 17's",
	"standby-other-cluster":      "needs a third cluster",
	"identity-lost":              "needs an upgrade that has begun",
	"archive-off":                "both archive, to the same place",
	"compression-missing":        "every build at hand has lz4",
	"removed-types":              "went with 12 to 14; TestOldest",
	"table-oids":                 "went with 12; TestOldest",
	"slot-copy":                  "came with 12",
	"not-immutable":              "went with 15",
	"long-transactions":          "takes a minute",
	"standby-taken":              "needs a runbook with build: after; TestBuildAfter",
	"standby-taken-place":        "needs a runbook with build: after; TestBuildAfterRefuses",
	"identity-generated":         "no table here has a generated column in its replica identity; TestLinkFindings",
	"owner-rights":               "every owner here has its rights; TestLinkFindings",
	"transaction-ids":            "needs an old that has counted beyond an epoch; TestLinkFindings",
	"manager-sync":               "needs the synchronous_mode of a Patroni",
	"manager-database":           "needs repmgr's own database in the runbook; TestRepmgrOfADraft",
}

// found is a finding as --json prints it.
type found struct {
	Type, ID, Level, On, Database, Object, Says, Fix string
	Objects                                          []string
	Table                                            *struct {
		Columns []string
		Rows    [][]string
	}
}

func (f found) key() string { return strings.Join([]string{f.ID, f.On, f.Database, f.Object}, " ") }

// each is a finding for each of its objects.
func (f found) each() []found {
	if len(f.Objects) < 2 {
		return []found{f}
	}
	var all []found
	for i, o := range f.Objects {
		one := f
		one.Object, one.Objects = o, nil
		if f.Table != nil && f.Table.Columns[0] == "database" {
			one.Database = f.Table.Rows[i][0]
		}
		all = append(all, one)
	}
	return all
}

// stageCheck runs crossfade check on a stage.
func stageCheck(t *testing.T, st *scenarios.Stage, exe string, exit int) []found {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), exe, "check", "--json", "-f", st.Runbook)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	code := 0
	if e := (*exec.ExitError)(nil); errors.As(err, &e) {
		code = e.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if code != exit {
		t.Fatalf("exit %d, wanted %d\n%s%s", code, exit, out, errs.String())
	}
	var all []found
	for line := range bytes.Lines(out) {
		var f found
		if err := json.Unmarshal(line, &f); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if f.Type == "finding" {
			all = append(all, f)
		}
	}
	return all
}

// TestBad looks at the scenario that is as bad as possible: every check that can
// fire there does, and what the findings print makes go away what a statement or
// a restart can mend.
func TestBad(t *testing.T) {
	s, err := scenarios.Read("bad")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "crossfade-bad-") // the servers' user must get in
	must(t, err)
	st, err := scenarios.Boot(t.Context(), s, dir, false, func(what, says string) { t.Logf("%s: %s", what, says) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := st.Down(ctx); err != nil {
			t.Error(err)
		}
	})
	exe := binary(t, "")
	guests := visit(t, st)
	certify(t, st.Old)
	must(t, st.Old.Exec(t.Context(), "", "ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()"))
	must(t, st.Old.Until(t.Context(), "", "SELECT current_setting('ssl') = 'on'"))

	all := stageCheck(t, st, exe, 3)
	fired := map[string]bool{}
	for _, f := range all {
		fired[f.ID] = true
	}
	for _, c := range check.Checks() {
		why, exempt := silent[c.ID]
		switch {
		case fired[c.ID] && exempt && !strings.HasPrefix(why, "depends"):
			t.Errorf("%s fires, and is said not to (%s)", c.ID, why)
		case !fired[c.ID] && !exempt:
			t.Errorf("%s does not fire", c.ID)
		}
	}
	for _, g := range guests {
		if err := g.Close(t.Context()); err != nil {
			t.Log(err) // some of them are ended by a fix
		}
	}
	if t.Failed() {
		return
	}
	mended := mend(t, st, all)
	left := map[string]found{}
	for _, f := range stageCheck(t, st, exe, 3) {
		for _, one := range f.each() {
			left[one.key()] = one
		}
	}
	for _, f := range mended {
		// One that weighs less now is fixed: an index that apply can use, say.
		for _, one := range f.each() {
			if l, there := left[one.key()]; there && l.Level == f.Level {
				t.Errorf("%s %s\nis still there after\n%s\n%s", l.Level, one.key(), f.Fix, l.Says)
			}
		}
	}
	t.Logf("%d findings of %d checks; %d of them had a statement that mends them; %d are left", len(all), len(fired), len(mended), len(left))
}

// visit opens sessions that do what findings are about, and waits until the
// oldest of them is old enough.
func visit(t *testing.T, st *scenarios.Stage) []*pgx.Conn {
	t.Helper()
	connect := func(db string, extra ...string) *pgx.Conn {
		conn, err := pgx.Connect(t.Context(), st.Old.Conninfo(db, extra...))
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	guest := connect("shop", "application_name=guest")
	for _, sql := range []string{
		"CREATE TEMP TABLE mine (a int)", "SELECT pg_advisory_lock(7)", "BEGIN", "LOCK TABLE candidate IN SHARE UPDATE EXCLUSIVE MODE",
	} {
		if _, err := guest.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	app := connect("closed", "user=app")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := st.Old.Until(ctx, "", "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'guest' AND xact_start < clock_timestamp() - interval '10 seconds')"); err != nil {
		t.Fatal(err)
	}
	return []*pgx.Conn{guest, app}
}

// certify gives a server what it needs to offer TLS.
func certify(t *testing.T, c *lab.Cluster) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "wacken"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, about, about, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"server.crt": {Type: "CERTIFICATE", Bytes: cert}, "server.key": {Type: "EC PRIVATE KEY", Bytes: secret}} {
		text := strings.TrimSpace(string(pem.EncodeToMemory(block)))
		must(t, c.Exec(t.Context(), "", fmt.Sprintf("COPY (SELECT unnest(string_to_array('%s', E'\\n'))) TO PROGRAM 'umask 077; cat > %s'", text, name)))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var (
	restarts    = regexp.MustCompile(`^restart the (old|new) server`)
	onStandbys  = regexp.MustCompile(`^set (\w+) = (\d+) on its \d+ standbys first and restart each`)
	otherwhere  = regexp.MustCompile(`^(ALTER|DROP) DATABASE`)
	mendTimeout = "SET lock_timeout = '20s'; SET statement_timeout = '60s'"
)

// mend does what the findings say, as far as it is SQL or a restart, and
// returns the findings that it did something for.
func mend(t *testing.T, st *scenarios.Stage, all []found) (mended []found) {
	t.Helper()
	ctx := t.Context()
	servers := map[string]*lab.Cluster{"old": st.Old, "new": st.New}
	for _, n := range st.Standbys["old"] {
		servers[n.Name] = n.Cluster
	}
	byHand(t, st)
	bounce := map[string]bool{}
	raised := map[string]string{} // on standbys
	for _, f := range all {
		did, in := false, f.Database
		for line := range strings.Lines(f.Fix) {
			line = strings.TrimSpace(line)
			if to, ok := strings.CutPrefix(line, `\connect "`); ok {
				in = strings.TrimSuffix(to, `"`)
			}
			if m := restarts.FindStringSubmatch(line); m != nil {
				bounce[m[1]] = true
			}
			if m := onStandbys.FindStringSubmatch(line); m != nil {
				raised[m[1]] = m[2]
			}
			if !strings.HasSuffix(line, ";") {
				continue
			}
			db := in
			if db == "" || otherwhere.MatchString(line) || !enters(ctx, servers[f.On], db) {
				db = "postgres"
			}
			did = true
			if strings.Contains(line, " CONCURRENTLY ") { // not in one message with anything else
				must(t, servers[f.On].Exec(ctx, db, line))
			} else if err := servers[f.On].Exec(ctx, db, mendTimeout, line); err != nil && f.ID != "locks-held" {
				t.Errorf("%s: %v", f.key(), err)
			}
		}
		if did {
			mended = append(mended, f)
		}
	}
	for _, n := range st.Standbys["old"] { // upstream first
		for _, name := range slices.Sorted(maps.Keys(raised)) {
			must(t, n.Cluster.Exec(ctx, "", fmt.Sprintf("ALTER SYSTEM SET %s = %s", name, raised[name])))
		}
		must(t, n.Cluster.Restart(ctx))
	}
	for side := range bounce {
		must(t, servers[side].Restart(ctx))
	}
	for _, n := range st.Standbys["old"] {
		limit, cancel := context.WithTimeout(ctx, 30*time.Second)
		err := n.Cluster.Until(limit, "", "SELECT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')")
		cancel()
		must(t, err)
	}
	return mended
}

// enters says whether a database is there and lets somebody in.
func enters(ctx context.Context, c *lab.Cluster, db string) bool {
	conn, err := c.Connect(ctx, db)
	if err != nil {
		return false
	}
	return conn.Close(ctx) == nil
}

// byHand does what findings ask of a person before their statements work.
func byHand(t *testing.T, st *scenarios.Stage) {
	t.Helper()
	certify(t, st.New)
	must(t, st.Old.Exec(t.Context(), "shop", "ROLLBACK PREPARED 'forgotten'"))
	for _, edit := range []struct{ name, from, to string }{
		{"postgresql.conf", "(?m)^nonsense.*\n", ""}, {"pg_hba.conf", "(?m)^bogus.*\n", ""}, {"pg_hba.conf", "(?m)^host all (app|etl) all reject\n", ""}, {"postgresql.conf", "(?m)^allow_alter_system.*\n", ""},
	} {
		path := filepath.Join(st.New.DataDir, edit.name)
		b, err := os.ReadFile(path)
		must(t, err)
		changed := regexp.MustCompile(edit.from).ReplaceAll(b, []byte(edit.to))
		if bytes.Equal(changed, b) {
			t.Fatalf("%s has no %s", path, edit.from)
		}
		must(t, os.WriteFile(path, changed, 0o600))
	}
	must(t, st.New.Exec(t.Context(), "", "SELECT pg_reload_conf()"))
	must(t, st.New.Until(t.Context(), "", "SELECT current_setting('allow_alter_system') = 'on'"))
}
