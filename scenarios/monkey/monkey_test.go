package monkey_test

import (
	"os"
	"testing"
	"time"

	"crossfade/scenarios"
	"crossfade/scenarios/lab/labtest"
	"crossfade/scenarios/monkey"
)

// TestMonkey plays fixed seeds: two short ones, or with CROSSFADE_ALL ten. The
// last line of each says what was seen, and cmd/lab writes it into docs/faults.md.
func TestMonkey(t *testing.T) {
	seeds, long := []uint64{30, 696}, 12*time.Second
	if os.Getenv("CROSSFADE_ALL") != "" {
		seeds, long = []uint64{1, 2, 3, 4, 5, 6, 7, 8, 30, 696}, 2*time.Minute
	}
	labtest.Need(t, 15, 18)
	labtest.Program(t, "pgbouncer")
	exe, err := scenarios.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, seed := range seeds {
		r, err := monkey.Run(t.Context(), monkey.Options{Seed: seed, For: long, Crossfade: exe, Out: t.Output()})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		t.Log(r.Figures())
		for _, v := range r.Violations {
			t.Errorf("seed %d broke %s; again: bin/lab monkey --seed %d --for %s; evidence in %s", seed, v, seed, long, r.Evidence)
		}
	}
}
