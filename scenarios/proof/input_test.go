package proof

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// badRunbook has one mistake of every kind that can be seen without a server,
// and a password. None of these servers answers.
const badRunbook = `upgrade: up
nonsense: 1
old: {primary: "host=127.0.0.1 port=1 user=x dbname=postgres password=hunter2"}
new:
  - cluster: fresh
    primary: "host=127.0.0.1 port=2 user=x dbname=postgres"
    standbys:
      - {name: lone, conninfo: host=lone, host: "local:", data: /nowhere/lone, upstream: missing}
      - {name: one, conninfo: host=one, host: "local:", data: /nowhere/one, upstream: two}
      - {name: two, conninfo: host=two, host: "local:", data: /nowhere/two, upstream: one}
databases:
  - name: shop
    sets:
      - {name: first, tables: [public.orders]}
      - {name: second, tables: [public.orders, public.lines]}
copy: {jobs: many}
cutover:
  window: {zone: Mars/Olympus, from: "04:00", to: "02:00"}
  max_blocked: 5 parsecs
`

// TestBadRunbook: all mistakes at once, each with file, line and column, exit 2
// of every command that reads a runbook, and nothing is touched. A password is
// a warning that names the better way.
func TestBadRunbook(t *testing.T) {
	w := &world{t: t, dir: t.TempDir(), exe: binary(t, "")}
	if err := os.WriteFile(w.book(), []byte(badRunbook), 0o600); err != nil {
		t.Fatal(err)
	}
	mistakes := []string{
		"2:1: nonsense: unknown key", `8:90: upstream: "missing" does not exist`, "9:87: upstream: \"one\" follows \"two\", which follows \"one\": a circle",
		"15:33: tables: public.orders in set second: public.orders is in set first already", `16:14: jobs: "many" is no whole number`,
		`18:18: zone: "Mars/Olympus" is no time zone`, "18:51: to: the window ends before it starts", `19:16: max_blocked: "5 parsecs" is no duration`,
	}
	for _, args := range [][]string{
		{"check"}, {"plan"}, {"prepare"}, {"status"}, {"verify"}, {"cutover", "--yes"}, {"rollback", "--yes"}, {"finish", "--yes"}, {"abort", "--yes"},
	} {
		r := w.errs(2, args...)
		for _, m := range mistakes {
			if !strings.Contains(r.stderr, "crossfade.yaml:"+m) {
				t.Errorf("%v does not say %q\n%s", args, m, r.stderr)
			}
		}
		if n := strings.Count(r.stderr, "crossfade.yaml:"); n != len(mistakes)+1 {
			t.Errorf("%v says %d things, wanted %d and the warning\n%s", args, n, len(mistakes), r.stderr)
		}
		if !strings.Contains(r.stderr, "crossfade.yaml:3:16: warning: primary: holds a password") || !strings.Contains(r.stderr, "pgpass") || strings.Contains(r.stderr, "hunter2") {
			t.Errorf("%v: the warning of a password\n%s", args, r.stderr)
		}
	}
	if files, err := filepath.Glob(filepath.Join(w.dir, "*")); err != nil || len(files) != 1 {
		t.Errorf("beside the runbook there is %v (%v)", files, err)
	}
}

