// Package labtest is the lab for tests: what fails is fatal, and what was started is ended with the test.
package labtest

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// startTimeout is how long a server may take to be made and started.
const startTimeout = 60 * time.Second

// Need fails the test when the lab can neither find nor fetch a complete PostgreSQL of one of the majors, and says what to
// install. The test is skipped instead only where CROSSFADE_SKIP holds a reason.
func Need(tb testing.TB, majors ...int) {
	tb.Helper()
	for _, major := range majors {
		install(tb, major)
	}
}

// Program returns the path of a program that the lab knows; a missing one is treated as Need does.
func Program(tb testing.TB, name string) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 5*time.Minute)
	defer cancel()
	path, err := store(tb).Program(ctx, name)
	if err != nil {
		lacks(tb, err)
	}
	return path
}

// Server is an installation of a major that may lack client programs: old's
// own are not needed for an upgrade.
func Server(tb testing.TB, major int) *lab.Install {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 5*time.Minute)
	defer cancel()
	i, err := store(tb).Find(ctx, major)
	if err != nil {
		lacks(tb, err)
	}
	return i
}

// Regression is PostgreSQL's own regression tests of a major; missing ones are treated as Need does.
func Regression(tb testing.TB, major int) *lab.Regression {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 10*time.Minute)
	defer cancel()
	r, err := store(tb).Regression(ctx, major)
	if err != nil {
		lacks(tb, err)
	}
	return r
}

func install(tb testing.TB, major int) *lab.Install {
	tb.Helper()
	i := Server(tb, major)
	if i.ServerOnly {
		tb.Fatalf("only a server of PostgreSQL %d without client programs could be had; install postgresql-%d", major, major)
	}
	return i
}

func store(tb testing.TB) *lab.Store { return &lab.Store{Say: func(line string) { tb.Log(line) }} }

func lacks(tb testing.TB, err error) {
	tb.Helper()
	if reason := os.Getenv("CROSSFADE_SKIP"); reason != "" {
		tb.Skipf("%s (%v)", reason, err)
	}
	tb.Fatal(err)
}

// Lab is a lab that lives as long as its test. Its servers are lab's own; the methods of this type start them.
type Lab struct {
	*lab.Lab
	tb testing.TB
}

