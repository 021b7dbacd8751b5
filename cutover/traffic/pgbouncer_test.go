package traffic

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
	"crossfade/scenarios/lab/labtest"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

func server(t *testing.T, name, conninfo string) *pg.Server {
	t.Helper()
	s, err := pg.Parse(name, conninfo, "")
	if err != nil {
		t.Fatal(err)
	}
	return s.As("crossfade test")
}

// world is an old and a new cluster with a database shop each, and a pooler.
type world struct {
	*labtest.Lab
	t          *testing.T
	oldC, newC *lab.Cluster
	old, new   *pg.Server
	pool       *lab.Pool
	sw         *PgBouncer
	shop       string // conninfo through the pooler
}

func newWorld(t *testing.T, hba []string, o lab.PoolOptions) *world {
	t.Helper()
	l := labtest.T(t)
	w := &world{Lab: l, t: t}
	w.oldC = l.Start(lab.Options{Name: "old", Major: 15})
	w.newC = l.Start(lab.Options{Name: "new", Major: 17, HBA: hba})
	for _, c := range []*lab.Cluster{w.oldC, w.newC} {
		l.Exec(c, "", "CREATE DATABASE shop", "CREATE ROLE app LOGIN PASSWORD 'secret'")
		l.Ledger(c.Conninfo("shop"))
	}
	w.old, w.new = server(t, "old", w.oldC.Conninfo("shop")), server(t, "new", w.newC.Conninfo("shop"))
	if o.Databases == nil {
		o.Databases = map[string]lab.Backend{"shop": {Cluster: w.oldC, Extra: "pool_size=10"}}
	}
	for name, b := range o.Databases {
		if b.Cluster == nil {
			b.Cluster = w.oldC
			o.Databases[name] = b
		}
	}
	w.pool = l.PgBouncer(o)
	w.shop = w.pool.Conninfo("shop")
	w.sw = &PgBouncer{
		Databases: []string{"shop"}, AppUsers: []string{"postgres"},
		Instances: []Instance{{Admin: server(t, "pool", w.pool.AdminConninfo()), Config: w.pool.Config}},
	}
	return w
}

func (w *world) where() string {
	w.t.Helper()
	at, err := w.sw.Where(w.t.Context())
	w.Must(err)
	return at
}

func (w *world) paused() bool {
	w.t.Helper()
	var paused bool
	i := w.sw.Instances[0]
	ctx := w.t.Context()
	conn, err := i.Admin.Console(ctx)
	w.Must(err)
	dbs, err := i.databases(ctx, conn)
	w.Must(err)
	paused = dbs["shop"].paused
	w.Must(conn.Close(ctx))
	return paused
}

