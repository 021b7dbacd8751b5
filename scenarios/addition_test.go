package scenarios

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// addition is something that somebody adds to the product, as docs/architecture.md
// says where ("Where to add something").
type addition struct {
	what  string
	files int // how many files are touched by hand
	edits []edit
}

// edit puts text into a file, before or after a line that it has; a file that is not
// there is made of it.
type edit struct{ file, before, after, text string }

var additions = []addition{
	{"a check", 2, []edit{
		{"upgrade/check/databases.go", "", "var databaseChecks = []Check{", `
	{ID: "toy", Title: "No database is called toy", Levels: onlyWarn, Acceptable: true, Judge: judgeToy},`},
		{"upgrade/check/databases.go", "func judgeDatabaseClosed(", "", `func judgeToy(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		if d.Name == "toy" {
			out = append(out, Finding{Level: Warn, On: OnOld, Database: d.Name, Object: d.Name, Says: "database toy is one", Fix: "rename it"})
		}
	}
	return out
}

`},
		{"upgrade/check/cases_settings_test.go", "", "var databaseCases = []judged{", `
	{"toy", "one", func(f *Facts) { f.Databases[0].Name = "toy" }, []string{"warn toy old toy toy", "note database-left old shop shop"}},
	{"toy", "none", func(f *Facts) {}, nil},`},
	}},
	{"a step that blocks writers, with its forecast", 3, []edit{ // two, and the test that has the order
		{"cutover/toy.go", "", "", `package cutover

import (
	"context"
	"time"

	"crossfade/upgrade/flow"
)

// toy does nothing under the locks.
func (x *crossing) toy() flow.Step {
	return x.blockedStep(flow.Step{
		ID: "toy", Title: "Do nothing under the locks", Cost: flow.Cost{Base: time.Millisecond, Trips: 1},
		Do: func(context.Context, *flow.Turn) error { return nil },
	})
}
`},
		{"cutover/plan.go", "", "{reversible, one(x.forward.drain)},           // the opening side has everything up to the fence LSN, and shows the canary", `
		{reversible, one(x.toy)},                     // an example stands where it disturbs nobody`},
		{"cutover/plan_test.go", "", `"drain", `, `"toy", `},
	}},
	{"a key of the runbook", 3, []edit{
		{"upgrade/runbook/runbook.go", "", "type Cutover struct {", `
	Toy time.Duration // how long nothing is done; default 0`},
		{"upgrade/runbook/cutover.go", "", `"approve", "back", "sequences", "traffic",`, ` "toy",`},
		{"upgrade/runbook/cutover.go", "", `c.Back = m.truth("back", c.Back)`, `
	c.Toy = m.duration("toy", c.Toy, 0, "1s")`},
		{"docs/runbook.md", "", "| `back` | true (default) or false | whether the old cluster is kept in step for a rollback | cutover |", "\n| `toy` | duration; default 0s | how long nothing is done | cutover |"},
	}},
	{"a command", 3, []edit{
		{"cmd/crossfade/toy.go", "", "", `package main

import (
	"context"

	"github.com/urfave/cli/v2"
)

func toyCommand() command {
	return command{
		name: "toy", synopsis: "toy", short: "print a word", about: "Prints a word.", reads: true,
		run: func(_ context.Context, _ *cli.Context, _ common, out *output) error {
			printText(out, "toy\n")
			return nil
		},
	}
}
`},
		{"cmd/crossfade/app.go", "guardCommand(),", "", "toyCommand(), "},
		{"docs/commands.md", "", "run | report | completion", " | toy"},
		{"docs/commands.md", "", "| `completion bash\\|zsh\\|fish` | prints the completion of a shell |", "\n| `toy` | prints a word |"},
	}},
	{"a kind of traffic", 3, []edit{
		{"cutover/traffic/toy.go", "", "", `package traffic

import (
	"context"
	"encoding/json"

	"crossfade/upgrade/pg"
)

// toy sends clients by a program, as a hook does, and can be judged.
func toy() Kind {
	return Kind{
		Key: "toy", Keys: []Keys{{"toy", []string{"program"}}},
		Read: func(m Mapping) Entry {
			m.Require("program", "what sends clients, like program: /usr/local/bin/toy")
			return &toyEntry{m.File("program", "/usr/local/bin/toy")}
		},
		Findings: []Finding{{"toy-silent", "Every toy answers", false}},
		Example:  func(string) string { return "toy: {program: /usr/local/bin/toy}" },
		Revive: func(u GuardUnit) (Switch, error) {
			var e toyEntry
			if err := json.Unmarshal(u.Spec, &e.program); err != nil {
				return nil, err
			}
			return e.Switch(Around{})
		},
	}
}

type toyEntry struct{ program string }

func (e *toyEntry) Switch(a Around) (Switch, error) {
	return &toySwitch{Hook{Label: "toy " + e.program, Run: []string{e.program}, Env: a.Env}}, nil
}
func (e *toyEntry) Says() []string  { return []string{"Clients are sent by the toy " + e.program + "."} }
func (e *toyEntry) Hosts() []string { return []string{"localhost"} }
func (e *toyEntry) Names() []string { return nil }

type toySwitch struct{ Hook }

func (s *toySwitch) Guarded() (GuardUnit, error) {
	spec, err := json.Marshal(s.Run[0])
	return GuardUnit{Kind: "toy", Name: s.Name(), Spec: spec}, err
}

func (s *toySwitch) Problems(context.Context, *pg.Server) ([]Problem, error) { return nil, nil }

func (s *toySwitch) Unreachable(err error) Problem {
	return Problem{ID: "toy-silent", On: s.Name(), Says: err.Error(), Fix: "start it"}
}
`},
		{"cutover/traffic/kinds.go", "hook()} }", "", "toy(), "},
		{"docs/runbook.md", "", "| `hook` | mapping | a program of yours | cutover |", "\n| `toy` | mapping | a toy | cutover |"},
		{"docs/runbook.md", "`haproxy` *(not in this version)*:", "", "`toy`:\n\n| key | type, default | meaning | acts in |\n| --- | --- | --- | --- |\n| `program` | path on this machine, required | what sends clients | cutover |\n\n"},
	}},
}

