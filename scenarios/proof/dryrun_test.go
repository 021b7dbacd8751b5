package proof

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
	"crossfade/scenarios/lab/labtest"
)

// TestPlanTouchesNothing: after every form of the dry run both servers, their
// files and the runbook's folder are as they were: what they count, what they
// hold, what they are set to. A look that misses a change is none. Then the
// upgrade is gone through, and the forecasts stand beside what came of them.
func TestPlanTouchesNothing(t *testing.T) {
	quiet := map[string]string{"autovacuum": "off"} // whose own writing would be counted
	w := newWorld(t, setting{
		sql: planTables, pooled: true, standby: true, oldSet: quiet, newSet: quiet, extra: "accept: [\"standby-missing:power\"]\n",
		dbs: "  - name: shop\n    identity: {public.bare: full}\n    sets:\n      - {name: orders, tables: [public.orders, public.lines]}\n      - {name: rest, tables: [\"*\"]}\n  - {name: side}\n",
		wire: func(w *world, s *setting) {
			s.newLines += w.standbyLines("rock", w.new.Bin)
		},
	})
	metal := w.standbyOf(w.old, "metal")
	power := w.Lab.Standby(metal, "power", lab.StandbyOptions{ApplicationName: "rock"})
	w.runbookLine("new:\n", fmt.Sprintf("  standbys:\n    - {name: metal, conninfo: %q}\n    - {name: power, conninfo: %q}\nnew:\n", metal.Conninfo(""), power.Conninfo("")))
	out := t.TempDir()
	w.do(0, "check") // the first connections make files of their own
	before := w.everything()
	for _, args := range [][]string{
		{"plan", "--json", "--sample", "2s"},
		{"plan", "--html", filepath.Join(out, "plan.html"), "--md", filepath.Join(out, "plan.md")},
	} {
		w.do(0, args...)
		after := w.everything()
		for _, s := range changed(before, after) {
			t.Errorf("crossfade %s: %s", strings.Join(args, " "), s)
		}
	}
	w.Exec(w.old, "shop", "INSERT INTO orders (what) VALUES ('one more')")
	if got := strings.Join(changed(before, w.everything()), "\n"); !strings.Contains(got, "old counts shop") || !strings.Contains(got, "old dump") {
		t.Errorf("one row more was not noticed: %s", got)
	}
	w.lookAt(filepath.Join(out, "plan.html"), filepath.Join(out, "plan.md"))
	w.forecastBeside()
}

// standbyOf finds a standby of a cluster.
func (w *world) standbyOf(c *lab.Cluster, name string) *lab.Cluster {
	w.t.Helper()
	i := slices.IndexFunc(w.Clusters(), func(s *lab.Cluster) bool { return s.Name == name && s.Major == c.Major })
	if i < 0 {
		w.t.Fatalf("%s has no standby %s", c.Name, name)
	}
	return w.Clusters()[i]
}

// everything is what could change on both servers and around the runbook, each
// thing with a text that says how it stands.
func (w *world) everything() map[string]string {
	w.t.Helper()
	all := map[string]string{}
	for side, c := range map[string]*lab.Cluster{"old": w.old, "new": w.new} {
		read := func(what, sql string) {
			rows, err := c.Query(w.t.Context(), "", sql)
			w.Must(err)
			for _, r := range rows {
				all[side+" "+what+" "+r[0]] = strings.Join(r[1:], " ")
			}
		}
		// What a session has counted is there when it has ended.
		w.Until(c, "", "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name LIKE 'crossfade%' OR application_name LIKE 'pg\\_%'")
		read("counts", "SELECT datname, tup_inserted, tup_updated, tup_deleted, temp_files, temp_bytes FROM pg_stat_database WHERE datname IS NOT NULL")
		read("setting", "SELECT name, setting, source FROM pg_settings WHERE source NOT IN ('client', 'session')")
		read("file setting", "SELECT sourcefile || sourceline, name, setting FROM pg_file_settings")
		read("slot", "SELECT slot_name, slot_type FROM pg_replication_slots")
		read("subscription", "SELECT subname, subenabled FROM pg_subscription")
		read("origin", "SELECT roname FROM pg_replication_origin")
		read("database", "SELECT datname, oid FROM pg_database")
		read("file", `SELECT d.datname || '/' || f.name, f.size FROM pg_database d, pg_ls_dir('base/' || d.oid) n(name), LATERAL (SELECT n.name, (pg_stat_file('base/' || d.oid || '/' || n.name)).size) f
			WHERE d.datname <> 'postgres' AND f.name NOT LIKE 'pg\_internal%'`)
		text, err := w.Run(w.t.Context(), filepath.Join(w.new.Bin, "pg_dumpall"), "-d", c.Conninfo(""))
		w.Must(err)
		text = regexp.MustCompile(`(?m)^\\(un)?restrict .*$`).ReplaceAllString(text, "")
		all[side+" dump"] = fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
	}
	w.Must(filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all["local "+path] = fmt.Sprintf("%x", sha256.Sum256(b))
		return err
	}))
	return all
}

