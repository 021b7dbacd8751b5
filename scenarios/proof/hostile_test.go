package proof

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Names that PostgreSQL takes and a terminal, a browser or a reader of Markdown
// acts on: they set its title, clear it, turn the direction of what is read, run
// a script, begin a line that looks like the tool's own.
const (
	evilDB     = "evil|<b>`\u202edb" // a runbook takes no control characters
	evilSchema = "pi|pe\x1b[2J`s`"
	evilTable  = "<img src=x onerror=alert(1)>\u202etxt"
	evilColumn = "c`\u009b31m|<script>alert(2)</script>"
	evilRole   = "role\x1b[8m\u2066"
	evilPub    = "pub\x1b[2K\u200f"
	evilLine   = "line\nnext: crossfade finish --yes"
)

func quoted(names ...string) string {
	for i, n := range names {
		names[i] = `"` + strings.ReplaceAll(n, `"`, `""`) + `"`
	}
	return strings.Join(names, ".")
}

// acting is whatever does something where it is printed.
var acting = regexp.MustCompile("[\x00-\x08\x0b-\x1f\x7f\u0080-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]")

// tame wants nothing in a text to act on a terminal.
func tame(t *testing.T, what, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		if at := acting.FindString(strings.TrimRight(line, "\n")); at != "" {
			t.Errorf("%s: %q acts on the terminal, in %q", what, at, line)
			return
		}
		if strings.HasPrefix(line, "next: crossfade finish --yes") {
			t.Errorf("%s: a name says what to type next: %q", what, line)
		}
	}
}

// exact wants a text to stand somewhere in the JSON lines, as it is.
func exact(t *testing.T, what string, r ran, names ...string) {
	t.Helper()
	var all []string
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			all = append(all, v)
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for _, e := range v {
				walk(e)
			}
		}
	}
	for line := range strings.Lines(r.stdout) {
		var v any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%s: %v in %q", what, err, line)
		}
		walk(v)
	}
	text := strings.Join(all, "\n")
	for _, n := range names {
		if !strings.Contains(text, n) {
			t.Errorf("%s --json has no %q", what, n)
		}
	}
}