// TestSwitch sends clients there and back under load, without an error.
func TestSwitch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil, lab.PoolOptions{})
	before, err := os.ReadFile(w.pool.Config)
	w.Must(err)
	writer := w.Write(w.shop, lab.WriterOptions{Writers: 4})
	ctx := t.Context()
	var slowest time.Duration
	for n, to := range []*pg.Server{w.new, w.old, w.new, w.old} {
		w.Must(w.sw.Prepare(ctx, to))
		began := time.Now()
		w.Must(w.sw.Pause(ctx))
		paused := time.Now()
		if !w.paused() {
			t.Error("not paused")
		}
		if n == 2 { // not what was prepared
			w.Must(os.WriteFile(prepared(w.pool.Config), []byte("torn"), 0o644))
		}
		w.Must(w.sw.Point(ctx, to))
		pointed := time.Now()
		w.Must(w.sw.Resume(ctx))
		t.Logf("pause %s, point %s, resume %s", paused.Sub(began), pointed.Sub(paused), time.Since(pointed))
		slowest = max(slowest, time.Since(began))
		w.Must(w.sw.Point(ctx, to))
		w.Must(w.sw.Resume(ctx))
		if at := w.where(); at != to.Address() {
			t.Errorf("clients are at %s, not at %s", at, to.Address())
		}
		if _, err := os.Stat(prepared(w.pool.Config)); err == nil {
			t.Error("the prepared file is still there")
		}
		c := w.newC
		if to == w.old {
			c = w.oldC
		}
		w.Until(c, "shop", "SELECT count(*) > "+w.Value(c, "shop", "SELECT count(*) FROM public.ledger")+" FROM public.ledger")
	}
	t.Logf("slowest pause to resume: %s", slowest)
	report := writer.Stop()
	t.Logf("%+v", report.Longest)
	if len(report.Failures) > 0 {
		t.Errorf("clients saw %v", report.Failures)
	}
	after, err := os.ReadFile(w.pool.Config)
	w.Must(err)
	if string(before) != string(after) {
		t.Errorf("there and back the configuration is\n%s, not\n%s", after, before)
	}
	w.Must(w.sw.Prepare(ctx, w.new))
	w.Must(w.sw.Withdraw(ctx))
	w.Must(w.sw.Withdraw(ctx))
	if left, _ := filepath.Glob(w.pool.Config + "*"); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}

	// Restarted while it was paused: it is not paused any more.
	w.Must(w.sw.Pause(ctx))
	w.Must(w.pool.Kill(ctx))
	if err := w.sw.Resume(ctx); err == nil || !strings.Contains(err.Error(), w.sw.Instances[0].on()) || !strings.Contains(err.Error(), "restarted") {
		t.Errorf("resume of a dead pooler: %v", err)
	}
	if err := w.sw.Point(ctx, w.new); err == nil {
		t.Error("point of a dead pooler worked")
	}
	w.Must(w.pool.Boot(ctx))
	w.Must(w.sw.Resume(ctx))
	if at := w.where(); at != "" && at != w.new.Address() {
		t.Errorf("it came back with %s", at)
	}
}

// TestHeldUp has a transaction open, so that PAUSE waits for it without success.
func TestHeldUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil, lab.PoolOptions{})
	second := w.PgBouncer(lab.PoolOptions{Name: "second", Databases: map[string]lab.Backend{"shop": {Cluster: w.oldC}}})
	other := &PgBouncer{Databases: []string{"shop"}, Instances: []Instance{{Admin: server(t, "pool", second.AdminConninfo()), Config: second.Config}}}
	ctx := t.Context()
	w.sw.PauseTimeout = 300 * time.Millisecond
	holder, err := server(t, "holder", w.shop).ConnectAs(ctx, pg.Login{User: "postgres"})
	w.Must(err)
	w.Must(pg.Exec(ctx, holder, "BEGIN; SELECT 1"))
	var pid int32
	w.Must(holder.QueryRow(ctx, "SELECT pg_backend_pid()", pgx.QueryExecModeSimpleProtocol).Scan(&pid))
	group := Group{w.sw, other}
	busy, err := group.Busy(ctx)
	w.Must(err)
	if len(busy) != 2 || !slices.Equal(busy[0].Backends, []int32{pid}) || busy[0].Patience != w.sw.PauseTimeout || len(busy[1].Backends) != 0 {
		t.Errorf("backend %d works for a client of the first pooler, and it is said: %v", pid, busy)
	}
	writer := w.Write(w.shop, lab.WriterOptions{Writers: 2})
	err = group.Pause(ctx)
	if err == nil {
		t.Fatal("paused with a transaction open")
	}
	t.Log(err)
	for _, word := range []string{"300ms", "user postgres", "backend pid ", w.sw.Instances[0].on()} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q is not in %v", word, err)
		}
	}
	if w.paused() {
		t.Error("still paused")
	}
	rows, err := second.Admin(ctx, "SHOW DATABASES")
	w.Must(err)
	if slices.ContainsFunc(rows, func(r []string) bool { return slices.Contains(r[len(r)-2:], "1") }) {
		t.Errorf("the other pooler is paused: %v", rows)
	}
	w.Must(pg.Exec(ctx, holder, "COMMIT"))
	w.Must(holder.Close(ctx))
	w.Must(group.Pause(ctx))
	w.Must(group.Resume(ctx))
	if report := writer.Stop(); len(report.Failures) > 0 {
		t.Errorf("clients saw %v", report.Failures)
	}
}

