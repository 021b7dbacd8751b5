package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"crossfade/upgrade/report"

	"github.com/google/go-cmp/cmp"
)

// These tests compare the tables of the contract's pages with the built program's
// help and with the golden lines of upgrade/report.

// contract is a page of docs/.
func contract(t *testing.T, page string) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// section is the text below a heading, up to the next one.
func section(t *testing.T, text, heading string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, "\n"+heading+"\n")
	if !ok {
		t.Fatalf("the page has no %q", heading)
	}
	if i := regexp.MustCompile(`(?m)^#`).FindStringIndex(rest); i != nil {
		rest = rest[:i[0]]
	}
	return rest
}

// rows are the cells of the table in text, without its head.
func rows(text string) [][]string {
	var out [][]string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			continue
		}
		line = strings.ReplaceAll(strings.Trim(line, "|"), `\|`, "\x00")
		cells := strings.Split(line, " | ")
		for i := range cells {
			cells[i] = strings.ReplaceAll(strings.TrimSpace(cells[i]), "\x00", "|")
		}
		out = append(out, cells)
	}
	return out[2:]
}

func helpOf(t *testing.T, program string, command ...string) string {
	t.Helper()
	b, err := exec.Command(program, append(command, "--help")...).Output()
	if err != nil {
		t.Fatalf("%s %v --help: %v", program, command, err)
	}
	return string(b)
}