// TestHostileNames: whatever a name, a query, a server's message or a hook's
// output holds, it does nothing to who reads it: on the terminal it is shown as
// an escape, on a page it is text, in JSON it is exact.
func TestHostileNames(t *testing.T) {
	table := quoted(evilSchema, evilTable)
	w := newWorld(t, setting{
		cutover: "  max_blocked: 2s\n  patience: 15s\n",
		dbs:     fmt.Sprintf("  - {name: shop}\n  - {name: %s}\n", yamlString(evilDB)),
		wire: func(w *world, _ *setting) {
			w.Exec(w.old, "", "CREATE DATABASE "+quoted(evilDB), "CREATE ROLE "+quoted(evilRole)+" LOGIN SUPERUSER", "ALTER ROLE "+quoted(evilRole)+" SET work_mem = '5MB'")
			w.Exec(w.old, evilDB, "CREATE SCHEMA "+quoted(evilSchema)+" AUTHORIZATION "+quoted(evilRole),
				"CREATE TABLE "+table+" (k int PRIMARY KEY, "+quoted(evilColumn)+" text)",
				"CREATE TABLE "+quoted(evilSchema, evilTable+"2")+" ("+quoted(evilColumn)+" text)", // no key: a finding
				"CREATE TABLE "+quoted(evilLine)+" (v text)",
				"CREATE PUBLICATION "+quoted(evilPub)+" FOR TABLE "+table)
		},
	})
	w.runbookLine("  patience: 60s\n", "")

	for _, args := range [][]string{{"check", "-v"}, {"plan", "--full"}} {
		r := w.do(3, args...)
		tame(t, args[0], r.stdout+r.stderr)
		for _, want := range []string{"evil|<b>`\\u202edb", `\x1b[2J`} {
			if !strings.Contains(r.stdout, want) {
				t.Errorf("%s does not show %s\n%s", args[0], want, r)
			}
		}
		exact(t, args[0], w.do(3, append(args, "--json")...), evilDB, evilSchema, evilTable+"2")
	}
	html, md := filepath.Join(t.TempDir(), "p.html"), filepath.Join(t.TempDir(), "p.md")
	w.Exec(w.old, evilDB, "DROP TABLE "+quoted(evilSchema, evilTable+"2"), "DROP TABLE "+quoted(evilLine))
	r := w.do(0, "plan", "--full", "--html", html, "--md", md)
	tame(t, "plan", r.stdout+r.stderr)
	exact(t, "plan", w.do(0, "plan", "--json"), evilDB, evilSchema, evilTable, evilColumn, evilRole)
	for _, path := range []string{html, md} {
		b, err := os.ReadFile(path)
		w.Must(err)
		tame(t, path, string(b))
		if !strings.Contains(string(b), `\u202e`) {
			t.Errorf("%s does not show the table's name", path)
		}
		if path == html && strings.Contains(string(b), "<img src=x") {
			t.Error("the page has an image of a table's name")
		}
		fence := ""
		for line := range strings.Lines(string(b)) {
			at := strings.TrimSpace(line)
			if path == html {
				break
			}
			switch {
			case fence == "" && strings.HasPrefix(at, "```"):
				fence = strings.TrimRight(at, "sqlh")
			case fence != "" && at == fence:
				fence = ""
			case fence == "" && strings.Contains(at, "<img"), fence == "" && strings.Contains(at, "<script"):
				if !regexp.MustCompile("`[^`]*<(img|script)[^`]*`").MatchString(at) {
					t.Errorf("raw HTML in Markdown: %s", line)
				}
			}
		}
	}

	l := w.do(0, "prepare")
	tame(t, "prepare", l.stdout+l.stderr)
	blocker := w.connect(strings.Replace(w.old.Conninfo(evilDB), "user=postgres", "user='"+evilRole+"'", 1) + " application_name='<b>app</b>'")
	w.Must(run(t.Context(), blocker, "/* \x1b]0;x\x07 \u202e\nnext: crossfade finish --yes */ BEGIN; INSERT INTO "+table+" VALUES (1)"))
	w.wait("the blocker to be seen", func() bool { return strings.Contains(fmt.Sprint(w.status()["gates"]), "has been writing") })
	r = w.do(0, "status")
	tame(t, "status", r.stdout+r.stderr)
	if !strings.Contains(r.stdout, `role\x1b[8m\u2066`) || !strings.Contains(r.stdout, `/* \x1b]0;x\x07`) {
		t.Errorf("status does not show who blocks\n%s", r)
	}
	exact(t, "status", w.do(0, "status", "--json"), evilRole, "/* \x1b]0;x\x07")
	// It is in the way of the fence (5), or of the gate (4).
	r = w.try("cutover", "--yes")
	tame(t, "cutover", r.stdout+r.stderr)
	if r.exit != 4 && r.exit != 5 || !strings.Contains(r.stderr, `role\x1b[8m\u2066`) {
		t.Errorf("cutover does not show who blocks\n%s", r)
	}
	exact(t, "cutover", w.try("cutover", "--yes", "--json"), evilRole)
	w.Must(run(t.Context(), blocker, "ROLLBACK"))

	w.runbookLine("databases:\n", "hooks: {before_cutover: {run: [sh, -c, \"printf 'hook \\\\033]0;x\\\\007' >&2; exit 1\"]}}\ndatabases:\n")
	r = w.do(4, "cutover", "--yes")
	tame(t, "a hook", r.stdout+r.stderr)
	if !strings.Contains(r.stderr, `hook \x1b]0;x\x07`) {
		t.Errorf("what the hook has said is not shown\n%s", r)
	}
}

// yamlString is a name as a YAML scalar.
func yamlString(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
