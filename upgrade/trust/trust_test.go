package trust

import (
	"encoding/json"
	"testing"

	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
)

// TestJudge: new may be believed after a failover of old only where it has nothing
// that old's new primary never had.
func TestJudge(t *testing.T) {
	t.Parallel()
	at := func(l pg.LSN) *pg.LSN { return &l }
	for name, c := range map[string]struct {
		fork             pg.LSN
		point            pg.LSN
		origin           *pg.LSN
		followed, verify bool
		again, check     bool
	}{
		"applied before the fork":              {fork: 100, point: 50, origin: at(90)},
		"applied up to the fork":               {fork: 100, point: 50, origin: at(100)},
		"applied beyond the fork":              {fork: 100, point: 50, origin: at(101), again: true},
		"copied beyond the fork":               {fork: 100, point: 101, again: true},
		"no such ancestor":                     {fork: 0, point: 50, origin: at(60), again: true},
		"followed, rows are compared":          {fork: 100, point: 50, origin: at(200), followed: true, verify: true, check: true},
		"followed, rows are not compared":      {fork: 100, point: 50, origin: at(200), followed: true, again: true},
		"followed, with nothing past the fork": {fork: 100, point: 50, origin: at(100), followed: true},
	} {
		again, check := forked{found: true, at: c.fork}.judge(&link.Position{Name: "cf_up_x", Origin: c.origin}, madeLink{point: c.point}, c.followed, c.verify)
		if (again != "") != c.again || (check != "") != c.check {
			t.Errorf("%s: to be copied again %q, to be compared %q", name, again, check)
		}
	}
}

// TestStoredName: the name of a table is read as it was written, also one that is no
// UTF-8, which JSON cannot hold.
func TestStoredName(t *testing.T) {
	t.Parallel()
	for _, n := range []storedName{{Schema: "public", Name: "orders"}, {Schema: `a"b`, Name: "ü"}, {Schema: "public", Name: "caf\xe9"}} {
		b, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		var got storedName
		if err := json.Unmarshal(b, &got); err != nil || got != n {
			t.Errorf("%q is read as %q (%v)", n, got, err)
		}
	}
}