// part is the indented block of a help text below a heading.
func part(t *testing.T, help, heading string) []string {
	t.Helper()
	_, rest, ok := strings.Cut(help, "\n"+heading)
	if !ok {
		t.Fatalf("no %s in:\n%s", heading, help)
	}
	_, rest, _ = strings.Cut(rest, "\n")
	var lines []string
	for line := range strings.Lines(rest) {
		if !strings.HasPrefix(line, "  ") {
			break
		}
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines
}

var (
	flagName = regexp.MustCompile(`--?[a-z][a-z-]*`)
	blanks   = regexp.MustCompile(` {2,}`)
)

func contractCommands(t *testing.T, program string) {
	help := helpOf(t, program)
	var listed, inTable []string
	missing := map[string]bool{}
	for _, l := range part(t, help, "COMMANDS") {
		name, short, _ := strings.Cut(l, " ")
		listed = append(listed, name)
		missing[name] = strings.Contains(short, "(not in this version)")
	}
	commands := section(t, "\n"+contract(t, "commands.md"), "# Commands")
	for _, r := range rows(commands) {
		synopsis := strings.Trim(r[0], "`")
		name, _, _ := strings.Cut(synopsis, " ")
		inTable = append(inTable, name)
		cmdHelp := helpOf(t, program, name)
		if got := part(t, cmdHelp, "USAGE"); len(got) != 1 || got[0] != "crossfade "+synopsis {
			t.Errorf("%s: help says %q, the contract %q", name, got, synopsis)
		}
		if notYet := strings.HasPrefix(r[1], "*(not in this version)*"); notYet != missing[name] {
			t.Errorf("%s: not in this version is %t in the contract and %t in the help", name, notYet, missing[name])
		}
		want := append(flagName.FindAllString(strings.ReplaceAll(synopsis, name, ""), -1), "--runbook", "-f", "--json", "--quiet", "-q", "--verbose", "-v", "--help", "-h")
		var got []string
		for _, l := range part(t, cmdHelp, "FLAGS") {
			got = append(got, flagName.FindAllString(blanks.Split(l, 2)[0], -1)...)
		}
		slices.Sort(want)
		slices.Sort(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: flags (-contract +help):\n%s", name, d)
		}
	}
	if d := cmp.Diff(inTable, listed); d != "" {
		t.Errorf("commands (-contract's table +help):\n%s", d)
	}
	line := regexp.MustCompile("`crossfade ([a-z |]+)`").FindStringSubmatch(commands)
	if line == nil {
		t.Fatal("docs/commands.md has no line of all commands")
	}
	if d := cmp.Diff(strings.Split(line[1], " | "), listed); d != "" {
		t.Errorf("commands (-contract's line +help):\n%s", d)
	}
}

func contractExitCodes(t *testing.T, program string) {
	want := map[string]string{}
	var order []string
	exitSection := section(t, contract(t, "phases.md"), "## Exit codes")
	for _, r := range rows(exitSection) {
		want[r[0]] = r[1]
		order = append(order, r[0])
	}
	var have []string
	for _, l := range part(t, helpOf(t, program), "EXIT STATUS") {
		c := blanks.Split(l, 2)
		have = append(have, c[0])
		if want[c[0]] != c[1] {
			t.Errorf("exit %s: the contract says %q, the help %q", c[0], want[c[0]], c[1])
		}
	}
	if d := cmp.Diff(order, have); d != "" {
		t.Errorf("exit codes (-contract +help):\n%s", d)
	}
	m := regexp.MustCompile(`in this order: ([0-9, ]+)\.`).FindStringSubmatch(exitSection)
	if m == nil {
		t.Fatal("docs/phases.md does not say which code decides first")
	}
	if got := strings.Trim(strings.ReplaceAll(fmt.Sprint(firstOf), " ", ", "), "[]"); got != m[1] {
		t.Errorf("the contract's order is %s, the program's %s", m[1], got)
	}
}

func TestContractPhases(t *testing.T) {
	m := regexp.MustCompile(`phase \(([a-z_|]+)\)`).FindStringSubmatch(contract(t, "json.md"))
	if m == nil {
		t.Fatal("docs/json.md does not list the phases")
	}
	var phases []string
	for _, p := range report.Phases() {
		phases = append(phases, string(p))
	}
	if d := cmp.Diff(strings.Split(m[1], "|"), phases); d != "" {
		t.Errorf("phases (-contract +report):\n%s", d)
	}
	for _, r := range rows(section(t, contract(t, "phases.md"), "## Phases")) {
		names, _, _ := strings.Cut(r[0], " (")
		for _, p := range strings.Split(names, ", ") {
			if !slices.Contains(phases, p) {
				t.Errorf("the table of phases has %q, which is none", p)
			}
		}
	}
}

// TestContractJSON compares the fields of every kind of line, in their order,
// nested ones too, with the golden lines.
func TestContractJSON(t *testing.T) {
	text := contract(t, "json.md") // its bullets, and error in the text before them
	want := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^- `([a-z]+)`[^:]*: `([^`]+)`").FindAllStringSubmatch(text, -1) {
		want[m[1]] = fields(m[2])
	}
	if m := regexp.MustCompile("the last line is `error`: `([^`]+)`").FindStringSubmatch(text); m != nil {
		want["error"] = fields(m[1])
	}
	b, err := os.ReadFile("../../upgrade/report/testdata/lines.golden")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for line := range strings.Lines(string(b)) {
		var kind struct{ Type string }
		if err := json.Unmarshal([]byte(line), &kind); err != nil {
			t.Fatal(err)
		}
		if _, seen := got[kind.Type]; !seen { // the first of its kind is the full one
			got[kind.Type] = strings.TrimPrefix(keys(t, kind.Type, json.RawMessage(line)), "type, ")
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("JSON (-contract +golden):\n%s", d)
	}
}

// fields is the contract's list of fields without what it says about them:
// "at, kind (begin|end)" is "at, kind".
func fields(s string) string {
	s = regexp.MustCompile(` \([^)]*\)`).ReplaceAllString(s, "")
	s = strings.ReplaceAll(s, "[…]", "[]")
	return strings.ReplaceAll(s, "sql|run|request", "sql")
}

// keys writes the keys of a JSON object as the contract does.
func keys(t *testing.T, at string, raw json.RawMessage) string {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	if _, err := dec.Token(); err != nil {
		t.Fatal(err)
	}
	var out []string
	for dec.More() {
		k, err := dec.Token()
		if err != nil {
			t.Fatal(err)
		}
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			t.Fatal(err)
		}
		out = append(out, k.(string)+nested(t, at+"."+k.(string), v))
	}
	return strings.Join(out, ", ")
}

func nested(t *testing.T, at string, v json.RawMessage) string {
	t.Helper()
	if at == "cutover.fence_lsn" { // its keys are names of databases
		return ":{database: lsn}"
	}
	if at == "step.effects.run" {
		return ""
	}
	switch v[0] {
	case '{':
		return ":{" + keys(t, at, v) + "}"
	case '[':
		var items []json.RawMessage
		if err := json.Unmarshal(v, &items); err != nil {
			t.Fatal(err)
		}
		if len(items) > 0 && items[0][0] == '{' {
			return ":[{" + keys(t, at, items[0]) + "}]"
		}
		return ":[]"
	}
	return ""
}
