package main

import (
	"strings"
	"testing"
)

func TestFaults(t *testing.T) {
	const said = `=== RUN   TestIsolation
=== RUN   TestIsolation/close_tool-new
    isolation_test.go:112: cut tool-new at close: it was still trying after 12s; old takes writes: false, new: false
    isolation_test.go:123: cut tool-new at close: exit 5 after 14.2s: hint: old serves again
=== RUN   TestIsolation/open_all
    isolation_test.go:123: cut all at open: exit 1 after 14.2s: crossfade: something
    isolation_test.go:130: cut all at open: none took writes; cutover again: exit 0, writable new
=== RUN   TestCutoverKilled
    kill_test.go:183: cutover killed at barrier: phase cutover, writable old, longest gap 1.2s
    kill_test.go:186: rollback killed at open: phase cutover, writable none
    kill_test.go:183: rollback killed at barrier: phase cutover, writable new, longest gap 30ms
    kill_test.go:186: cutover killed at open: phase cutover, writable none
=== RUN   TestAfterOpen
    afteropen_test.go:195: after open: a pooler is dead at traffic/point of cutover: exit 6, 310ms
    afteropen_test.go:195: after open: the open side takes no connections at traffic/point of rollback: exit 6, nobody can be served
    afteropen_test.go:195: after open: a pooler is dead at done of rollback: exit 0, 20ms
=== RUN   TestHumanError
=== RUN   TestHumanError/a_role_is_made
    human_test.go:134: seen after 310ms
=== RUN   TestHumanError/a_table_is_truncated_on_old
=== RUN   TestMonkey
    monkey_test.go:36: seed 4: 5 rounds, 900 rows, 3000 values, 700 probes, 4 switches, longest wait 310ms, faults: old killed 1, pool2 frozen 2; 0 violations
    monkey_test.go:36: seed 5: 6 rounds, 800 rows, 2000 values, 600 probes, 5 switches, longest wait 1.2s, faults: old killed 2; 0 violations
`
	var out strings.Builder
	if err := faults(strings.NewReader(said), &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| step | tool-new | all |", "| `close` | exit 5, old |  |", "| `open` |  | exit 1, none; `cutover` again: new |",
		"| `barrier` | cutover, old, 1.2s | cutover, new, 30ms |\n| `open` | cutover, none | cutover, none |",
		"| what | `traffic/point` | `done` |", "| a pooler is dead | exit 6, 310ms | exit 0, 20ms |\n| the open side takes no connections | exit 6, nobody can be served |  |",
		"| 4 | 5 | 900 | 3000 | 700 | 4 | 310ms | 0 |\n| 5 | 6 | 800 | 2000 | 600 | 5 | 1.2s | 0 |",
		"| old killed | 3 |\n| pool2 frozen | 2 |", "| a role is made | 310ms | – |", "| a table is truncated on old | nothing is missing | – |",
	} {
		if !strings.Contains(out.String(), want+"\n") {
			t.Errorf("no line %q in\n%s", want, out.String())
		}
	}
	out.Reset()
	if err := faults(strings.NewReader(said+"    --- FAIL: TestIsolation/open_all (3.00s)\n"), &out); err == nil || !strings.Contains(out.String(), "**Failed: TestIsolation/open_all**") {
		t.Errorf("a test that failed: %v\n%s", err, out.String())
	}
	if err := faults(strings.NewReader("ok\n"), &out); err == nil {
		t.Error("nothing was read, and that is no error")
	}
}
