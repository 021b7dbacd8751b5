package scenarios

import (
	"os"
	"testing"

	"crossfade/scenarios/lab/labtest"
)

// always are the scenarios that every test run plays; CROSSFADE_ALL=1 plays all.
var always = []string{"single"}

// A scenario passes when everything that it says is true. What it proves stands
// in its YAML, and in Play.
func TestPlay(t *testing.T) {
	labtest.Need(t, 15, 18)
	binary, err := Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	names := always
	if os.Getenv("CROSSFADE_ALL") != "" {
		names = Names()
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			s, err := Read(name)
			if err != nil {
				t.Fatal(err)
			}
			result, err := Play(t.Context(), s, Options{Crossfade: binary, Out: t.Output()})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range result.Crossings {
				t.Logf("%s %d→%d: outage %.0f ms", c.Command, c.From, c.To, c.Outage*1000)
			}
		})
	}
}