// ids are the problems, id and object.
func (w *world) ids(sw *PgBouncer, to *pg.Server) string {
	w.t.Helper()
	problems, err := sw.Problems(w.t.Context(), to)
	if err != nil {
		w.t.Fatal(err)
	}
	var ids []string
	for _, p := range problems {
		w.t.Logf("%s %q: %v", p.ID, p.Object, p)
		ids = append(ids, p.ID+":"+p.Object)
	}
	return strings.Join(ids, " ")
}

// TestWildcard: the entry * serves every database without one of its own. Those
// that are moved are named by their own names, which can be paused; * cannot.
func TestWildcard(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil, lab.PoolOptions{
		Databases: map[string]lab.Backend{"my-db": {DB: "shop"}, "forced": {DB: "shop", Extra: "user=postgres"}, "odd.name-1": {DB: "side"}, "shop": {DB: "shop"}},
	})
	text, err := os.ReadFile(w.pool.Config)
	w.Must(err)
	for _, c := range []*lab.Cluster{w.oldC, w.newC} {
		w.Exec(c, "", "CREATE DATABASE side", "CREATE DATABASE blog", "CREATE DATABASE stays", `CREATE DATABASE "two b"`)
	}
	entry := func(rest string) string {
		return strings.Replace(string(text), "\n[pgbouncer]", fmt.Sprintf("\n* = host=%s port=%d%s\n[pgbouncer]", w.oldC.Address(), w.oldC.Port, rest), 1)
	}
	reload := func(text string) {
		w.Must(os.WriteFile(w.pool.Config, []byte(text), 0o644))
		_, err := w.pool.Admin(t.Context(), "RELOAD")
		w.Must(err)
	}
	ask := func(names ...string) { // clients that PgBouncer makes a pool for
		for _, name := range names {
			conn, err := pgx.Connect(t.Context(), w.pool.Conninfo(name))
			w.Must(err)
			w.Must(conn.Close(t.Context()))
		}
	}
	moved := []string{"shop", "blog", "side"}
	for _, c := range []struct {
		what, rest string
		asked      []string
		databases  []string
		moved      []string
		want       string
	}{
		{"one of its own for each", "", nil, []string{"my-db", "forced", "shop"}, []string{"shop"}, ""},
		{"a database that only * serves", "", nil, []string{"my-db", "forced", "shop"}, []string{"shop", "blog"}, "pool-alias:blog"},
		{"the same, with clients", "", []string{"blog", "stays"}, []string{"my-db", "forced", "shop"}, []string{"shop", "blog"}, "pool-alias:blog"},
		{"added as it says", "", []string{"blog"}, []string{"my-db", "forced", "shop", "blog"}, []string{"shop", "blog"}, ""},
		{"an entry with another dbname", "", nil, []string{"my-db", "forced", "shop", "blog"}, moved, "pool-alias:odd.name-1 pool-alias:side"},
		{"named", "", nil, []string{"my-db", "forced", "shop", "blog", "side", "odd.name-1"}, moved, ""},
		{"a fixed database after *", " dbname=shop", nil, []string{"my-db", "forced", "shop"}, []string{"shop"}, "pool-alias:* pool-alias:blog pool-alias:stays"},
		{"a fixed database that stays", " dbname=stays", nil, []string{"my-db", "forced", "shop"}, []string{"shop"}, ""},
		{"a name that no entry can have", "", nil, []string{"my-db", "forced", "shop", "two b"}, []string{"shop", "two b"}, "pool-database:two b"},
		{"* itself", "", nil, []string{"my-db", "forced", "*", "shop"}, []string{"shop", "blog"}, "pool-database:* pool-alias:blog"},
	} {
		reload(entry(c.rest))
		ask(c.asked...)
		sw := PgBouncer{Databases: c.databases, Moved: c.moved, Instances: w.sw.Instances}
		if got := w.ids(&sw, w.new); got != c.want {
			t.Errorf("%s: %q, not %q", c.what, got, c.want)
		}
	}
	// What it says to add can be paused and pointed.
	reload(entry(""))
	sw := PgBouncer{Databases: []string{"my-db", "forced", "shop", "blog", "odd.name-1"}, Moved: moved[:2], Instances: w.sw.Instances}
	ask("blog")
	w.Must(sw.Prepare(t.Context(), w.new))
	w.Must(sw.Pause(t.Context()))
	w.Must(sw.Point(t.Context(), w.new))
	w.Must(sw.Resume(t.Context()))
	for name, port := range map[string]int{"blog": w.newC.Port, "my-db": w.newC.Port, "odd.name-1": w.newC.Port, "stays": w.oldC.Port} {
		conn, err := pgx.Connect(t.Context(), w.pool.Conninfo(name))
		w.Must(err)
		var at int
		w.Must(conn.QueryRow(t.Context(), "SELECT inet_server_port()").Scan(&at))
		if at != port {
			t.Errorf("clients of %s are at port %d, not %d", name, at, port)
		}
		w.Must(conn.Close(t.Context()))
	}
}

