package scenarios

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"crossfade/scenarios/lab"
)

// Users are all who use a stage's databases. They go on until Stop, and can
// be started again; what was acknowledged to them is kept for the judgement.
type Users struct {
	stage        *Stage
	serves       string // the side whose standbys are read from beside old's; set before Start
	parties      []*party
	started      map[string]int64         // rows of the tables that a pgbench counts, at its first start, by database
	acknowledged map[string]*acknowledged // by database
}

// party are the users of one database.
type party struct {
	load    Load
	writer  *lab.Writer
	bench   *lab.Pgbench
	readers []*lab.Reader
	replica []*lab.Reader // of the standbys
}

// key is what a load is known by.
func (l Load) key() string { return key(l.Database, l.Schema) }

// acknowledged is what the servers confirmed to the users of one database, over all starts.
type acknowledged struct {
	load         Load
	reports      []lab.Report
	failures     []lab.Failure
	transactions int64
	benchFailed  int64 // transactions failed and clients aborted
	benchSays    string
	queries      int64
	longest      lab.Wait
	replica      lab.ReadReport // of all standbys together
	worst        lab.Gap        // the longest between two acknowledged rows since the last Start
}

// NewUsers are the users of a stage; nobody works yet.
func NewUsers(st *Stage) *Users {
	return &Users{stage: st, started: map[string]int64{}, acknowledged: map[string]*acknowledged{}}
}

// Start lets everybody work, until Stop or until ctx ends.
func (u *Users) Start(ctx context.Context) error {
	if u.parties != nil {
		return nil
	}
	for _, l := range u.stage.Scenario.Load {
		p := &party{load: l}
		u.parties = append(u.parties, p)
		if u.acknowledged[l.key()] == nil {
			u.acknowledged[l.key()] = &acknowledged{load: l}
		}
		if err := u.start(ctx, p); err != nil {
			_, serr := u.Stop()
			return errors.Join(fmt.Errorf("start the load of %s: %w", l.Database, err), serr)
		}
	}
	return nil
}

func (u *Users) start(ctx context.Context, p *party) (err error) {
	l, conninfo := p.load, u.stage.Client(p.load.key())
	if b := l.Pgbench; b != nil {
		if _, again := u.started[l.Database]; !again {
			if u.started[l.Database], err = u.stage.counted(ctx, u.stage.Old, l); err != nil {
				return err
			}
		}
		o := lab.PgbenchOptions{Clients: b.Clients, Rate: b.Rate}
		if b.Script != "" {
			path := filepath.Join(u.stage.Dir, l.Database+".pgbench")
			if err := os.WriteFile(path, []byte(b.Script), 0o644); err != nil {
				return err
			}
			o.Args = []string{"-b", "tpcb-like@1", "-f", path + "@1"}
		}
		if p.bench, err = u.stage.Old.Pgbench(ctx, conninfo, o); err != nil {
			return err
		}
	}
	if l.Writers > 0 {
		if p.writer, err = lab.Write(ctx, conninfo+sessionOptions(l.Settings), lab.WriterOptions{Writers: l.Writers, Pause: l.Pause, Schema: l.Schema}); err != nil {
			return err
		}
	}
	read := func(conninfo string, sql ...string) error {
		r, err := lab.Read(ctx, conninfo, lab.ReaderOptions{SQL: sql, Pause: cmp.Or(l.ReadWait, 10*time.Millisecond)})
		if err == nil {
			p.readers = append(p.readers, r)
		}
		return err
	}
	if len(l.Read) > 0 {
		if err := read(conninfo, l.Read...); err != nil {
			return err
		}
	}
	if l.Replicas {
		for _, n := range u.replicas() {
			r, err := lab.Read(ctx, n.Cluster.Conninfo(l.Database), lab.ReaderOptions{
				SQL: []string{"SELECT count(*) FROM public.ledger"}, Pause: cmp.Or(l.ReadWait, 10*time.Millisecond), Rising: true,
			})
			if err != nil {
				return err
			}
			p.replica = append(p.replica, r)
		}
	}
	return nil
}

// replicas are the standbys that are read from.
func (u *Users) replicas() []Node {
	all := slices.Clone(u.stage.Standbys[sideOld])
	if u.serves == sideNew {
		all = append(all, u.stage.Standbys[sideNew]...)
	}
	return slices.DeleteFunc(all, func(n Node) bool { return !n.Cluster.Running() })
}

// sessionOptions are settings as a conninfo gives them to a session.
func sessionOptions(settings map[string]string) string {
	if len(settings) == 0 {
		return ""
	}
	s := " options='"
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		s += " -c " + name + "=" + settings[name]
	}
	return s + "'"
}

