package proof

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// TestCheckScales: check asks no more of a cluster with 10,000 tables in 100
// schemas, 10,000 sequences and 500 roles than of one with a few, and stays
// small. How long it takes is printed: what it may take depends on the machine.
func TestCheckScales(t *testing.T) {
	long(t)
	const schemas, tables, roles = 100, 100, 500
	const mostMemory = 150 << 20
	settings := map[string]string{"log_statement": "all", "autovacuum": "off"}
	w := newWorld(t, setting{oldSet: settings, newSet: settings, dbs: "  - name: shop\n"})
	few, small := w.checked()

	began := time.Now()
	for i := range schemas {
		w.Exec(w.old, "shop", fmt.Sprintf(`DO $do$ BEGIN
			CREATE SCHEMA s%d;
			FOR t IN 1..%d LOOP
				EXECUTE format('CREATE TABLE s%d.t%%s (id serial PRIMARY KEY, a text NOT NULL, b timestamptz DEFAULT now(), c numeric)', t);
			END LOOP;
		END $do$`, i, tables, i))
	}
	w.Exec(w.old, "", fmt.Sprintf(`DO $do$ BEGIN
		FOR r IN 1..%d LOOP
			EXECUTE format('CREATE ROLE r%%s LOGIN', r);
			IF r > 10 THEN EXECUTE format('GRANT r%%s TO r%%s', r %% 10 + 1, r); END IF;
		END LOOP;
	END $do$`, roles))
	t.Logf("%d tables in %d schemas, as many sequences, %d roles: made in %s", schemas*tables, schemas, roles, time.Since(began).Round(time.Millisecond))

	many, big := w.checked()
	t.Logf("check of %d tables: %s, %d MB, %v statements on old and new; before: %s, %d MB, %v", schemas*tables, big.took, big.memory>>20, many, small.took, small.memory>>20, few)
	if many != few {
		t.Errorf("%v statements with %d tables, %v with a few", many, schemas*tables, few)
	}
	if big.memory > mostMemory {
		t.Errorf("%d MB", big.memory>>20)
	}
}

// cost is what one command took.
type cost struct {
	took   time.Duration
	memory int64 // bytes, at its peak
}

// checked runs check and counts the statements that it sent to old and to new.
func (w *world) checked() (statements [2]int, c cost) {
	w.t.Helper()
	before := [2]int{w.sent(w.old), w.sent(w.new)}
	cmd := exec.CommandContext(w.t.Context(), w.exe, "check", "--json", "-f", w.book())
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	began := time.Now()
	err := cmd.Run()
	c.took = time.Since(began).Round(time.Millisecond)
	if e := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &e) || e.ExitCode() != 3) {
		w.t.Fatalf("%v\n%s%s", err, out.String(), errs.String())
	}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		c.memory = usage.Maxrss << 10
	}
	for _, f := range (ran{stdout: out.String()}).lines("finding") {
		if f["id"] == "check-incomplete" {
			w.t.Errorf("%v", f)
		}
	}
	return [2]int{w.sent(w.old) - before[0], w.sent(w.new) - before[1]}, c
}

var sentLine = regexp.MustCompile(`crossfade up LOG:  (statement|execute )`)

// sent is how many statements of the tool a server has logged.
func (w *world) sent(c *lab.Cluster) int {
	w.t.Helper()
	end := fmt.Sprintf("end of %d", time.Now().UnixNano())
	w.Value(c, "", "SELECT '"+end+"'")
	for i := 0; i < 500 && !strings.Contains(c.Log(), end); i++ {
		time.Sleep(20 * time.Millisecond)
	}
	return len(sentLine.FindAllString(c.Log(), -1))
}
