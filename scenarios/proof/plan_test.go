package proof

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"crossfade/scenarios/lab"
)

// planTables has what gives a step of every kind something to do: a trigger
// that fires on apply, a table without identity, sequences, partitions.
const planTables = shopTables + `
CREATE TABLE audit (at timestamptz DEFAULT clock_timestamp(), what text, n bigserial PRIMARY KEY);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $f$BEGIN INSERT INTO public.audit (what) VALUES (TG_OP); RETURN NULL; END$f$;
CREATE TRIGGER note AFTER INSERT ON lines FOR EACH STATEMENT EXECUTE FUNCTION note();
ALTER TABLE lines ENABLE ALWAYS TRIGGER note;
CREATE TABLE bare (line text);
COMMENT ON TABLE bare IS 'it''s; a $comment$ with "everything"';
CREATE MATERIALIZED VIEW sums AS SELECT orders_id, count(*) AS n FROM lines GROUP BY 1;
CREATE UNIQUE INDEX ON sums (orders_id);
`

// planSets give the table without identity one.
const planSets = "  - name: shop\n    identity: {public.bare: full}\n    sets:\n      - {name: orders, tables: [public.orders, public.lines]}\n      - {name: rest, tables: [\"*\"]}\n  - {name: side}\n"

// TestPlanIsWhatRan: every write, DDL and argv that the servers and the
// programs saw from prepare to finish is an effect of the plan that was
// printed before, and each effect of the plan was seen.
func TestPlanIsWhatRan(t *testing.T) {
	w, p := newPlanned(t)
	w.Exec(w.old, "", "ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (rock)'", "SELECT pg_reload_conf()")
	stored := w.planned()
	w.do(0, "prepare")
	w.do(0, "cutover", "--yes")
	w.Exec(w.new, "shop", "INSERT INTO orders (what) VALUES ('on new')", "SELECT nextval('free_numbers')")
	w.do(0, "rollback", "--yes")
	w.Exec(w.old, "shop", "INSERT INTO orders (what) VALUES ('on old again')")
	w.do(0, "cutover", "--yes")
	w.do(0, "finish", "--yes")
	for _, line := range p.compare(stored, "prepare", "cutover", "rollback", "finish") {
		t.Error(line)
	}
	t.Logf("%d statements and programs, all of the plan", p.seen)
}

// TestPlanIsNotWhatRan: one statement that Do sends otherwise than Does says
// is found, as what was never planned and what was never done.
func TestPlanIsNotWhatRan(t *testing.T) {
	long(t)
	w, p := newPlanned(t)
	stored := w.planned()
	w.exe = mutant(t, "upgrade/pg/session.go", "conn.PgConn().Exec(ctx, sql)",
		`conn.PgConn().Exec(ctx, strings.Replace(sql, "CREATE SCHEMA IF NOT EXISTS crossfade", "CREATE SCHEMA IF NOT EXISTS crossfade AUTHORIZATION CURRENT_USER", 1))`)
	w.do(0, "prepare", "--until", "ground/old/side")
	lines := strings.Join(p.compare(stored), "\n")
	if !strings.Contains(lines, "not in the plan") || !strings.Contains(lines, "AUTHORIZATION") {
		t.Errorf("a statement that was changed in Do alone was not found:\n%s", lines)
	}
}

// planned is a world whose servers and programs write everything down.
type planned struct {
	w        *world
	servers  map[string]*lab.Cluster // by how the plan calls them
	wrappers []*lab.Wrapper
	system   *lab.Wrapper // one of them, whose programs are called by name alone
	seen     int
}

func newPlanned(t *testing.T) (*world, *planned) {
	t.Helper()
	told := map[string]string{"log_statement": "all", "log_replication_commands": "on", "log_destination": "stderr,jsonlog"}
	p := &planned{}
	w := newWorld(t, setting{
		sql: planTables, oldSet: told, newSet: told,
		dbs: planSets,
		wire: func(w *world, s *setting) {
			p.w = w
			p.servers = map[string]*lab.Cluster{"old": w.old, "new": w.new}
			for _, c := range p.servers {
				i := &lab.Install{Major: c.Major, Bin: c.Bin}
				wr, err := i.Wrap(filepath.Join(w.Dir, fmt.Sprint("bin", c.Major)))
				if err != nil {
					t.Fatal(err)
				}
				p.wrappers = append(p.wrappers, wr)
				if c == w.old {
					s.oldBin = wr.Bin
				} else {
					s.newBin = wr.Bin
				}
			}
			p.system = w.wrapSystem()
			w.script("hooks/move", "#!/bin/sh\nexit 0\n")
			hooks, err := (&lab.Install{Bin: filepath.Join(w.dir, "hooks")}).Wrap(filepath.Join(w.Dir, "hooks"))
			w.Must(err)
			p.wrappers = append(p.wrappers, p.system, hooks)
			w.pool = w.PgBouncer(lab.PoolOptions{Databases: map[string]lab.Backend{"shop": {Cluster: w.old, DB: "shop"}}})
			s.cutover += fmt.Sprintf("  traffic:\n    - pgbouncer: {databases: [shop], instances: [{admin: %q, config: %q}]}\n    - hook: {run: [%q]}\n", w.pool.AdminConninfo(), w.pool.Config, filepath.Join(hooks.Bin, "move"))
			// One is built before, one in the place of old's.
			w.takenStandbys(s, "", "rock")
			s.newLines = strings.Replace(s.newLines, w.new.Bin, s.newBin, 1)
			s.newLines += strings.TrimPrefix(w.standbyLines("metal", s.newBin), "    standbys:\n") + "    synchronous_standby_names: FIRST 2 (metal, rock)\n"
		},
	})
	return w, p
}

