package schema_test

import (
	"math"
	"math/big"
	"testing"

	"crossfade/schema"
	"crossfade/upgrade/pg"
)

func TestAhead(t *testing.T) {
	seq := func(last, inc, lo, hi int64) schema.Sequence {
		return schema.Sequence{Last: &last, Called: true, Increment: inc, Min: lo, Max: hi}
	}
	for _, c := range []struct {
		says   string
		s      schema.Sequence
		margin int64
		want   int64
	}{
		{"plain", seq(10, 1, 1, math.MaxInt64), 1000, 1010},
		{"no margin", seq(10, 1, 1, math.MaxInt64), 0, 10},
		{"by tens", seq(10, 10, 1, math.MaxInt64), 5, 60},
		{"down", seq(-10, -3, -100000, -1), 100, -310},
		{"nearly used up: half of what is left", seq(32760, 1, 1, 32767), 1000, 32763},
		{"used up", seq(32767, 1, 1, 32767), 1000, 32767},
		{"one left stays", seq(32766, 1, 1, 32767), 1000, 32766},
		{"nearly used up downwards", seq(-95, -1, -100, -1), 1000, -97},
		{"at the end of int64", seq(math.MaxInt64-10, 1, 1, math.MaxInt64), math.MaxInt64, math.MaxInt64 - 5},
		{"at the other end", seq(math.MinInt64+10, -1, math.MinInt64, -1), math.MaxInt64, math.MinInt64 + 5},
		{"the whole range of int64", seq(math.MinInt64, 1, math.MinInt64, math.MaxInt64), math.MaxInt64, -1},
		{"big steps", seq(0, math.MaxInt64, 0, math.MaxInt64), 7, 0},
		{"biggest step down", seq(0, math.MinInt64, math.MinInt64, 0), 7, 0},
		{"beyond its bounds after ALTER", seq(500, 1, 1, 100), 10, 500},
	} {
		if got, called := c.s.Ahead(c.margin); got != c.want || !called {
			t.Errorf("%s: %d, called %t, want %d", c.says, got, called, c.want)
		}
	}
	s := seq(77, 1, 1, 1000)
	s.Called = false
	if got, called := s.Ahead(100); got != 77 || called {
		t.Errorf("not called: %d, %t; want it as it is", got, called)
	}
}

func FuzzAhead(f *testing.F) {
	f.Add(int64(1), int64(1), int64(1), int64(math.MaxInt64), int64(1000), true)
	f.Add(int64(math.MinInt64), int64(-1), int64(math.MinInt64), int64(-1), int64(math.MaxInt64), true)
	f.Add(int64(math.MaxInt64), int64(math.MinInt64), int64(math.MinInt64), int64(math.MaxInt64), int64(math.MaxInt64), false)
	f.Fuzz(func(t *testing.T, last, inc, lo, hi, margin int64, called bool) {
		if inc == 0 || lo > hi || last < lo || last > hi {
			t.Skip()
		}
		s := schema.Sequence{Schema: "s", Name: "q", Last: &last, Called: called, Increment: inc, Min: lo, Max: hi}
		v, c := s.Ahead(margin)
		if v < lo || v > hi {
			t.Fatalf("%d is outside of %d to %d", v, lo, hi)
		}
		if c != called {
			t.Fatal("is_called changed")
		}
		gap := new(big.Int).Sub(big.NewInt(v), big.NewInt(last))
		if gap.Sign() != 0 && gap.Sign() != big.NewInt(inc).Sign() {
			t.Fatalf("%d is lower than %d, step %d", v, last, inc)
		}
		if new(big.Int).Rem(gap, big.NewInt(inc)).Sign() != 0 {
			t.Fatalf("%d is out of step with %d, step %d", v, last, inc)
		}
		got := s
		got.Last = &v
		if stale := schema.Stale([]schema.Sequence{s}, []schema.Sequence{got}, max(margin, 0)); len(stale) != 0 {
			t.Fatalf("what was just set to %d counts as stale (last %d, step %d, margin %d)", v, last, inc, margin)
		}
	})
}

func TestStale(t *testing.T) {
	at := func(last int64, called bool) schema.Sequence {
		return schema.Sequence{Schema: "s", Name: "q", Last: &last, Called: called, Increment: 1, Min: 1, Max: 1 << 40}
	}
	for _, c := range []struct {
		says      string
		want, got schema.Sequence
		stale     bool
	}{
		{"equal", at(5, true), at(5, true), false},
		{"ahead", at(5, true), at(105, true), false},
		{"too far ahead: it was restarted on old", at(5, true), at(106, true), true},
		{"behind", at(6, true), at(5, true), true},
		{"called once less", at(5, true), at(5, false), true},
		{"the same next value", at(5, true), at(6, false), false},
		{"not called", at(77, false), at(77, false), false},
		{"not called, but new is lower", at(77, false), at(1, false), true},
	} {
		got := len(schema.Stale([]schema.Sequence{c.want}, []schema.Sequence{c.got}, 100)) > 0
		if got != c.stale {
			t.Errorf("%s: stale %t", c.says, got)
		}
	}
	if len(schema.Stale([]schema.Sequence{at(5, true)}, nil, 100)) != 1 {
		t.Error("a sequence that new lacks is not stale")
	}
}

// sequencesGoOn sets new's sequences; what a program gets next is the proof.
func sequencesGoOn(t *testing.T, old, to *pg.Server) {
	t.Helper()
	from, err := schema.ReadSequences(t.Context(), connect(t, old))
	must(t, err)
	conn := connect(t, to)
	sql, n := schema.SetSequences(from, 0)
	if n != len(from) || n < 9 {
		t.Errorf("%d of %d sequences are set", n, len(from))
	}
	exec(t, conn, sql)
	got, err := schema.ReadSequences(t.Context(), conn)
	must(t, err)
	if stale := schema.Stale(from, got, 0); len(stale) > 0 {
		t.Errorf("stale: %v", stale)
	}
	for _, s := range from {
		if want, got := next(t, old, s), next(t, to, s); want != got {
			t.Errorf("%s gives %s on old and %s on new", s, want, got)
		}
	}
}

func next(t testing.TB, s *pg.Server, q schema.Sequence) string {
	t.Helper()
	v, err := cluster(t, majorOf(s)).Value(t.Context(), s.Database(), "SELECT nextval("+pg.Literal(q.SQL())+")")
	if err != nil {
		return err.Error()
	}
	return v
}

// What the tool's role may not read is reported, and is no error.
func TestSequencesThatMayNotBeRead(t *testing.T) {
	for _, major := range []int{13, 15, 17, 18} {
		s := hard(t, major)
		conn, err := s.Connect(t.Context())
		must(t, err)
		exec(t, conn, "SET SESSION AUTHORIZATION hard_app")
		all, err := schema.ReadSequences(t.Context(), conn)
		must(t, err)
		must(t, conn.Close(t.Context()))
		readable := ""
		for _, q := range all {
			if q.Last != nil {
				readable += q.String() + " "
			}
		}
		if len(all) < 9 || readable != "shop.customers_id_seq shop.free_seq shop.orders_id_seq " {
			t.Errorf("on %d: %d sequences, readable %s", major, len(all), readable)
		}
		if _, n := schema.SetSequences(all, 0); n != 3 {
			t.Errorf("%d are set", n)
		}
	}
}