// changed is what differs between two looks.
func changed(before, after map[string]string) []string {
	var says []string
	for _, key := range slices.Sorted(maps.Keys(after)) {
		if was, ok := before[key]; !ok {
			says = append(says, key+" is new: "+after[key])
		} else if was != after[key] {
			says = append(says, fmt.Sprintf("%s was %s and is %s", key, was, after[key]))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(before)) {
		if _, ok := after[key]; !ok {
			says = append(says, key+" is gone")
		}
	}
	return says
}

// lookAt looks at what plan wrote: in a browser, and for what a reader needs.
func (w *world) lookAt(html, md string) {
	t := w.t
	t.Helper()
	page, err := os.ReadFile(html)
	w.Must(err)
	for _, s := range labtest.Page(t, labtest.Browser(t), string(page), 400, 1280) {
		t.Error(s)
	}
	text, err := os.ReadFile(md)
	w.Must(err)
	w.wantTree(string(text))
	for name, got := range map[string]string{"the page": string(page), "the Markdown": string(text)} {
		for _, want := range []string{"CREATE PUBLICATION", "replica-identity-full", "metal", "point of no return", "copy shop", "max_blocked", "PgBouncer at", "calls itself rock", "to be built"} {
			if !strings.Contains(strings.ReplaceAll(got, `\`, ""), want) {
				t.Errorf("%s does not say %q", name, want)
			}
		}
	}
}

// wantTree wants the standbys where they are: power following metal, rock to be
// built to follow new.
func (w *world) wantTree(md string) {
	w.t.Helper()
	for _, want := range []string{`(?s)- \*\*old\*\*, primary.*\n  - \*\*metal\*\*.*\n    - \*\*power\*\*`, `(?s)- \*\*fresh\*\*, primary.*\n  - \*\*rock\*\*`} {
		if !regexp.MustCompile(want).MatchString(md) {
			w.t.Errorf("the tree is not %s", want)
		}
	}
}

// forecastBeside goes through the upgrade: what is expected of a step is in the
// journal and in the cutover's result, and plan shows it beside what it took.
func (w *world) forecastBeside() {
	t := w.t
	t.Helper()
	w.do(0, "prepare")
	r := w.do(0, "cutover", "--yes", "--json")
	expected := 0
	for _, s := range r.lines("cutover")[0]["steps"].([]any) {
		if f, ok := s.(map[string]any)["forecast_seconds"].(float64); ok && f > 0 {
			expected++
		}
	}
	if expected < 15 {
		t.Errorf("only %d steps of the cutover have a forecast\n%s", expected, r)
	}
	book, err := os.ReadFile(filepath.Join(w.dir, "up.journal"))
	w.Must(err)
	journalled := map[string]float64{}
	for line := range strings.Lines(string(book)) {
		var rec struct {
			Plan, Step, Kind string
			Forecast         float64 `json:"forecast_seconds"`
		}
		w.Must(json.Unmarshal([]byte(line), &rec))
		if rec.Kind == "begin" && rec.Forecast > 0 {
			journalled[rec.Plan+" "+rec.Step] = rec.Forecast
		}
	}
	r = w.do(0, "plan", "--json")
	beside := 0
	for _, s := range r.lines("step") {
		actual, ran := s["actual_seconds"].(float64)
		want, ok := journalled[fmt.Sprint(s["plan"], " ", s["id"])]
		if !ran || !ok {
			continue
		}
		beside++
		if actual <= 0 || s["forecast_seconds"] != want {
			t.Errorf("%s %s: forecast %v, took %v; the journal has %g", s["plan"], s["id"], s["forecast_seconds"], actual, want)
		}
	}
	if beside < 20 {
		t.Errorf("only %d steps have a forecast beside what they took: %v", beside, journalled)
	}
	for _, f := range w.has(r, "forecast", "at", "id", "object", "title", "value", "unit", "never", "exceeds", "formula", "terms", "says", "actual") {
		if id := f["id"]; (id == "outage" || id == "copy") && f["actual"] == nil {
			t.Errorf("%s has no actual beside it: %v", id, f)
		}
	}
}

// TestPlanScales: what is asked of the servers does not grow with the number of
// tables, and the plan's text hardly does.
func TestPlanScales(t *testing.T) {
	few, many, schemas, roles := 20, 1000, 10, 50
	if all() {
		many, schemas, roles = 10_000, 100, 500
	}
	told := map[string]string{"log_statement": "all", "log_destination": "stderr,jsonlog"}
	w := newWorld(t, setting{oldSet: told, newSet: told, dbs: "  - {name: few}\n"})
	w.Exec(w.old, "", "CREATE DATABASE few", "CREATE DATABASE many", fmt.Sprintf("DO $$ BEGIN FOR i IN 1..%d LOOP EXECUTE format('CREATE ROLE r%%s LOGIN', i); END LOOP; END $$", roles))
	w.tables("few", 1, few)
	w.tables("many", schemas, many/schemas)
	w.do(0, "plan")
	measure := func(args ...string) (statements int, kept int64, took time.Duration, out string) {
		began, from := time.Now(), map[*lab.Cluster]int64{w.old: w.logged(w.old), w.new: w.logged(w.new)}
		r := w.do(0, args...)
		return w.asked(from), r.maxRSS >> 10, time.Since(began), r.stdout
	}
	n, _, _, fewText := measure("plan")
	w.runbookLine("{name: few}", "{name: many}")
	for _, form := range [][]string{{"check"}, {"plan"}, {"plan", "--json"}, {"plan", "--html", filepath.Join(t.TempDir(), "plan.html")}} {
		m, mb, took, text := measure(form...)
		t.Logf("%s with %d tables, %d sequences, %d roles: %d statements, %d MB, %.1f s (%d statements with %d tables)",
			strings.Join(form[:min(len(form), 2)], " "), many, many, roles, m, mb, took.Seconds(), n, few)
		// pg_dump asks in batches; nothing goes by tables, or by schemas.
		if more := m - n; more > few {
			t.Errorf("%s: %d statements with %d tables, %d with %d", form, m, many, n, few)
		}
		if mb > 150 {
			t.Errorf("%s: %d MB", form, mb)
		}
		if slices.Equal(form, []string{"plan"}) && strings.Count(text, "\n") > strings.Count(fewText, "\n")+60 {
			t.Errorf("the plan of %d tables has %d lines, that of %d has %d", many, strings.Count(text, "\n"), few, strings.Count(fewText, "\n"))
		}
	}
}

// tables makes tables with a sequence each, in schemas.
func (w *world) tables(database string, schemas, each int) {
	w.t.Helper()
	work := make(chan int, schemas)
	for s := range schemas {
		work <- s
	}
	close(work)
	errs := make(chan error, 4)
	for range cap(errs) {
		go func() {
			var err error
			for s := range work {
				if err == nil {
					err = w.old.Exec(w.t.Context(), database, fmt.Sprintf(`CREATE SCHEMA s%[1]d; DO $$ BEGIN FOR i IN 1..%[2]d LOOP
						EXECUTE format('CREATE TABLE s%[1]d.t%%s (id bigserial PRIMARY KEY, what int, at timestamptz DEFAULT now())', i); END LOOP; END $$`, s, each))
				}
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		w.Must(<-errs)
	}
}

// asked is how many statements the tool and its programs have sent since.
func (w *world) asked(from map[*lab.Cluster]int64) int {
	w.t.Helper()
	n := 0
	for c, at := range from {
		n += len(w.since(c, at))
	}
	return n
}

// TestPlanNoGo: what blocks the upgrade makes the page a no-go that says why and
// has the statement that fixes it; a forecast that is beyond the runbook too,
// unless the runbook accepts it.
func TestPlanNoGo(t *testing.T) {
	w := newWorld(t, setting{
		sql: shopTables + "CREATE TABLE bare (a int); CREATE TABLE \"Bad \"\"Name\"\"\" (a int NOT NULL UNIQUE, b text); CREATE UNLOGGED TABLE cache (id int PRIMARY KEY); SELECT lo_create(0);",
	})
	path := filepath.Join(t.TempDir(), "plan.html")
	page := func(exit int) string {
		w.do(exit, "plan", "--html", path)
		b, err := os.ReadFile(path)
		w.Must(err)
		return string(b)
	}
	text := page(3)
	for _, want := range []string{">NO-GO<", "blocking findings block the upgrade", "ALTER TABLE", "Bad &#34;&#34;Name", "large-objects", `<span class="chip">blocks</span>`} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %s", want)
		}
	}
	for _, s := range labtest.Page(t, labtest.Browser(t), text, 400) {
		t.Error(s)
	}
	w.Exec(w.old, "shop", `DROP TABLE bare, "Bad ""Name""", cache`, "SELECT lo_unlink(oid) FROM pg_largeobject_metadata")
	w.runbookLine("patience: 60s", "max_blocked: 2ms\n  lock_timeout: 1ms")
	if text := page(0); !strings.Contains(text, ">NO-GO<") || !strings.Contains(text, "outage: more than cutover.max_blocked") {
		t.Error("an outage beyond max_blocked is no no-go")
	}
	w.runbookLine("catchup:", "accept: [\"forecast-exceeds:outage\"]\ncatchup:")
	if text := page(0); !strings.Contains(text, ">GO<") {
		t.Error("a forecast that the runbook answers for is no go")
	}
}