func TestProblems(t *testing.T) {
	t.Parallel()
	w := newWorld(t, []string{"host shop refused all reject", "host shop app all scram-sha-256", "host all unheard 192.0.2.1/32 trust"}, lab.PoolOptions{
		Databases: map[string]lab.Backend{
			"shop": {Extra: "pool_size=10"}, "shop_ro": {DB: "shop"}, "long": {DB: "shop", Extra: "pool_mode=session"},
			"forced": {DB: "shop", Extra: "user=app password=secret"}, "wrong": {DB: "shop", Extra: "user=app password=wrong"},
			"asks": {DB: "shop", Extra: "auth_user=postgres"},
		},
		Users:    map[string]string{"app": "secret"},
		Settings: map[string]string{"query_wait_timeout": "3"},
	})
	w.Exec(w.newC, "", "CREATE ROLE refused LOGIN", "CREATE ROLE late LOGIN VALID UNTIL '2000-01-01'")
	everything := []string{"shop", "shop_ro", "long", "forced", "wrong", "asks"}
	for _, c := range []struct {
		what string
		sw   PgBouncer
		want string
	}{
		{"all is well", PgBouncer{Databases: []string{"shop", "shop_ro", "forced", "asks", "long"}, AppUsers: []string{"app", "postgres"}}, "pool-session:long pool-alias:wrong"},
		{"aliases", PgBouncer{Databases: []string{"shop"}}, "pool-alias:asks pool-alias:forced pool-alias:long pool-alias:shop_ro pool-alias:wrong"},
		{"not there", PgBouncer{Databases: append(everything, "blog")}, "pool-session:long pool-database:blog pool-login:app"},
		{"refused by a rule", PgBouncer{Databases: everything[:4], AppUsers: []string{"refused", "app"}}, "pool-hba:refused"},
		{"no role, an old one", PgBouncer{Databases: everything[:2], AppUsers: []string{"nobody", "late"}}, "pool-login:nobody pool-login:late"},
		{"sent away", PgBouncer{Databases: everything, Blocked: 5 * time.Second}, "pool-wait: "},
	} {
		c.sw.Instances = w.sw.Instances
		got := w.ids(&c.sw, w.new)
		ok := got == c.want
		if c.what != "all is well" && c.what != "aliases" {
			ok = true
			for _, one := range strings.Fields(c.want) {
				ok = ok && strings.Contains(got, one)
			}
		}
		if !ok {
			t.Errorf("%s: %s, not %s", c.what, got, c.want)
		}
	}
	ctx := t.Context()

	sw := *w.sw
	sw.Databases, sw.AppUsers = []string{"shop"}, []string{"refused"}
	err := sw.Prepare(ctx, w.new)
	if err == nil || !strings.Contains(err.Error(), "pg_hba.conf refuses user refused") || !strings.Contains(err.Error(), "shop_ro leads to") {
		t.Errorf("prepare: %v", err)
	}
	if _, err := os.Stat(prepared(w.pool.Config)); err == nil {
		t.Error("a refused prepare wrote a file")
	}
	sw.AppUsers = []string{"app"}
	sw.Accepted = func(p Problem) bool { return p.ID == PoolAlias }
	w.Must(sw.Prepare(ctx, w.new))
	w.Must(sw.Withdraw(ctx))

	w.strangers(&sw)
	w.files(&sw)
}