// T sets up a lab for a test. When the test has failed, the ends of all servers' logs are shown; then everything is ended
// and removed, also what the test killed, froze or had others start.
func T(tb testing.TB) *Lab {
	tb.Helper()
	l, err := lab.New(tb.Context(), lab.Config{Store: store(tb)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			for _, c := range l.Clusters() {
				tb.Logf("--- log of %s (port %d):\n%s", c.Name, c.Port, last(c.Log(), 40))
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := l.Down(ctx); err != nil {
			tb.Error(err)
		}
	})
	return &Lab{l, tb}
}

// last is the last n lines.
func last(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Start starts a primary. A missing installation is treated as Need does.
func (l *Lab) Start(o lab.Options) *lab.Cluster {
	l.tb.Helper()
	if o.Install == nil {
		o.Install = install(l.tb, o.Major)
	}
	ctx, cancel := l.limit()
	defer cancel()
	c, err := l.Lab.Start(ctx, o)
	if err != nil {
		l.tb.Fatal(err)
	}
	return c
}

// Primary starts a plain primary.
func (l *Lab) Primary(name string, major int) *lab.Cluster {
	l.tb.Helper()
	return l.Start(lab.Options{Name: name, Major: major})
}

// Standby starts a standby of c, streaming.
func (l *Lab) Standby(c *lab.Cluster, name string, o lab.StandbyOptions) *lab.Cluster {
	l.tb.Helper()
	ctx, cancel := l.limit()
	defer cancel()
	s, err := c.Standby(ctx, name, o)
	if err != nil {
		l.tb.Fatal(err)
	}
	return s
}

// Reserve finds a place for a server that something else will build.
func (l *Lab) Reserve(name string, major int) *lab.Cluster {
	l.tb.Helper()
	ctx, cancel := l.limit()
	defer cancel()
	c, err := l.Lab.Reserve(ctx, name, major, install(l.tb, major))
	if err != nil {
		l.tb.Fatal(err)
	}
	return c
}

// PgBouncer starts a pool.
func (l *Lab) PgBouncer(o lab.PoolOptions) *lab.Pool {
	l.tb.Helper()
	Program(l.tb, "pgbouncer")
	ctx, cancel := l.limit()
	defer cancel()
	p, err := l.Lab.PgBouncer(ctx, o)
	if err != nil {
		l.tb.Fatal(err)
	}
	return p
}

// SSHD starts an sshd.
func (l *Lab) SSHD(name string, host *lab.Host) *lab.SSHD {
	l.tb.Helper()
	ctx, cancel := l.limit()
	defer cancel()
	s, err := l.Lab.SSHD(ctx, name, host)
	if err != nil {
		l.tb.Fatal(err)
	}
	return s
}

// Ledger makes the writers' tables.
func (l *Lab) Ledger(conninfo string) {
	l.tb.Helper()
	ctx, cancel := l.limit()
	defer cancel()
	if err := lab.Ledger(ctx, conninfo); err != nil {
		l.tb.Fatal(err)
	}
}

// Write starts a writer; the test's end stops it if nothing else did.
func (l *Lab) Write(conninfo string, o lab.WriterOptions) *lab.Writer {
	l.tb.Helper()
	w, err := lab.Write(l.tb.Context(), conninfo, o)
	if err != nil {
		l.tb.Fatal(err)
	}
	l.tb.Cleanup(func() { w.Stop() })
	return w
}

// Read starts a reader; the test's end stops it if nothing else did.
func (l *Lab) Read(conninfo string, o lab.ReaderOptions) *lab.Reader {
	l.tb.Helper()
	r, err := lab.Read(l.tb.Context(), conninfo, o)
	if err != nil {
		l.tb.Fatal(err)
	}
	l.tb.Cleanup(func() { r.Stop() })
	return r
}

// Judge wants every acknowledged row on the final side exactly once and none only on the other, which may be "".
func (l *Lab) Judge(final, other string, reports ...lab.Report) lab.Verdict {
	l.tb.Helper()
	ctx, cancel := context.WithTimeout(l.tb.Context(), 5*time.Minute)
	defer cancel()
	v, err := lab.Judge(ctx, reports, final, other)
	if err != nil {
		l.tb.Fatal(err)
	}
	if err := v.Err(); err != nil {
		l.tb.Error(err)
	}
	return v
}

// Exec runs statements on a cluster.
func (l *Lab) Exec(c *lab.Cluster, db string, statements ...string) {
	l.tb.Helper()
	ctx, cancel := l.limit()
	defer cancel()
	if err := c.Exec(ctx, db, statements...); err != nil {
		l.tb.Fatal(err)
	}
}

// Value is the first column of a query's first row.
func (l *Lab) Value(c *lab.Cluster, db, sql string) string {
	l.tb.Helper()
	ctx, cancel := l.limit()
	defer cancel()
	v, err := c.Value(ctx, db, sql)
	if err != nil {
		l.tb.Fatal(err)
	}
	return v
}

// Until waits until a query says true.
func (l *Lab) Until(c *lab.Cluster, db, sql string) {
	l.tb.Helper()
	ctx, cancel := l.limit()
	defer cancel()
	if err := c.Until(ctx, db, sql); err != nil {
		l.tb.Fatal(err)
	}
}

// Proxy starts a proxy in front of a cluster; the test's end closes it.
func (l *Lab) Proxy(c *lab.Cluster) *lab.Proxy {
	l.tb.Helper()
	p, err := c.Proxy(l.tb.Context())
	if err != nil {
		l.tb.Fatal(err)
	}
	l.tb.Cleanup(p.Close)
	return p
}

// Must fails the test if err is not nil; for the lab's methods that return nothing else.
func (l *Lab) Must(err error) {
	l.tb.Helper()
	if err != nil {
		l.tb.Fatal(err)
	}
}

func (l *Lab) limit() (context.Context, context.CancelFunc) {
	return context.WithTimeout(l.tb.Context(), startTimeout)
}
