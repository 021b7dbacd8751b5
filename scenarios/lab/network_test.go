package lab_test

import (
	"context"
	"os"
	"testing"
	"time"

	"crossfade/scenarios/lab"
	"crossfade/scenarios/lab/labtest"
)

// TestNetwork cuts a primary off from its standby, then from this process, each without the other.
func TestNetwork(t *testing.T) {
	l, ctx := labtest.T(t), limit(t, time.Minute)
	net, err := l.Network(ctx)
	if os.Geteuid() != 0 {
		if err == nil {
			t.Error("a network without root")
		}
		return
	}
	l.Must(err)
	var hosts [3]*lab.Host
	for i, name := range []string{"wacken", "metal", "pool"} {
		hosts[i], err = net.Host(ctx, name)
		l.Must(err)
	}
	wacken := l.Start(lab.Options{Name: "wacken", Major: 17, Host: hosts[0]})
	metal := l.Standby(wacken, "metal", lab.StandbyOptions{Host: hosts[1], Settings: map[string]string{"wal_retrieve_retry_interval": "100ms", "wal_receiver_timeout": "500ms"}})
	l.Ledger(wacken.Conninfo(""))
	pool := l.PgBouncer(lab.PoolOptions{Host: hosts[2], Databases: map[string]lab.Backend{"postgres": {Cluster: wacken}}})
	w := l.Write(pool.Conninfo(""), lab.WriterOptions{Writers: 1, Timeout: 30 * time.Second})
	l.Must(w.Flow(ctx, 10))

	l.Must(net.Cut(ctx, hosts[0], hosts[1]))
	l.Until(metal, "", "SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')")
	l.Must(w.Flow(ctx, 10))
	l.Must(net.Heal(ctx, hosts[0], hosts[1]))
	l.Must(wacken.CaughtUp(ctx, metal))

	l.Must(net.Cut(ctx, nil, hosts[0]))
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if _, err := wacken.Value(short, "", "SELECT 1"); err == nil {
		t.Error("a server that is cut off answers")
	}
	l.Must(w.Flow(ctx, 10)) // by way of the pool
	l.Must(net.Heal(ctx, nil, hosts[0]))
	l.Value(wacken, "", "SELECT 1")

	l.Must(net.Cut(ctx, hosts[2], hosts[0]))
	at := time.Now()
	short, cancel = context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if err := w.Flow(short, 5); err == nil {
		t.Error("rows through a line that is cut")
	}
	l.Must(net.Heal(ctx, hosts[2], hosts[0]))
	l.Must(w.Flow(ctx, 10))
	if gap := w.GapSince(at); gap.Length < 300*time.Millisecond || gap.Length > 5*time.Second {
		t.Errorf("cut for 300 ms, the gap is %v", gap)
	}
	l.Judge(wacken.Conninfo(""), "", w.Stop())
	l.Must(wacken.Kill(ctx))
	l.Must(wacken.Boot(ctx)) // where it was
	l.Value(wacken, "", "SELECT 1")
	if out, err := hosts[1].Command(ctx, wacken.Bin+"/pg_isready", "-h", wacken.Address(), "-p", word(wacken.Conninfo(""), "port")).Output(); err != nil {
		t.Errorf("from another host: %v: %s", err, out)
	}
}