// strangers judges users and passwords that the runbook does not name.
func (w *world) strangers(sw *PgBouncer) {
	t, ctx := w.t, w.t.Context()
	// An application that is named nowhere: the pooler has seen it. On new the
	// database is yet to be made.
	app, err := server(t, "app", w.shop).ConnectAs(ctx, pg.Login{User: "app", Password: "secret"})
	w.Must(err)
	w.Must(pg.Exec(ctx, app, "SELECT 1"))
	unnamed := PgBouncer{Databases: []string{"shop"}, Instances: w.sw.Instances}
	if got := w.ids(&unnamed, w.new); strings.Contains(got, "pool-hba") || strings.Contains(got, "pool-login") {
		t.Errorf("an application that is let in: %s", got)
	}
	closed := w.Start(lab.Options{Name: "closed", Major: 17, HBA: []string{"host all app all reject"}})
	if got := w.ids(&unnamed, server(t, "new", closed.Conninfo("postgres"))); !strings.Contains(got, "pool-hba:app") || !strings.Contains(got, "pool-reach:shop") {
		t.Errorf("an application that is not: %s", got)
	}
	w.Must(app.Close(ctx))

	// The pooler has another password hash than new.
	users, err := os.ReadFile(filepath.Join(w.pool.Home, "userlist.txt"))
	w.Must(err)
	w.Must(os.WriteFile(filepath.Join(w.pool.Home, "userlist.txt"), []byte(strings.Replace(string(users), `"secret"`, `"SCRAM-SHA-256$4096:AAAA$B:C"`, 1)), 0o644))
	if got := w.ids(sw, w.new); !strings.Contains(got, "pool-login:app") {
		t.Errorf("another hash: %s", got)
	}
	w.Must(os.WriteFile(filepath.Join(w.pool.Home, "userlist.txt"), users, 0o644))
}

// files judges configurations that are not those in use, and a pooler and a
// server in the wrong state.
func (w *world) files(sw *PgBouncer) {
	t, ctx := w.t, w.t.Context()
	// What the file says is not what the pooler does.
	text, err := os.ReadFile(w.pool.Config)
	w.Must(err)
	w.Must(os.WriteFile(w.pool.Config, []byte(strings.Replace(string(text), "shop = host=127.0.0.1", "shop = host=192.0.2.1", 1)), 0o644))
	if got := w.ids(sw, w.new); !strings.Contains(got, "pool-config:shop") {
		t.Errorf("a file that was not loaded: %s", got)
	}
	w.Must(os.WriteFile(w.pool.Config, text, 0o644))

	link := filepath.Join(w.pool.Home, "link.ini")
	w.Must(os.Symlink(w.pool.Config, link))
	for _, path := range []string{link, w.pool.Config + ".not"} {
		sw.Instances = []Instance{{Admin: sw.Instances[0].Admin, Config: path}}
		if got := w.ids(sw, w.new); !strings.Contains(got, "pool-config") {
			t.Errorf("%s: %s", path, got)
		}
	}
	sw.Instances = w.sw.Instances
	_, err = w.pool.Admin(ctx, "PAUSE shop")
	w.Must(err)
	if got := w.ids(sw, w.new); !strings.Contains(got, "pool-paused:shop") {
		t.Errorf("paused already: %s", got)
	}
	w.Must(sw.Resume(ctx))
	w.Must(w.newC.Stop(ctx, lab.Fast))
	if got := w.ids(sw, w.new); !strings.Contains(got, "pool-reach:") {
		t.Errorf("new is down: %s", got)
	}
}

// TestShared has several processes behind one port.
func TestShared(t *testing.T) {
	see := func(conninfo, reuse string) view {
		return view{Instance: Instance{Admin: server(t, "pool", conninfo)}, set: map[string]string{"so_reuseport": reuse, "listen_port": "6432"}}
	}
	tcp, a, b := see("host=pool1 port=6432", "1"), see("host=/run/a port=6432", "1"), see("host=/run/b port=6432", "1")
	sw := &PgBouncer{}
	for n, c := range [][]view{{see("host=pool1 port=6432", "0")}, {a, b}} {
		if got := sw.shared(c); len(got) != 0 {
			t.Errorf("%d: %v", n, got)
		}
	}
	for n, c := range [][]view{{tcp}, {a}, {tcp, tcp}} {
		if got := sw.shared(c); len(got) != len(c) || got[0].ID != PoolShared || got[0].Acceptable {
			t.Errorf("%d: %v", n, got)
		}
	}
}