// TestBadServers: a server that does not answer, is a standby, is of the wrong
// major, is the other side's, or is not empty is a finding that names it; sets
// that do not fit what is there are mistakes of the runbook. Nothing is touched.
func TestBadServers(t *testing.T) {
	var metal *lab.Cluster
	w := newWorld(t, setting{wire: func(w *world, _ *setting) { metal = w.Lab.Standby(w.old, "metal", lab.StandbyOptions{}) }})
	good, err := os.ReadFile(w.book())
	w.Must(err)
	oldIs, newIs := fmt.Sprintf("primary: %q", w.old.Conninfo("postgres")), fmt.Sprintf("primary: %q", w.new.Conninfo("postgres"))
	is := func(conninfo string) string { return fmt.Sprintf("primary: %q", conninfo) }
	before := [2]string{w.footprint(w.old), w.footprint(w.new)}
	silent := w.Proxy(w.new)
	silent.Cut()
	for _, one := range []struct {
		what, from, to string
		id, on, object string
	}{
		{"new refuses connections", newIs, is("host=127.0.0.1 port=1 user=postgres dbname=postgres"), "server-unreachable", "new", "new (127.0.0.1 port 1)"},
		{"new says nothing at all", newIs, is(w.new.Conninfo("postgres", silent.Words())), "server-unreachable", "new", fmt.Sprintf("new (127.0.0.1 port %d)", silent.Port)},
		{"old refuses connections", oldIs, is("host=127.0.0.1 port=1 user=postgres dbname=postgres"), "server-unreachable", "old", "old (127.0.0.1 port 1)"},
		{"old is a standby", oldIs, is(metal.Conninfo("postgres")), "server-is-standby", "old", fmt.Sprintf("old (127.0.0.1 port %d)", metal.Port)},
		{"new is a standby of old", newIs, is(metal.Conninfo("postgres")), "server-is-standby", "new", fmt.Sprintf("new (127.0.0.1 port %d)", metal.Port)},
		{"new is of old's cluster", newIs, is(metal.Conninfo("postgres")), "same-server", "new", fmt.Sprintf("new (127.0.0.1 port %d)", metal.Port)},
		{"new is old", newIs, is(w.old.Conninfo("postgres")), "same-server", "new", fmt.Sprintf("new (127.0.0.1 port %d)", w.old.Port)},
		{"old is of a major that is too late", oldIs, is(w.new.Conninfo("postgres")), "server-version", "old", w.Value(w.new, "", "SELECT split_part(current_setting('server_version'), ' ', 1)")},
	} {
		w.Must(os.WriteFile(w.book(), good, 0o600))
		w.runbookLine(one.from, one.to)
		commands := []string{"check", "prepare"}
		if strings.Contains(one.to, silent.Words()) {
			commands = []string{"prepare"} // each waits for connect_timeout
		}
		w.finds(one.what, one.id, one.on, one.object, commands...)
	}

	// New is a 15 of its own.
	w.Must(os.WriteFile(w.book(), good, 0o600))
	other := w.Primary("other", 15)
	w.runbookLine(newIs, is(other.Conninfo("postgres")))
	w.finds("new is no later major", "server-version", "new", w.Value(other, "", "SELECT split_part(current_setting('server_version'), ' ', 1)"), "check", "plan", "prepare")

	w.Must(os.WriteFile(w.book(), good, 0o600))
	w.Exec(w.new, "", "CREATE DATABASE shop")
	w.Exec(w.new, "shop", "CREATE TABLE mine (k int)")
	w.finds("new is not empty", "new-not-empty", "new", "shop", "check", "prepare")
	w.Exec(w.new, "", "DROP DATABASE shop")

	w.runbookLine("tables: [public.orders, public.lines]}", "tables: [\"public.l*\", public.orders]}\n      - {name: twice, tables: [\"*.lines\"]}\n      - {name: nothing, tables: [\"audit.*\"]}")
	w.misfits("public.lines", "twice", "audit.*", "nothing")
	w.Must(os.WriteFile(w.book(), good, 0o600))
	w.do(0, "check")
	for i, c := range []*lab.Cluster{w.old, w.new} {
		if d := diff(before[i], w.footprint(c)); d != "" {
			t.Errorf("%s is not as it was:\n%s", c.Name, d)
		}
	}
	if _, err := os.Stat(filepath.Join(w.dir, "up.journal")); err == nil {
		t.Error("there is a journal")
	}
}

// finds wants commands to end with 3 and a finding that names the server or the
// object.
func (w *world) finds(what, id, on, object string, commands ...string) {
	w.t.Helper()
	for _, command := range commands {
		began := time.Now()
		r := w.errs(3, command)
		found := slices.ContainsFunc(w.has(r, "finding"), func(f map[string]any) bool {
			return f["level"] == "block" && f["id"] == id && f["on"] == on && (object == "" || f["object"] == object) && f["says"] != ""
		})
		if !found {
			w.t.Errorf("%s: %s has no finding %s on %s of %q\n%s", what, command, id, on, object, r)
		}
		if spent := time.Since(began); spent > time.Minute {
			w.t.Errorf("%s: %s took %s", what, command, spent)
		}
	}
}

// misfits wants a runbook whose sets do not fit the tables to be exit 2 with
// places.
func (w *world) misfits(names ...string) {
	w.t.Helper()
	for _, command := range []string{"check", "plan", "prepare"} {
		r := w.errs(2, command)
		for _, name := range names {
			if !strings.Contains(r.stderr, name) {
				w.t.Errorf("%s does not name %s\n%s", command, name, r.stderr)
			}
		}
		if strings.Count(r.stderr, "crossfade.yaml:") < 2 {
			w.t.Errorf("%s does not name both places\n%s", command, r.stderr)
		}
	}
}
