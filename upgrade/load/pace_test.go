package load

import (
	"io"
	"testing"
	"time"

	"crossfade/scenarios/lab"
	"crossfade/schema"
)

// TestPaceKeepsItsRate: whatever comes in, and with breaks in between, what is
// let through in any time is within a tenth of the rate.
func TestPaceKeepsItsRate(t *testing.T) {
	const rate = 10 << 20
	for _, piece := range []int64{100, piece, 1 << 20} {
		p := NewPace(rate)
		now := time.Unix(1000, 0)
		began, sent := now, int64(0)
		for now.Sub(began) < 5*time.Second {
			// Two pipes: the second one's piece comes while the first one waits.
			a, b := p.take(now, piece), p.take(now, piece)
			sent += 2 * piece
			if b.Before(a) {
				t.Fatalf("pieces of %d: %v, then %v", piece, a, b)
			}
			now = now.Add(max(b.Sub(now), 0) + time.Microsecond)
		}
		got := float64(sent) / now.Sub(began).Seconds()
		if got > 1.1*rate || got < 0.9*rate {
			t.Errorf("pieces of %d: %.0f bytes a second, the limit is %d", piece, got, rate)
		}
		// A break is no credit to be used up at once.
		now = now.Add(time.Hour)
		began, sent = now, 0
		for p.take(now, piece).Before(now) {
			sent += piece
		}
		if most := int64(rate * slack.Seconds()); sent > most+piece {
			t.Errorf("pieces of %d: %d bytes at once after a break, at most %d were to come", piece, sent, most)
		}
	}
	if NewPace(0) != nil {
		t.Error("no limit is a pace")
	}
}

// TestLimit: two jobs together, chunks and whole tables, take no more off old
// than the limit.
func TestLimit(t *testing.T) {
	w := newWorld(t, 15, 17, lab.Options{},
		"CREATE TABLE a (id int PRIMARY KEY, t text); INSERT INTO a SELECT g, repeat('a', 100) FROM generate_series(1, 20000) g",
		"CREATE TABLE b (id int PRIMARY KEY, t text); INSERT INTO b SELECT g, repeat('b', 100) FROM generate_series(1, 40000) g")
	w.restore()
	sets := []schema.Set{{Name: "main", Tables: w.tables(nil)}}
	w.publish(sets...)
	var wire int64
	conn, err := w.old.Connect(t.Context(), db)
	w.lab.Must(err)
	for _, table := range []string{"a", "b"} {
		_, err := conn.PgConn().CopyTo(t.Context(), &counter{io.Discard, func(n int64) error { wire += n; return nil }}, "COPY "+table+" TO STDOUT (FORMAT binary)")
		w.lab.Must(err)
	}
	w.lab.Must(conn.Close(t.Context()))
	const limit = 4 << 20
	o := w.options(sets...)
	o.Chunk, o.Pace = 4<<20, NewPace(limit)
	began := time.Now()
	w.must(o)
	if least := time.Duration(float64(wire) / limit / 1.1 * float64(time.Second)); time.Since(began) < least {
		t.Errorf("%d bytes in %v, the limit is %d a second", wire, time.Since(began), limit)
	}
	w.same(sets[0].Tables)
}
