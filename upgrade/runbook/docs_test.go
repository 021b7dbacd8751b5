package runbook

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// keysOf says where docs/runbook.md has the keys of a mapping: below which line. Those
// of a kind of traffic that are not here stand below what the mapping is called.
var keysOf = map[string]string{
	"the runbook": "## Top level", "old": "## old", "manager": "### old.manager", "a standby of old": "### old.standbys",
	"a cluster of new": "## new", "a standby of new": "### new.standbys", "a database": "## databases", "a set": "### databases.sets",
	"copy": "## copy", "catchup": "## catchup", "verify": "## verify", "cutover": "## cutover", "window": "### cutover.window",
	"sequences": "### cutover.sequences", "an entry of traffic": "### cutover.traffic",
	"an instance of pgbouncer": "`pgbouncer.instances`:", "haproxy": "`haproxy` *(not in this version)*:", "hooks": "## hooks",
	"a hook": "Each hook, those of `traffic` too:",
}

// TestRunbookPage: docs/runbook.md has one entry for every key that the reader
// knows, below the heading of its mapping, and no other.
func TestRunbookPage(t *testing.T) {
	b, err := os.ReadFile("../../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	entry := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([^|]*) \\|([^|]*)\\|([^|]*)\\|$")
	for _, known := range knownKeys {
		heading := keysOf[known.under]
		if heading == "" && slices.ContainsFunc(ofKinds, func(k keysUnder) bool { return k.under == known.under }) {
			heading = "`" + known.under + "`:"
		}
		_, text, found := strings.Cut(string(b), "\n"+heading+"\n")
		if !found || heading == "" {
			t.Errorf("docs/runbook.md has no place for the keys of %s", known.under)
			continue
		}
		text, _, _ = strings.Cut(strings.TrimLeft(text, "\n"), "\n\n")
		if !strings.HasPrefix(text, "| key |") { // words stand between the heading and the table
			_, rest, _ := strings.Cut(string(b), "\n"+heading+"\n")
			_, rest, _ = strings.Cut(rest, "\n| key |")
			text, _, _ = strings.Cut("| key |"+rest, "\n\n")
		}
		var listed []string
		for _, m := range entry.FindAllStringSubmatch(text, -1) {
			listed = append(listed, m[1])
			later := strings.Contains(m[2], "not in this version") || known.under == "haproxy"
			if strings.TrimSpace(m[2]) == "" || !later && (strings.TrimSpace(m[3]) == "" || strings.TrimSpace(m[4]) == "") {
				t.Errorf("%s of %s: its type, meaning or plan is missing", m[1], known.under)
			}
		}
		for _, key := range known.keys {
			if n := len(slices.DeleteFunc(slices.Clone(listed), func(s string) bool { return s != key })); n != 1 {
				t.Errorf("%s of %s has %d entries", key, known.under, n)
			}
		}
		for _, key := range listed {
			if !slices.Contains(known.keys, key) {
				t.Errorf("%s of %s is no key", key, known.under)
			}
		}
	}
}
