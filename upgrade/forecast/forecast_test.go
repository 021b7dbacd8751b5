package forecast

import (
	"math"
	"testing"
	"time"

	"crossfade/upgrade/flow"
)

// shop is one table of 10 GB that was sampled at 100 MB a second.
func shop() Facts {
	return Facts{
		Window: 30 * time.Second, WAL: 300 << 20, TripOld: time.Millisecond, TripNew: time.Millisecond, ProbeOld: usualProbe, ProbeNew: usualProbe,
		Jobs: 4, IndexJobs: 2, Chunk: 1 << 30, MaxWAL: 50 << 30, MaxBlocked: 5 * time.Second, LockTimeout: 400 * time.Millisecond, Verify: true,
		Databases: []DatabaseFacts{{
			Name: "shop", Tables: 1, Sequences: 1, Columns: 4, Changed: 30_000,
			Sets: []SetFacts{{Name: "main", Tables: []TableFacts{{
				Name: "public.orders", Bytes: 10e9, IndexBytes: 3e9, Rows: 100e6, Updates: 1, Read: &Reading{1e9, 10 * time.Second},
				Sorts: []Sorting{{"orders_pkey", 3e9, 100_000, 20 * time.Millisecond}},
			}}}},
		}},
		Steps: []StepFacts{
			{StepKey: StepKey{"prepare", "copy/shop"}, Effects: 4},
			{StepKey: StepKey{"prepare", "constraints/shop"}, Effects: 100},
			{StepKey: StepKey{"prepare", "catchup/shop"}, Effects: 1},
			{StepKey: StepKey{"prepare", "verify/shop"}},
			{StepKey: StepKey{"cutover", "barrier"}, Effects: 3, Blocks: true, Cost: flow.Cost{Base: 2 * time.Millisecond, Trips: 5, Transactions: true}},
			{StepKey: StepKey{"cutover", "close"}, Effects: 3, Blocks: true, Cost: flow.Cost{Base: 40 * time.Millisecond, Trips: 8}},
		},
	}
}

func value(t *testing.T, f Forecast, id, object string) float64 {
	t.Helper()
	g := f.Figure(id, object)
	if g == nil || !g.Known {
		t.Fatalf("%s %s is not known", id, object)
	}
	return g.Value
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > want*0.02 {
		t.Errorf("%s is %g, want %g", what, got, want)
	}
}

// TestOf computes by hand what the formulas say.
func TestOf(t *testing.T) {
	f := Of(shop())
	near(t, "copy-rate", value(t, f, "copy-rate", ""), 100e6)
	// 100 s of reading, 200 s of loading by 4 jobs are 50 s; the index sorts
	// 1000 times the sample, 26.6/16.6 deeper, and writes 10 s of pages after them.
	index := 1000*0.020*math.Log2(100e6)/math.Log2(100e3) + 10
	near(t, "copy", value(t, f, "copy", "shop"), 200.0/4+index)
	near(t, "indexes", value(t, f, "indexes", "shop"), index/2)
	near(t, "wal-rate", value(t, f, "wal-rate", ""), 10<<20)
	kept := 200.0/4 + index + 100*(perEffect["constraints"].Seconds()+0.001)
	near(t, "wal-kept", value(t, f, "wal-kept", ""), kept*(10<<20))
	// 1000 changes a second of 50 µs keep the worker busy for a twentieth.
	near(t, "catch-up", value(t, f, "catch-up", "shop"), 1000*kept*50e-6/0.95)
	near(t, "verify", value(t, f, "verify", "shop"), 100*movingLooks*comparePerRead/4)
	if got := f.Steps[StepKey{"prepare", "copy/shop"}].Seconds(); math.Abs(got-(50+index)) > 1 {
		t.Errorf("the step copy/shop takes %g", got)
	}
	for id, what := range map[string]bool{"wal-kept": false, "outage": false, "catch-up": false} {
		for _, g := range f.Figures {
			if g.ID == id && g.Exceeds != what {
				t.Errorf("%s exceeds: %t", id, g.Exceeds)
			}
		}
	}
	for _, g := range f.Figures {
		if g.Formula == "" || g.Known && len(g.Terms) == 0 {
			t.Errorf("%s has no formula or no terms", g.ID)
		}
	}
}

// TestOfShares: where everything runs on one machine its processors are what
// there is to share.
func TestOfShares(t *testing.T) {
	one := shop()
	one.Cores = 2
	if got, alone := value(t, Of(one), "copy", "shop"), value(t, Of(shop()), "copy", "shop"); got < 1.5*alone {
		t.Errorf("the copy takes %g s on two shared processors, %g s on three machines", got, alone)
	}
	slow := shop()
	slow.ProbeNew *= 2
	if got, alone := value(t, Of(slow), "copy", "shop"), value(t, Of(shop()), "copy", "shop"); got < 1.8*alone {
		t.Errorf("the copy takes %g s into a server of half the speed, %g s otherwise", got, alone)
	}
}

// TestOfBeyond: what the runbook does not allow is reported, and what has no end.
func TestOfBeyond(t *testing.T) {
	f := shop()
	f.MaxWAL = 100 << 20
	f.MaxBlocked = 10 * time.Millisecond
	f.Oldest, f.Writers = time.Minute, 3
	f.Databases[0].Changed = 30 * 30_000
	got := Of(f)
	for _, id := range []string{"wal-kept", "outage"} {
		if g := got.Figure(id, ""); !g.Exceeds || g.Says == "" {
			t.Errorf("%s does not exceed", id)
		}
	}
	if g := got.Figure("catch-up", "shop"); !g.Never || !g.Exceeds {
		t.Errorf("30,000 changes a second are caught up with in %g s", g.Value)
	}
	// A table without a key is read for each change.
	f = shop()
	f.Databases[0].Sets[0].Tables[0].Scanned = true
	if g := Of(f).Figure("catch-up", "shop"); !g.Never {
		t.Errorf("1,000 changes a second of a table of 100 million rows without a key are caught up with in %g s", g.Value)
	}
}

// TestOfNothing: what was not measured is not known, and is no panic.
func TestOfNothing(t *testing.T) {
	f := shop()
	f.Window, f.WAL, f.TripOld, f.TripNew, f.ProbeNew, f.ProbeOld = 0, 0, 0, 0, 0, 0
	f.Databases[0].Sets[0].Tables[0].Read, f.Databases[0].Sets[0].Tables[0].Sorts = nil, nil
	f.Missing = []string{"old: connection refused"}
	got := Of(f)
	for _, g := range got.Figures {
		switch g.ID {
		case "copy-rate", "copy", "wal-rate", "wal-kept", "catch-up", "outage":
			if g.Known {
				t.Errorf("%s is known: %g %s", g.ID, g.Value, g.Unit)
			}
		}
		if math.IsNaN(g.Value) || math.IsInf(g.Value, 0) {
			t.Errorf("%s is %g", g.ID, g.Value)
		}
	}
	if got.Steps[StepKey{"prepare", "copy/shop"}] != 0 {
		t.Error("the step copy/shop has a forecast")
	}
	if n := len(Of(Facts{}).Figures); n == 0 {
		t.Error("nothing at all gives no figures")
	}
}
