package proof

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"crossfade/scenarios/lab"
)

// TestTwice: every plan, run a second time, does nothing: it ends with 0, no
// step is begun but those that only look, and neither server is sent a write or
// a DDL.
func TestTwice(t *testing.T) {
	told := map[string]string{"log_statement": "all", "log_replication_commands": "on", "log_destination": "stderr,jsonlog"}
	w := newWorld(t, setting{sql: planTables, oldSet: told, newSet: told, dbs: planSets})
	for _, args := range [][]string{
		{"prepare"}, {"abort", "--yes"}, {"prepare"}, {"cutover", "--yes"}, {"rollback", "--yes"}, {"cutover", "--yes"}, {"finish", "--yes"}, {"finish", "--yes", "--reopen-old"},
	} {
		w.do(0, args...)
		w.twice(args)
		if t.Failed() {
			t.FailNow()
		}
	}
}

// twice runs a plan whose work has just been done.
func (w *world) twice(args []string) {
	w.t.Helper()
	looks := []string{"check", "compare/shop", "compare/side"}
	from := map[*lab.Cluster]int64{w.old: w.logged(w.old), w.new: w.logged(w.new)}
	before := [2]string{w.footprint(w.old), w.footprint(w.new)}
	r := w.do(0, append(args, "--json")...)
	skipped := 0
	for _, e := range r.lines("event") {
		switch {
		case e["kind"] == "skip":
			skipped++
		case !slices.Contains(looks, e["step"].(string)):
			w.t.Errorf("%v, done already: %v of step %v", args, e["kind"], e["step"])
		}
	}
	sent := 0
	for side, c := range map[string]*lab.Cluster{"old": w.old, "new": w.new} {
		for _, a := range w.since(c, from[c]) {
			sent++
			for _, part := range statements(a.sql) {
				if !reads(part) && !passing(part) {
					w.t.Errorf("%v, done already, sends %s: %s", args, side, short(part))
				}
			}
		}
	}
	for i, c := range []*lab.Cluster{w.old, w.new} {
		if d := diff(before[i], w.footprint(c)); d != "" {
			w.t.Errorf("%v, done already, changed %s:\n%s", args, c.Name, d)
		}
	}
	w.t.Logf("%v again: %d steps skipped, %d statements, all of which read", args, skipped, sent)
	if sent == 0 {
		w.t.Errorf("%v again: nothing at all was asked: the log is not what it should be", args)
	}
}

// logged is how much a server has written of its log.
func (w *world) logged(c *lab.Cluster) int64 {
	w.t.Helper()
	st, err := os.Stat(filepath.Join(c.Home, "log", "server.json"))
	w.Must(err)
	return st.Size()
}

// since are the statements of the tool that a server has logged since.
func (w *world) since(c *lab.Cluster, from int64) []act {
	w.t.Helper()
	f, err := os.Open(filepath.Join(c.Home, "log", "server.json"))
	w.Must(err)
	defer func() { _ = f.Close() }() // it was read only
	_, err = f.Seek(from, io.SeekStart)
	w.Must(err)
	b, err := io.ReadAll(f)
	w.Must(err)
	var all []act
	for line := range strings.Lines(string(b)) {
		if !strings.HasSuffix(line, "\n") {
			break // not written to its end yet
		}
		var e struct {
			App     string `json:"application_name"`
			DB      string `json:"dbname"`
			Message string `json:"message"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			w.t.Fatalf("%s: %v: %s", c.Name, err, line)
		}
		if said := spoken.FindStringSubmatch(e.Message); said != nil && ours(e.App) {
			all = append(all, act{database: e.DB, sql: said[1], app: e.App})
		}
	}
	return all
}
