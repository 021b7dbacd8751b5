package verify

import "testing"

// v is a version; "" is none. The first letter is what it holds, all of it
// where it lies.
func v(s string) *version {
	if s == "" {
		return nil
	}
	return &version{holds: s[:1], lies: s}
}

func TestSuspect(t *testing.T) {
	type look struct {
		lead, follow string
		stuck        bool
		want         verdict
	}
	repeat := func(n int, l ...look) (out []look) {
		for range n {
			out = append(out, l...)
		}
		return out
	}
	join := func(parts ...[]look) (out []look) {
		for _, p := range parts {
			out = append(out, p...)
		}
		return out
	}
	last := func(l []look, want verdict) []look {
		l[len(l)-1].want = want
		return l
	}
	for name, looks := range map[string][]look{
		"different, at rest":                 {{"a1", "b1", false, undecided}, {"a1", "b1", false, undecided}, {"a1", "b1", false, different}},
		"missing, at rest":                   {{"a1", "", false, undecided}, {"a1", "", false, undecided}, {"a1", "", false, different}},
		"too many, at rest":                  {{"", "a1", false, undecided}, {"", "a1", false, undecided}, {"", "a1", false, different}},
		"arrived late":                       {{"", "a1", false, undecided}, {"a1", "a9", false, equal}},
		"gone meanwhile":                     {{"a1", "", false, undecided}, {"", "", false, equal}},
		"lead rests, follow moves":           {{"a1", "b1", false, undecided}, {"a1", "c2", false, undecided}, {"a1", "d3", false, different}},
		"follow rests, lead moves":           {{"a1", "z1", false, undecided}, {"b2", "z1", false, undecided}, {"c3", "z1", false, different}},
		"toggles, seen alike by luck":        last(repeat(3, look{"a1", "b1", false, undecided}, look{"a2", "b2", false, undecided}, look{"a3", "b3", false, undecided})[:9], undecided),
		"toggles for ever":                   last(repeat(5, look{"a1", "b1", false, undecided}, look{"a2", "b2", false, undecided}), moving),
		"a proof, a move, proofs":            {{"a1", "b1", false, undecided}, {"a1", "b1", false, undecided}, {"c2", "d2", false, undecided}, {"c2", "d2", false, undecided}, {"c2", "d2", false, different}},
		"hot and missing":                    last(repeat(10, look{"a1", "", false, undecided}, look{"b2", "", false, undecided}), different),
		"hot, missing but once":              last(join([]look{{"a1", "b3", false, undecided}}, repeat(4, look{"a1", "", false, undecided}, look{"b2", "", false, undecided}), []look{{"c1", "", false, moving}}), moving),
		"a commit that waits for a standby":  last(repeat(10, look{"a1", "b1", true, undecided}), moving),
		"an insert that waits for a standby": last(repeat(10, look{"", "b1", true, undecided}), moving),
		"one that waited for a moment":       {{"a1", "b1", false, undecided}, {"a1", "b1", true, undecided}, {"a1", "b1", false, undecided}, {"a1", "b1", false, different}},
	} {
		t.Run(name, func(t *testing.T) {
			var s suspect
			for i, l := range looks {
				if got := s.see(state{v(l.lead), v(l.follow)}, l.stuck, patience); got != l.want {
					t.Fatalf("look %d: verdict %d, want %d", i+1, got, l.want)
				}
			}
		})
	}
}

func TestBuckets(t *testing.T) {
	for rows, want := range map[int64]int64{-1: 16, 0: 16, 1000: 16, 1024: 32, 1 << 20: 1 << 15, 1 << 40: 1 << 20} {
		if got := buckets(rows); got != want {
			t.Errorf("%d rows: %d buckets, want %d", rows, got, want)
		}
	}
}

func TestDiffer(t *testing.T) {
	a := map[int64]counted{1: {10, "x"}, 2: {20, "y"}, 3: {fetchLimit, "z"}, 5: {1, "p"}}
	b := map[int64]counted{1: {10, "x"}, 2: {20, "q"}, 4: {1, "r"}, 5: {1, "o"}}
	got, partial := differ(a, b)
	if len(got) != 1 || got[0] != 2 || !partial {
		t.Errorf("got %v, partial %v", got, partial)
	}
	delete(a, 3)
	if got, partial = differ(a, b); len(got) != 3 || partial {
		t.Errorf("got %v, partial %v", got, partial)
	}
}