// tree copies the product and its tests into a scratch folder.
func tree(t *testing.T) string {
	t.Helper()
	scratch := t.TempDir()
	for _, part := range []string{"cmd", "cutover", "docs", "scenarios", "schema", "upgrade"} {
		if err := os.CopyFS(filepath.Join(scratch, part), os.DirFS(filepath.Join("..", part))); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"go.mod", "go.sum", "README.md"} {
		b, err := os.ReadFile(filepath.Join("..", file))
		if err == nil {
			err = os.WriteFile(filepath.Join(scratch, file), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return scratch
}

// apply makes an edit, and wants the place for it to be there once.
func (e edit) apply(t *testing.T, root string) {
	t.Helper()
	path := filepath.Join(root, e.file)
	text := e.text
	if anchor := e.before + e.after; anchor != "" {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(b), anchor); n != 1 {
			t.Fatalf("%s has %d times %q", e.file, n, anchor)
		}
		text = strings.Replace(string(b), anchor, e.after+e.text+e.before, 1)
	} else if _, err := os.Stat(path); err == nil {
		t.Fatalf("%s is there already", e.file)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestAdditions adds one of each thing that people add to a scratch copy of the
// product, counts the files that that takes, and has the tests of what was touched
// pass there: they want an entry in the docs, a case, a forecast.
func TestAdditions(t *testing.T) {
	if os.Getenv("CROSSFADE_ALL") == "" {
		t.Skip("builds the product once more: CROSSFADE_ALL=1 runs it")
	}
	root := tree(t)
	for _, a := range additions {
		var files []string
		for _, e := range a.edits {
			e.apply(t, root)
			files = append(files, e.file)
		}
		slices.Sort(files)
		files = slices.Compact(files)
		t.Logf("%s: %d files: %s", a.what, len(files), strings.Join(files, ", "))
		if len(files) != a.files {
			t.Errorf("%s touches %d files, want %d: %v", a.what, len(files), a.files, files)
		}
	}
	run := func(want int, argv ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
		cmd.Dir = root
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != want {
			t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
		}
		return string(out)
	}
	run(0, "go", "build", "-buildvcs=false", "-o", "bin/crossfade", "./cmd/crossfade")
	run(0, "go", "vet", "./cmd/crossfade", "./cutover/...", "./upgrade/runbook", "./upgrade/check")
	run(0, "go", "test", "./cutover")
	run(0, "go", "test", "./upgrade/check", "-run", "^(TestJudge|TestClean|TestOrder)$")
	// What is written from the code: the page of checks, and messages that list the kinds of traffic.
	run(0, "go", "test", "./upgrade", "-run", "^TestChecksPage$", "-update")
	run(0, "go", "test", "./upgrade/runbook", "-update")
	page := run(0, "cat", "docs/checks.md")
	for _, row := range []string{"| `toy` | warn | No database is called toy | yes |", "| `toy-silent` | block | Every toy answers | no |"} {
		if !strings.Contains(page, row) {
			t.Errorf("docs/checks.md has no row %s", row)
		}
	}
	run(0, "go", "test", "./cmd/crossfade", "-run", "^TestProgram$/^commands")
	if out := run(0, "bin/crossfade", "toy"); out != "toy\n" {
		t.Errorf("crossfade toy prints %q", out)
	}
	const book = `upgrade: toy
old: {primary: host=127.0.0.1}
new: [{cluster: new, primary: host=127.0.0.2}]
cutover:
  toy: 5 minutes
  traffic:
    - toy: {}
    - {}
`
	if err := os.WriteFile(filepath.Join(root, "toy.yaml"), []byte(book), 0o600); err != nil {
		t.Fatal(err)
	}
	out := run(2, "bin/crossfade", "check", "-f", "toy.yaml")
	for _, says := range []string{
		"toy.yaml:5:8: toy: '5 minutes' is no duration", "toy.yaml:7:12: program: missing in toy; what sends clients, like program: /usr/local/bin/toy",
		"toy.yaml:8:7: traffic: an empty entry; it is one of pgbouncer, haproxy, toy and hook",
	} {
		if !strings.Contains(out, says) && !strings.Contains(out, strings.ReplaceAll(says, "'", `"`)) {
			t.Errorf("no mistake %s in:\n%s", says, out)
		}
	}
}
