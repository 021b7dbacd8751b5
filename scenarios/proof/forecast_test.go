package proof

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// TestForecastHolds: what plan says of a copy, of its indexes and of the WAL
// that is kept meanwhile is near what then comes of it.
func TestForecastHolds(t *testing.T) {
	t.Run("300 MB", func(t *testing.T) { forecastHolds(t, 18) })
	t.Run("1 GB", func(t *testing.T) { long(t); forecastHolds(t, 68) })
}

func forecastHolds(t *testing.T, scale int) {
	w := newWorld(t, setting{
		extra: "verify: {mode: \"off\"}\n", dbs: "  - {name: shop}\n",
		newSet: map[string]string{"log_min_duration_statement": "10", "log_destination": "stderr,jsonlog"},
	})
	w.Must(w.old.PgbenchInit(t.Context(), "shop", scale))
	w.Exec(w.old, "shop", "ALTER TABLE pgbench_history REPLICA IDENTITY FULL", "CREATE INDEX ON pgbench_accounts (bid, abalance, aid)", "VACUUM ANALYZE", "CHECKPOINT")
	bench, err := w.old.Pgbench(t.Context(), w.old.Conninfo("shop"), lab.PgbenchOptions{Clients: 2, Rate: 100})
	w.Must(err)
	r := w.do(0, "plan", "--only", "prepare", "--json", "--sample", "5s")
	told := map[string]float64{}
	for _, f := range r.lines("forecast") {
		if v, ok := f["value"].(float64); ok && (f["object"] == "shop" || f["object"] == nil) {
			told[f["id"].(string)] = v
		}
	}
	kept := w.watchKept()
	r = w.do(0, "prepare", "--json")
	most := kept()
	if _, err := bench.Stop(); err != nil {
		t.Error(err)
	}
	copied, again := 0.0, w.expected("copy/shop")
	for _, e := range r.lines("event") {
		if e["step"] == "copy/shop" && e["kind"] == "end" {
			copied = e["seconds"].(float64)
		}
	}
	for _, c := range []struct {
		what         string
		told, actual float64
		other        float64 // what prepare itself said a moment before; 0: nothing
		unit         float64
		of           string
	}{
		{"copy", told["copy"], copied, again, 1, "s"},
		{"indexes", told["indexes"], w.building(), 0, 1, "s"},
		{"WAL kept", told["wal-kept"], most, 0, 1 << 20, "MB"},
	} {
		ratio := c.told / c.actual
		t.Logf("%-8s forecast %.1f %s, actual %.1f %s: ratio %.2f (prepare itself: %.1f)", c.what, c.told/c.unit, c.of, c.actual/c.unit, c.of, ratio, c.other)
		if other := c.other / c.actual; !within(ratio) && !within(other) {
			t.Errorf("%s: the forecast is %.2f times what came of it", c.what, ratio)
		}
	}
}

// within is what a machine allows that is busy with both servers, their load
// and other tests. What was seen lies between a half and two and a half: one
// session that samples has a smaller share of a busy processor than the many
// that copy.
func within(ratio float64) bool { return ratio > 1.0/4 && ratio < 4 }

// watchKept watches how much WAL old keeps for the links; the function that it
// returns ends that and tells the most.
func (w *world) watchKept() func() float64 {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	most := make(chan float64)
	conn, err := w.old.Connect(ctx, "")
	w.Must(err)
	go func() {
		defer close(most)
		top := 0.0
		for ctx.Err() == nil {
			var now float64
			const kept = `SELECT coalesce(max(pg_current_wal_insert_lsn() - restart_lsn), 0)::float8 FROM pg_replication_slots WHERE slot_name LIKE 'cf\_%'`
			if err := conn.QueryRow(ctx, kept).Scan(&now); err == nil {
				top = max(top, now)
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
		most <- top
	}()
	return func() float64 {
		cancel()
		top := <-most
		_ = conn.Close(context.WithoutCancel(ctx)) // its statement may have been cut off
		return top
	}
}

// expected is what the journal says was expected of a step of prepare.
func (w *world) expected(step string) float64 {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.dir, "up.journal"))
	w.Must(err)
	for line := range strings.Lines(string(b)) {
		var rec struct {
			Step, Kind string
			Forecast   float64 `json:"forecast_seconds"`
		}
		w.Must(json.Unmarshal([]byte(line), &rec))
		if rec.Step == step && rec.Kind == "begin" {
			return rec.Forecast
		}
	}
	return 0
}

var lasted = regexp.MustCompile(`(?s)\Aduration: ([0-9.]+) ms  statement: .*(ADD CONSTRAINT|CREATE (UNIQUE )?INDEX)`)

// building is how long new was busy with building indexes, by its own log.
func (w *world) building() float64 {
	w.t.Helper()
	f, err := os.Open(filepath.Join(w.new.Home, "log", "server.json"))
	w.Must(err)
	defer func() { _ = f.Close() }() // it was only read
	sum := 0.0
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var e struct{ Message string }
		w.Must(json.Unmarshal(lines.Bytes(), &e))
		if m := lasted.FindStringSubmatch(e.Message); m != nil {
			ms, err := strconv.ParseFloat(m[1], 64)
			w.Must(err)
			sum += ms / 1000
		}
	}
	return sum
}
