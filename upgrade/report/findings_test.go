package report

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestFindingsText(t *testing.T) {
	all := []Finding{
		{ID: "budget", Level: Note, On: "old", Object: "old", Says: "there is room", Grid: &Grid{
			Columns: []string{"on old", "have", "used", "needed", "left"},
			Rows:    [][]string{{"replication slots", "10", "2", "1", "7"}, {"WAL senders", "10", "1", "2", "7"}},
		}},
		{ID: "large-objects", Level: Block, On: "old", Database: "shop", Says: "3 large objects", Accepted: true, Acceptable: true},
		{
			ID: "wal-level", Level: Block, On: "old", Object: "wal_level", Says: "wal_level is replica and must be logical: no slot can be made",
			Fix: "ALTER SYSTEM SET wal_level = 'logical';\nrestart the old server",
		},
		{ID: "invalid-index", Level: Warn, On: "old", Database: "shop", Object: "public.i", Says: "index public.i is not valid", Fix: "DROP INDEX public.i;", Acceptable: true},
	}
	for i := range 30 {
		name := fmt.Sprintf("public.log_%02d", i)
		all = append(all, Finding{
			ID: "replica-identity", Level: Block, On: "old", Database: "shop", Object: name,
			Says: "table " + name + " cannot be published: it has no primary key. Every UPDATE and DELETE of it by the application would fail from the moment the publication exists",
			Fix:  "ALTER TABLE ONLY \"public\".\"" + name + "\" REPLICA IDENTITY FULL;\nor in the runbook, for the time of the upgrade: identity: {" + name + ": full}; best is a primary key, which needs a column that tells the rows apart",
		})
	}
	var b bytes.Buffer
	for _, fs := range [][]Finding{all, nil} {
		if err := Findings(&b, fs, false); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "findings.golden", b.Bytes())
	for line := range strings.Lines(b.String()) {
		if n := utf8.RuneCountInString(strings.TrimSpace(line)); n > textWidth && !strings.HasSuffix(strings.TrimSpace(line), ";") {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	var full bytes.Buffer
	if err := Findings(&full, all, true); err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.Fix != "" && !strings.Contains(full.String(), strings.Split(f.Fix, "\n")[0]) {
			t.Errorf("-v does not show %s %s", f.ID, f.Object)
		}
	}
}
