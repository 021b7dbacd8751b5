package proof

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// finding is the first finding of that id on that side about an object.
func (r ran) finding(id, on, object string) map[string]any {
	for _, f := range r.lines("finding") {
		if f["id"] == id && f["on"] == on && (fmt.Sprint(f["object"]) == object || slices.Contains(listed(f), object)) {
			return f
		}
	}
	return nil
}

// listed are the objects of a finding that has several.
func listed(f map[string]any) []string {
	var names []string
	if all, ok := f["objects"].([]any); ok {
		for _, o := range all {
			names = append(names, fmt.Sprint(o))
		}
	}
	return names
}

// TestOrdinaryRole: the right that a role lacks is a finding:
// check is never 1 for it. The GRANTs that it prints are those that are missing.
func TestOrdinaryRole(t *testing.T) {
	w := newWorld(t, setting{sql: "CREATE TABLE nokey (a int); INSERT INTO nokey VALUES (1)", dbs: "  - {name: shop}\n  - {name: side}\n"})
	w.Exec(w.new, "", "CREATE ROLE app")
	for _, c := range []string{
		"CREATE ROLE plain LOGIN REPLICATION", "CREATE ROLE watched LOGIN REPLICATION", "GRANT pg_monitor TO watched",
		"CREATE ROLE acting LOGIN SUPERUSER", "ALTER ROLE acting SET role = 'app'",
	} {
		w.Exec(w.old, "", c)
		w.Exec(w.new, "", c)
	}
	w.Exec(w.old, "", "REVOKE CONNECT ON DATABASE side FROM PUBLIC")
	as := "postgres"
	use := func(role string) {
		for range 2 {
			w.runbookLine("user="+as, "user="+role)
		}
		as = role
	}
	for _, role := range []string{"plain", "watched"} {
		t.Run(role, func(t *testing.T) {
			use(role)
			r := w.do(3, "check", "--json")
			for side, c := range map[string]string{"old": "old", "new": "new"} {
				f := r.finding("privileges", side, role)
				if f == nil || f["level"] != "block" || !strings.Contains(fmt.Sprint(f["fix"]), `ALTER ROLE "`+role+`" SUPERUSER;`) {
					t.Errorf("on %s: %v", c, f)
				}
			}
			// What is pasted fixes what it is printed for.
			var grants int
			for _, f := range r.lines("finding") {
				if f["id"] != "check-incomplete" {
					continue
				}
				on, db := w.old, "postgres"
				if f["on"] == "new" {
					on = w.new
				}
				if f["database"] != nil {
					db = fmt.Sprint(f["database"])
				}
				for line := range strings.Lines(fmt.Sprint(f["fix"])) {
					line = strings.TrimSpace(line)
					if to, ok := strings.CutPrefix(line, `\connect "`); ok {
						db = strings.TrimSuffix(to, `"`)
					}
					if strings.HasPrefix(line, "GRANT ") && strings.HasSuffix(line, ";") {
						grants++
						w.Exec(on, db, line)
					}
				}
			}
			if grants < 10 {
				t.Errorf("only %d GRANTs were printed\n%s", grants, r.stdout)
			}
			for _, f := range w.do(3, "check", "--json").lines("finding") {
				if f["id"] == "check-incomplete" && strings.Contains(fmt.Sprint(f["fix"]), "GRANT ") {
					t.Errorf("still missing after its GRANT: %v", f)
				}
			}
		})
	}
	t.Run("acting as another", func(t *testing.T) {
		use("acting")
		r := w.do(3, "check", "--json")
		for side, c := range map[string]bool{"old": true, "new": false} {
			f := r.finding("privileges", side, "acting")
			fix := fmt.Sprint(f["fix"])
			if f == nil || !strings.Contains(fix, `ALTER ROLE "acting" RESET role;`) || strings.Contains(fix, "SUPERUSER;") {
				t.Errorf("on old %t: %v", c, f)
			}
		}
		if f := r.finding("setting-removed", "old", "role"); f != nil {
			t.Errorf("a setting that every major knows: %v", f)
		}
		for _, c := range []string{`ALTER ROLE "acting" RESET role`, "GRANT ALL ON DATABASE side TO acting"} {
			w.Exec(w.old, "", c)
		}
		w.Exec(w.new, "", `ALTER ROLE "acting" RESET role`)
		if f := w.try("check", "--json").finding("privileges", "old", "acting"); f != nil {
			t.Errorf("after the fix: %v", f)
		}
	})
}

// TestTemplateDatabases: templates and databases that let nobody in are named by
// check where the runbook does not name them; a template that it names is moved,
// and undone by abort; template1, which every CREATE DATABASE copies, is refused.
func TestTemplateDatabases(t *testing.T) {
	long(t)
	w := newWorld(t, setting{dbs: "  - {name: shop}\n"})
	w.Exec(w.old, "", "CREATE DATABASE forms", "CREATE DATABASE shut")
	w.Exec(w.old, "forms", "CREATE TABLE form (id int PRIMARY KEY, v text)", "INSERT INTO form VALUES (1, 'x')")
	w.Exec(w.old, "", "ALTER DATABASE forms IS_TEMPLATE true", "ALTER DATABASE shut ALLOW_CONNECTIONS false")
	stood := w.onNew()
	r := w.do(0, "check", "--json")
	for object, word := range map[string]string{"forms": "IS_TEMPLATE", "shut": "datallowconn"} {
		f := r.finding("database-left", "old", object)
		if f == nil || f["level"] != "warn" || !strings.Contains(fmt.Sprint(f["says"]), word) || f["fix"] == nil {
			t.Errorf("%s: %v", object, f)
		}
	}
	if f := r.finding("database-left", "old", "side"); f == nil || f["level"] != "note" {
		t.Errorf("side: %v", f)
	}
	for _, name := range []string{"shut", "template1"} {
		w.runbookLine("  - {name: shop}\n", "  - {name: shop}\n  - {name: "+name+"}\n")
		id := map[string]string{"shut": "database-closed", "template1": "database-template"}[name]
		if r := w.do(3, "check", "--json"); r.finding(id, "old", name) == nil {
			t.Errorf("%s named in the runbook: no %s\n%s", name, id, r)
		}
		w.do(3, "prepare")
		w.runbookLine("  - {name: "+name+"}\n", "")
	}
	w.runbookLine("  - {name: shop}\n", "  - {name: shop}\n  - {name: forms}\n")
	if f := w.do(0, "check", "--json").finding("database-template", "old", "forms"); f == nil || f["level"] != "warn" {
		t.Errorf("nothing is said of CREATE DATABASE … TEMPLATE forms: %v", f)
	}
	w.do(0, "prepare")
	w.do(0, "abort", "--yes")
	if got := w.onNew(); !slices.Equal(got, stood) {
		t.Errorf("after abort new had %q and has %q", stood, got)
	}
	w.do(0, "prepare")
	w.Exec(w.old, "forms", "INSERT INTO form VALUES (2, 'y')")
	w.do(0, "cutover", "--yes")
	w.do(0, "finish", "--yes")
	if got := w.Value(w.new, "forms", "SELECT string_agg(id || v, ',' ORDER BY id) FROM form"); got != "1x,2y" {
		t.Errorf("form has %s", got)
	}
	if got := w.Value(w.new, "", "SELECT datistemplate FROM pg_database WHERE datname = 'forms'"); got != "t" && got != "true" {
		t.Errorf("forms is no template on new: %s", got)
	}
	w.Exec(w.new, "", "CREATE DATABASE of_it TEMPLATE forms")
}
