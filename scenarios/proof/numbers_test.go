package proof

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// numbers are clients that use one sequence and nothing else, on every way to
// either side, whatever the upgrade does. They know nothing of it: a value that one
// of them was given is theirs.
type numbers struct {
	t    testing.TB
	stop context.CancelFunc
	all  sync.WaitGroup

	mu    sync.Mutex
	given []given
}

// beginners are clients that come for one value each, with connections that take a
// second to begin after they have read the database's settings.
func (n *numbers) beginners(ctx context.Context, conninfo string, many int) {
	for i := range many {
		n.all.Go(func() {
			select {
			case <-time.After(time.Duration(i) * time.Second / time.Duration(many)):
			case <-ctx.Done():
			}
			for ctx.Err() == nil {
				n.session(ctx, conninfo+" options='-c post_auth_delay=1'", "", 1)
				time.Sleep(20 * time.Millisecond) // one that is refused does not come back at once
			}
		})
	}
}

// given is one value, when it was asked for and when it came.
type given struct {
	asked, came time.Time
	value       int64
	by          string
}

// number starts a client for each conninfo; before every nextval it executes the
// statement also, whatever becomes of that ("": none).
func (w *world) number(also string, conninfos ...string) *numbers {
	w.t.Helper()
	ctx, stop := context.WithCancel(w.t.Context())
	n := &numbers{t: w.t, stop: stop}
	w.t.Cleanup(func() { stop(); n.all.Wait() })
	for _, c := range conninfos {
		if w.pool == nil || c != w.pool.Conninfo("shop") { // a pooler refuses the option
			n.beginners(ctx, c, 3)
		}
		n.all.Go(func() { n.client(ctx, c, "") })
		if also != "" {
			n.all.Go(func() { n.client(ctx, c, also) })
		}
	}
	return n
}

func (n *numbers) client(ctx context.Context, conninfo, also string) {
	for ctx.Err() == nil {
		n.session(ctx, conninfo, also, 0)
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// session goes on with one connection for as long as it lives, refused or not; most
// is how many values it wants (0: as many as it gets).
func (n *numbers) session(ctx context.Context, conninfo, also string, most int) {
	config, err := pgx.ParseConfig(conninfo)
	if err != nil {
		n.t.Error(err)
		return
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	config.ConnectTimeout = 10 * time.Second
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for tries := 0; !conn.IsClosed() && ctx.Err() == nil && (most == 0 || tries < most); tries++ {
		if also != "" {
			// Refused or not: what counts is what the session may do afterwards.
			_, _ = conn.Exec(ctx, also)
		}
		one := given{asked: time.Now(), by: conninfo}
		if err := conn.QueryRow(ctx, "SELECT nextval('public.free_numbers')").Scan(&one.value); err == nil {
			one.came = time.Now()
			n.mu.Lock()
			n.given = append(n.given, one)
			n.mu.Unlock()
		}
		time.Sleep(4 * time.Millisecond) // some hundred a second of each client pass the margin soon
	}
}

// judge ends the clients. No value may have been given twice, and none that was
// asked for after another had come may be smaller.
func (n *numbers) judge() {
	n.t.Helper()
	n.stop()
	n.all.Wait()
	said := 0
	fault := func(format string, args ...any) {
		if said++; said <= 5 {
			n.t.Errorf(format, args...)
		}
	}
	first := map[int64]given{}
	for _, g := range n.given {
		if o, twice := first[g.value]; twice {
			fault("%d was given twice: at %s by %s, at %s by %s", g.value, o.came.Format(time.StampMilli), o.by, g.came.Format(time.StampMilli), g.by)
		}
		first[g.value] = g
	}
	byAsked, byCame := slices.Clone(n.given), slices.Clone(n.given)
	slices.SortFunc(byAsked, func(a, b given) int { return a.asked.Compare(b.asked) })
	slices.SortFunc(byCame, func(a, b given) int { return cmp.Or(a.came.Compare(b.came), cmp.Compare(a.value, b.value)) })
	var most given
	i := 0
	for _, g := range byAsked {
		for ; i < len(byCame) && byCame[i].came.Before(g.asked); i++ {
			if byCame[i].value > most.value {
				most = byCame[i]
			}
		}
		if g.value < most.value {
			fault("%d was given by %s at %s after %d by %s at %s: the sequence went back", g.value, g.by, g.came.Format(time.StampMilli), most.value, most.by, most.came.Format(time.StampMilli))
		}
	}
	if said > 0 {
		n.t.Errorf("%d faults in %d values", said, len(n.given))
	}
	n.t.Logf("%d values, the last of them %d", len(n.given), most.value)
}

// flow waits until clients are given so many more values.
func (n *numbers) flow(w *world, more int) {
	w.t.Helper()
	count := func() int {
		n.mu.Lock()
		defer n.mu.Unlock()
		return len(n.given)
	}
	from := count()
	w.wait(fmt.Sprintf("%d more values of the sequence", more), func() bool { return count() >= from+more })
}
