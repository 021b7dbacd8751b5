package upgrade

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"crossfade/upgrade/check"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/checks.md anew")

const (
	checksPage = "../docs/checks.md"
	beginsMark = "<!-- from here to the end mark: go test ./upgrade -run TestChecksPage -update -->\n"
	endsMark   = "<!-- end -->\n"
)

// checksTable is the part of docs/checks.md that is written from the code.
func checksTable() string {
	var b strings.Builder
	yes := map[bool]string{true: "yes", false: "no"}
	for _, f := range check.Families() {
		fmt.Fprintf(&b, "### %s\n\n| id | level | what must hold | may be accepted |\n| --- | --- | --- | --- |\n", f.Title)
		for _, c := range f.Checks {
			levels := make([]string, len(c.Levels))
			for i, l := range c.Levels {
				levels[i] = string(l)
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", c.ID, strings.Join(levels, ", "), c.Title, yes[c.Acceptable])
		}
		b.WriteString("\n")
	}
	b.WriteString("### Traffic and standbys of the runbook\n\n| id | level | what must hold | may be accepted |\n| --- | --- | --- | --- |\n")
	for _, k := range otherKinds() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.id, k.level, k.title, yes[k.acceptable])
	}
	b.WriteString("\n")
	return b.String()
}

// TestChecksPage holds docs/checks.md against the code: the tables of checks are
// written from it, and what the table of pitfalls names is there.
func TestChecksPage(t *testing.T) {
	b, err := os.ReadFile(checksPage)
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	before, rest, ok := strings.Cut(page, beginsMark)
	have, after, ok2 := strings.Cut(rest, endsMark)
	if !ok || !ok2 {
		t.Fatalf("%s has lost its marks", checksPage)
	}
	want := "\n" + checksTable()
	if *update {
		if err := os.WriteFile(checksPage, []byte(before+beginsMark+want+endsMark+after), 0o644); err != nil {
			t.Fatal(err)
		}
		have = want
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("%s (-code +page); -update writes it anew:\n%s", checksPage, diff)
	}
	ids := map[string]bool{}
	for _, c := range check.Checks() {
		ids[c.ID] = true
	}
	for _, k := range otherKinds() {
		ids[k.id] = true
	}
	source := code(t)
	number := 0
	for _, row := range regexp.MustCompile(`(?m)^\| (\d+) \| (.*) \| (.*) \|$`).FindAllStringSubmatch(after, -1) {
		number++
		if row[1] != fmt.Sprint(number) {
			t.Errorf("pitfall %s stands where %d is due", row[1], number)
		}
		for _, m := range regexp.MustCompile("(check|gate|step) ((?:`[^`]+`(?:, )?)+)").FindAllStringSubmatch(row[3], -1) {
			for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(m[2], -1) {
				switch {
				case m[1] == "check" && !ids[name[1]]:
					t.Errorf("pitfall %s: there is no check %q", row[1], name[1])
				case m[1] == "gate" && !strings.Contains(source, `ID: "`+name[1]+`", Look:`) && !strings.Contains(source, `ID: "`+name[1]+`", Costly:`):
					t.Errorf("pitfall %s: there is no gate %q", row[1], name[1])
				case m[1] == "step" && !strings.Contains(source, `"`+name[1]+`"`) && !strings.Contains(source, `"`+name[1]+`/`):
					t.Errorf("pitfall %s: there is no step %q", row[1], name[1])
				}
			}
		}
	}
	if number != 76 {
		t.Errorf("%d pitfalls", number)
	}
}

// code is the text of what makes gates and steps.
func code(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, pattern := range []string{"*.go", "*/*.go", "../cutover/*.go"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			if strings.HasSuffix(p, "_test.go") {
				continue
			}
			text, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			b.Write(text)
		}
	}
	return b.String()
}