// counted is how many rows the tables have that pgbench's transactions fill.
func (st *Stage) counted(ctx context.Context, c *lab.Cluster, l Load) (int64, error) {
	var sums []string
	for _, t := range l.Pgbench.counts() {
		sums = append(sums, "(SELECT count(*) FROM "+t+")")
	}
	text, err := c.Value(ctx, l.Database, "SELECT "+strings.Join(sums, " + "))
	if err != nil {
		return 0, err
	}
	var n int64
	_, err = fmt.Sscan(text, &n)
	return n, err
}

func (b *Bench) counts() []string {
	if len(b.Counts) == 0 {
		return []string{"public.pgbench_history"}
	}
	return b.Counts
}

// Flow waits until every writer's database has taken n more rows than now.
func (u *Users) Flow(ctx context.Context, n int64) error {
	for _, p := range u.parties {
		if p.writer == nil {
			continue
		}
		if err := p.writer.Flow(ctx, n); err != nil {
			return fmt.Errorf("writes do not get through to %s: %w; clients saw %s", p.load.Database, err, someFailures(p.writer.Errors()))
		}
	}
	return nil
}

// Acked is how many rows were acknowledged until now.
func (u *Users) Acked() int64 {
	var n int64
	for _, t := range u.acknowledged {
		for _, r := range t.reports {
			n += r.Acked
		}
	}
	for _, p := range u.parties {
		if p.writer != nil {
			n += p.writer.Acked()
		}
	}
	return n
}

// Gap is the longest time between two acknowledged rows of one database since
// t, and which database that was.
func (u *Users) Gap(t time.Time) (worst lab.Gap, database string) {
	for _, p := range u.parties {
		if p.writer == nil {
			continue
		}
		if g := p.writer.GapSince(t); g.Length > worst.Length {
			worst, database = g, p.load.key()
		}
	}
	return worst, database
}

// Stop ends everybody's work and waits for it. It returns the reports of the
// writers that worked until now, by database.
func (u *Users) Stop() (map[string]lab.Report, error) {
	last := map[string]lab.Report{}
	var errs []error
	for _, p := range u.parties {
		t := u.acknowledged[p.load.key()]
		if p.bench != nil {
			r, err := p.bench.Stop()
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", p.load.Database, err))
			}
			t.transactions += r.Transactions
			if n := r.Failed + int64(r.Aborted); n > 0 || err != nil {
				t.benchFailed += max(n, 1)
				t.benchSays = r.Output
			}
		}
		if p.writer != nil {
			r := p.writer.Stop()
			last[p.load.key()] = r
			t.reports = append(t.reports, r)
			t.failures = append(t.failures, r.Failures...)
			t.worst = r.Longest
		}
		for _, reader := range p.replica {
			r := reader.Stop()
			t.replica.Queries, t.replica.Back = t.replica.Queries+r.Queries, t.replica.Back+r.Back
			t.replica.Failures = append(t.replica.Failures, r.Failures...)
			if r.Longest.Length > t.replica.Longest.Length {
				t.replica.Longest = r.Longest
			}
		}
		for _, reader := range p.readers {
			r := reader.Stop()
			t.queries += r.Queries
			t.failures = append(t.failures, r.Failures...)
			if r.Longest.Length > t.longest.Length {
				t.longest = r.Longest
			}
		}
	}
	u.parties = nil
	return last, errors.Join(errs...)
}

// Describe says who works.
func (u *Users) Describe() string {
	var all []string
	for _, l := range u.stage.Scenario.Load {
		var words []string
		if l.Writers > 0 {
			words = append(words, plural(int64(l.Writers), "writer"))
		}
		if b := l.Pgbench; b != nil {
			s := fmt.Sprintf("pgbench with %s", plural(int64(b.Clients), "client"))
			if b.Rate > 0 {
				s += fmt.Sprintf(" and %d transactions a second", b.Rate)
			}
			words = append(words, s)
		}
		if len(l.Read) > 0 {
			words = append(words, "1 reader")
		}
		if n := len(u.stage.Standbys[sideOld]); l.Replicas && n > 0 {
			words = append(words, plural(int64(n), "reader")+" of the standbys")
		}
		all = append(all, l.key()+": "+strings.Join(words, ", "))
	}
	return strings.Join(all, "; ")
}

func someFailures(all []lab.Failure) string {
	if len(all) == 0 {
		return "no error"
	}
	var s []string
	for _, f := range all[:min(len(all), 3)] {
		s = append(s, f.String())
	}
	if len(all) > 3 {
		s = append(s, fmt.Sprintf("and %d more kinds", len(all)-3))
	}
	return strings.Join(s, "; ")
}

// unexpected is the failures that are not in the list of SQLSTATEs.
func unexpected(all []lab.Failure, allowed []string) []lab.Failure {
	return slices.DeleteFunc(slices.Clone(all), func(f lab.Failure) bool { return slices.Contains(allowed, f.SQLState) })
}