// TestEffects compares what the pooler and the wrapped programs received with
// what the effects say.
func TestEffects(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil, lab.PoolOptions{Databases: map[string]lab.Backend{"shop": {}, "two-b": {DB: "shop"}}})
	w.sw.Databases = []string{"shop", "two-b"}
	host := &recorder{}
	w.sw.Instances[0].Host = host
	ctx := t.Context()
	for _, c := range []struct {
		call Call
		do   func() error
	}{
		{Prepare, func() error { return w.sw.Prepare(ctx, w.new) }},
		{Pause, func() error { return w.sw.Pause(ctx) }},
		{Point, func() error { return w.sw.Point(ctx, w.new) }},
		{Resume, func() error { return w.sw.Resume(ctx) }},
		{Withdraw, func() error { return w.sw.Withdraw(ctx) }},
	} {
		host.ran = nil
		logged := len(w.pool.Log())
		w.Must(c.do())
		var want []string
		for _, e := range w.sw.Does(c.call, w.new) {
			if e.Run != nil {
				want = append(want, strings.Join(e.Run, " "))
			} else if word, _, _ := strings.Cut(e.SQL, " "); !strings.Contains(w.pool.Log()[logged:], word) {
				t.Errorf("%s: the pooler was not told %s", c.call, e.SQL)
			}
		}
		if got := strings.Join(host.ran, "\n"); got != strings.Join(want, "\n") {
			t.Errorf("%s ran\n%s, not\n%s", c.call, got, strings.Join(want, "\n"))
		}
	}
}

// recorder is this machine, remembering every program that changes something.
type recorder struct {
	pg.Local
	ran []string
}

func (r *recorder) Run(ctx context.Context, c pg.Cmd) error {
	switch c.Args[0] {
	case "cat", "ls", "test":
	default:
		r.ran = append(r.ran, strings.Join(c.Args, " "))
	}
	return r.Local.Run(ctx, c)
}

func TestHook(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "move-dns")
	text := fmt.Sprintf("#!/bin/sh\necho \"$1 $2 $CROSSFADE_UPGRADE $CROSSFADE_TO $CROSSFADE_TO_HOST $CROSSFADE_TO_PORT\" >> %s/log\n"+
		"[ -e %s/fail-$2 ] && { echo no luck >&2; exit 3; }\n[ -e %s/hang-$2 ] && sleep 30\n[ $2 = where ] && echo there:5432\nexit 0\n", dir, dir, dir)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	to := server(t, "new", "host=wacken port=5433 user=crossfade password=secret dbname=shop")
	h := &Hook{Run: []string{script, "zone"}, Timeout: 500 * time.Millisecond, Env: func() []string { return []string{"CROSSFADE_UPGRADE=up"} }}
	var _ Switch = h
	ctx := t.Context()
	touch := func(name string) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{h.Prepare(ctx, to), h.Pause(ctx), h.Point(ctx, to), h.Resume(ctx), h.Withdraw(ctx)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if at, err := h.Where(ctx); at != "there:5432" || err != nil {
		t.Errorf("%q %v", at, err)
	}
	touch("fail-pause")
	if err := h.Pause(ctx); err == nil || !strings.Contains(err.Error(), "no luck") {
		t.Error(err)
	}
	touch("hang-point")
	if err := h.Point(ctx, to); err == nil || !strings.Contains(err.Error(), "longer than 500ms") {
		t.Error(err)
	}
	log, _ := os.ReadFile(filepath.Join(dir, "log"))
	want := `zone check up new wacken 5433
zone pause up   
zone point up new wacken 5433
zone resume up   
zone where up   
zone pause up   
zone resume up   
zone point up new wacken 5433
`
	if string(log) != want {
		t.Errorf("%s, not\n%s", log, want)
	}
	if e := h.Does(Point, to); len(e) != 1 || e[0].On != "local" || !slices.Equal(e[0].Run, []string{script, "zone", "point"}) {
		t.Errorf("%+v", e)
	}
	if e := (Group{h, h}).Does(Withdraw, to); len(e) != 0 {
		t.Errorf("%+v", []flow.Effect(e))
	}
}