// mutant is the program with one place of its source changed.
func mutant(t testing.TB, file, from, to string) string {
	t.Helper()
	file, err := filepath.Abs(filepath.Join("..", "..", file))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(b), from) != 1 {
		t.Fatalf("%s does not have %q once", file, from)
	}
	dir := t.TempDir()
	changed, overlay, exe := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "crossfade")
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{file: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{changed: strings.Replace(string(b), from, to, 1), overlay: string(replace)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("go", "build", "-tags", "crossfade_panic", "-overlay", overlay, "-o", exe, "crossfade/cmd/crossfade").CombinedOutput()
	if err != nil {
		t.Fatalf("build the mutant: %v\n%s", err, out)
	}
	return exe
}

// wrapSystem puts wrapped programs of the system first in the tool's PATH.
// cat, awk and date are what the wrappers themselves are made of.
func (w *world) wrapSystem() *lab.Wrapper {
	w.t.Helper()
	plain := filepath.Join(w.Dir, "system")
	if err := os.Mkdir(plain, 0o755); err != nil {
		w.t.Fatal(err)
	}
	for _, name := range []string{"mv", "cp", "rm", "touch", "mkdir", "chmod", "chown", "sh", "tee", "ln", "install", "rmdir"} {
		if real, err := exec.LookPath(name); err == nil {
			if err := os.Symlink(real, filepath.Join(plain, name)); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	i := &lab.Install{Bin: plain}
	wr, err := i.Wrap(filepath.Join(w.Dir, "wrapped"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.env = append(w.env, "PATH="+wr.Bin+":"+os.Getenv("PATH"))
	return wr
}

// effect is one effect of a stored plan.
type effect struct {
	Plan, Step string
	On         string   `json:"on"`
	Database   string   `json:"database"`
	SQL        string   `json:"sql"`
	Run        []string `json:"run"`
}

func (e effect) String() string {
	if e.SQL == "" {
		return fmt.Sprintf("%s %s on %s: %q", e.Plan, e.Step, e.On, e.Run)
	}
	return fmt.Sprintf("%s %s on %s %s: %s", e.Plan, e.Step, e.On, e.Database, short(e.SQL))
}

// planned stores the whole plan, or what args choose of it.
func (w *world) planned(args ...string) []effect {
	w.t.Helper()
	r := w.do(0, append([]string{"plan", "--json"}, args...)...)
	if err := os.WriteFile(filepath.Join(w.dir, "plan.json"), []byte(r.stdout), 0o600); err != nil {
		w.t.Fatal(err)
	}
	var all []effect
	for _, line := range r.lines("step") {
		b, err := json.Marshal(line["effects"])
		if err != nil {
			w.t.Fatal(err)
		}
		var some []effect
		if err := json.Unmarshal(b, &some); err != nil {
			w.t.Fatal(err)
		}
		for _, e := range some {
			e.Plan, e.Step = fmt.Sprint(line["plan"]), fmt.Sprint(line["id"])
			all = append(all, e)
		}
	}
	return all
}

// act is one statement or program that was seen.
type act struct {
	on, database, sql string
	run               []string
	app               string
}

func (a act) String() string {
	if a.sql == "" {
		return fmt.Sprintf("%q", a.run)
	}
	return fmt.Sprintf("on %s %s (%s): %s", a.on, a.database, a.app, short(a.sql))
}

func short(sql string) string {
	sql = strings.Join(strings.Fields(sql), " ")
	return sql[:min(len(sql), 300)]
}

// piece is one statement of an effect, as a pattern.
type piece struct {
	effect
	text string
	is   *regexp.Regexp
	met  int
}

// compare tells what was done and not planned, and what of the plans named was
// planned and not done.
func (p *planned) compare(stored []effect, plans ...string) []string {
	pieces := map[string][]*piece{} // by server and database
	programs := []*piece{}
	for _, e := range stored {
		if e.Run != nil {
			programs = append(programs, &piece{effect: e, is: pattern(strings.Join(e.Run, "\x00"))})
			continue
		}
		for _, part := range statements(e.SQL) {
			key := e.On + "/" + e.Database
			pieces[key] = append(pieces[key], &piece{effect: e, text: part, is: pattern(part)})
		}
	}
	var says []string
	for _, a := range p.acts() {
		if a.run != nil {
			met := false
			for _, q := range programs {
				if q.is.MatchString(strings.Join(a.run, "\x00")) {
					q.met++
					met = true
				}
			}
			p.seen++
			if !met {
				says = append(says, "not in the plan: "+a.String())
			}
			continue
		}
		for _, part := range statements(a.sql) {
			met := false
			for _, q := range pieces[a.on+"/"+a.database] {
				if q.is.MatchString(part) {
					q.met++
					met = true
				}
			}
			if met {
				p.seen++
			}
			if !met && !reads(part) && !passing(part) {
				a.sql = part
				says = append(says, "not in the plan: "+a.String())
			}
		}
	}
	for _, some := range append(slices.Collect(mapsValues(pieces)), programs) {
		for _, q := range some {
			if q.met == 0 && slices.Contains(plans, q.Plan) && !unneeded[q.Step] {
				q.SQL = q.text
				says = append(says, "planned and not done: "+q.String())
			}
		}
	}
	slices.Sort(says)
	return slices.Compact(says)
}

func mapsValues(m map[string][]*piece) func(func([]*piece) bool) {
	return func(yield func([]*piece) bool) {
		for _, v := range m {
			if !yield(v) {
				return
			}
		}
	}
}

var holes = regexp.MustCompile(`\\\$[a-z][a-z0-9_]*(\\\$)?`)

// pattern is a regular expression for an effect's statement: a $name stands
// for a literal, or a list of them.
func pattern(text string) *regexp.Regexp {
	quoted := regexp.QuoteMeta(strings.TrimSpace(text))
	return regexp.MustCompile(`\A(?s:` + holes.ReplaceAllStringFunc(quoted, func(h string) string {
		if strings.HasSuffix(h, `\$`) {
			return h // the tag of a dollar-quoted string
		}
		return `(?: ?E?'(?:[^']|'')*'|[-+.:/\w]+|\(.*\))`
	}) + `)\z`)
}

// statements cuts SQL at the semicolons that end statements.
func statements(sql string) []string {
	var parts []string
	begin := 0
	end := func(i int) {
		if part := strings.TrimSpace(sql[begin:i]); part != "" {
			parts = append(parts, part)
		}
	}
	for i := 0; i < len(sql); i++ {
		rest := sql[i:]
		switch {
		case rest[0] == ';':
			end(i)
			begin = i + 1
		case rest[0] == '\'' || rest[0] == '"':
			escapes := rest[0] == '\'' && i > 0 && sql[i-1] == 'E'
			for j := i + 1; j < len(sql); j++ {
				if escapes && sql[j] == '\\' {
					j++
				} else if sql[j] == rest[0] {
					i = j
					break
				}
			}
		case strings.HasPrefix(rest, "--"):
			if n := strings.IndexByte(rest, '\n'); n >= 0 {
				i += n
			} else {
				i = len(sql)
			}
		default:
			if tag := dollar.FindString(rest); tag != "" && (i == 0 || !word(sql[i-1])) {
				if n := strings.Index(rest[len(tag):], tag); n >= 0 {
					i += len(tag) + n + len(tag) - 1
				}
			}
		}
	}
	end(len(sql))
	return parts
}

// unneeded are steps that had nothing to do, because of what they did not find.
var unneeded = map[string]bool{
	"standby/metal/aside":   true, // no data directory stood in the place
	"standby/metal/clear":   true, // no copy was cut off before
	"standby/metal/restart": true, // it runs with all its settings since its start
	"standby/rock/aside":    true,
	"standby/rock/clear":    true,
	"standby/rock/restart":  true,
}

// passing reports whether a statement is of what leaves nothing behind: what
// check and compare make inside a transaction that is rolled back, and the end
// of sessions that an earlier run of the tool left.
func passing(sql string) bool {
	return strings.HasPrefix(sql, "CREATE SUBSCRIPTION crossfade_check ") ||
		strings.Contains(sql, "CREATE FUNCTION pg_temp.crossfade_respell(") ||
		strings.Contains(sql, "(a.pid, a.backend_start) IN (SELECT * FROM unnest($1::int[], $2::timestamptz[]))")
}

var dollar = regexp.MustCompile(`\A\$(?:[A-Za-z_][A-Za-z0-9_]*)?\$`)

func word(b byte) bool {
	return b == '_' || b == '$' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
}

// changes are functions that a SELECT changes something with.
var changes = regexp.MustCompile(`(?i)\b(setval|nextval|pg_(terminate|cancel)_backend|pg_reload_conf|pg_drop_replication_slot|pg_create_\w+|pg_copy_\w+|pg_replication_slot_advance|pg_replication_origin_(create|drop|advance|session_\w+)|pg_logical_slot_get_\w+|pg_switch_wal|pg_promote|pg_restore_\w+|lo_\w+|pg_logical_emit_message)\s*\(`)

// readsWith are the words that a statement begins with that changes nothing.
var readsWith = regexp.MustCompile(`(?i)\A(SELECT|WITH|VALUES|TABLE|SHOW|SET|RESET|BEGIN|START TRANSACTION|COMMIT|END|ROLLBACK|ABORT|LOCK|FETCH|CLOSE|DECLARE|PREPARE|EXECUTE|DEALLOCATE|DISCARD|SAVEPOINT|RELEASE|COPY .* TO STDOUT|IDENTIFY_SYSTEM|READ_REPLICATION_SLOT|TIMELINE_HISTORY|START_REPLICATION|BASE_BACKUP|EXPLAIN)\b`)

// reads reports whether a statement changes nothing.
func reads(sql string) bool {
	for strings.HasPrefix(sql, "--") {
		_, sql, _ = strings.Cut(sql, "\n")
		sql = strings.TrimSpace(sql)
	}
	if sql == "" {
		return true
	}
	flat := strings.Join(strings.Fields(sql), " ")
	return readsWith.MatchString(flat) && !changes.MatchString(flat)
}

var spoken = regexp.MustCompile(`(?s)\A(?:statement: |execute [^:]+: |received replication command: )(.*)\z`)

// commanded is what PgBouncer writes down of its console.
var commanded = regexp.MustCompile(`\b(PAUSE|RESUME|RELOAD)(?: '(\w+)')? command issued`)

// acts are what the servers' and the programs' logs say of the tool.
func (p *planned) acts() []act {
	t := p.w.t
	t.Helper()
	var all []act
	for side, c := range p.servers {
		b, err := os.ReadFile(filepath.Join(c.Home, "log", "server.json"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			var e struct {
				App     string `json:"application_name"`
				DB      string `json:"dbname"`
				Message string `json:"message"`
			}
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatalf("%s: %v: %s", c.Name, err, line)
			}
			said := spoken.FindStringSubmatch(e.Message)
			if said == nil || !ours(e.App) {
				continue
			}
			a := act{on: side, database: e.DB, sql: said[1], app: e.App}
			if strings.HasPrefix(e.Message, "received") {
				a.sql = strings.Join(strings.Fields(a.sql), " ")
			}
			if e.DB == "postgres" {
				a.database = ""
			}
			all = append(all, a)
		}
	}
	pool, err := os.ReadFile(filepath.Join(p.w.pool.Home, "pgbouncer.log"))
	w := p.w
	w.Must(err)
	for _, m := range commanded.FindAllStringSubmatch(string(pool), -1) {
		sql := m[1]
		if m[2] != "" {
			sql += fmt.Sprintf(" %q", m[2])
		}
		all = append(all, act{on: fmt.Sprintf("pgbouncer 127.0.0.1:%d", w.pool.Port), sql: sql})
	}
	for _, wr := range p.wrappers {
		calls, err := wr.Calls()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range calls {
			if slices.Equal(c.Args, []string{"--version"}) {
				continue
			}
			program := filepath.Join(wr.Bin, c.Program)
			if wr == p.system {
				program = c.Program
			}
			all = append(all, act{run: append([]string{program}, c.Args...)})
		}
	}
	return all
}

// ours reports whether a session is one of the tool, its programs, or its links.
func ours(app string) bool {
	return strings.HasPrefix(app, "crossfade") || strings.HasPrefix(app, "pg_") || strings.HasPrefix(app, "cf_") || strings.HasPrefix(app, "cb_")
}

// standbyLines are the runbook's lines of one standby of new, built before the
// cutover in a place of the lab's.
func (w *world) standbyLines(name, bin string) string {
	w.t.Helper()
	place := w.Reserve(name, w.new.Major)
	w.standbys = append(w.standbys, place)
	return fmt.Sprintf("    standbys:\n      - {name: %s, conninfo: %q, host: %q, bin: %q, data: %q}\n",
		name, place.Conninfo(""), "local:", bin, place.DataDir)
}

// script writes a program for hooks.
func (w *world) script(name, text string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	w.Must(os.MkdirAll(filepath.Dir(path), 0o755))
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		w.t.Fatal(err)
	}
	return path
}
