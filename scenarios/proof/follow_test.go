package proof

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"crossfade/scenarios/lab"

	"github.com/jackc/pgx/v5/pgconn"
)

// all reports whether the whole of a long matrix was asked for.
func all() bool { return os.Getenv("CROSSFADE_ALL") != "" }

// some is every one of list with CROSSFADE_ALL, otherwise the named ones.
func some(list []string, otherwise ...string) []string {
	if all() {
		return list
	}
	return otherwise
}

// wantExit fails the test unless r ended with one of the codes.
func wantExit(t testing.TB, r ran, codes ...int) {
	t.Helper()
	if !slices.Contains(codes, r.exit) {
		t.Fatalf("wanted exit %v\n%s", codes, r)
	}
}

// elsewhere goes to another machine: it has the runbook and no journal.
func (w *world) elsewhere() {
	w.t.Helper()
	b, err := os.ReadFile(w.book())
	w.Must(err)
	w.dir = w.t.TempDir()
	w.Must(os.WriteFile(w.book(), b, 0o600))
}

// event is what --json reports of a run.
type event struct {
	Type, Plan, Step, Kind string
}

// live is a command that runs.
type live struct {
	cmd  *exec.Cmd
	done chan struct{}
	ran  ran
}

// follow starts a program with --json and calls at for every event, as it
// happens; nil calls nothing.
func (w *world) follow(exe, env string, at func(p *os.Process, e event), args ...string) *live {
	w.t.Helper()
	args = append(args, "--json")
	cmd := exec.Command(exe, append(args, "-f", w.book())...)
	cmd.Env = os.Environ()
	if env != "" {
		cmd.Env = append(cmd.Env, env)
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	pipe, err := cmd.StdoutPipe()
	w.Must(err)
	w.Must(cmd.Start())
	l := &live{cmd: cmd, done: make(chan struct{}), ran: ran{args: args}}
	limit := time.AfterFunc(4*time.Minute, func() {
		_ = cmd.Process.Signal(syscall.SIGQUIT)
		_ = cmd.Process.Signal(syscall.SIGCONT) // one that stands still would not hear of it
	})
	go func() {
		defer close(l.done)
		defer limit.Stop()
		var out strings.Builder
		s := bufio.NewScanner(pipe)
		s.Buffer(nil, 64<<20)
		for s.Scan() {
			out.Write(s.Bytes())
			out.WriteByte('\n')
			var e event
			if at != nil && json.Unmarshal(s.Bytes(), &e) == nil && e.Type == "event" {
				at(cmd.Process, e)
			}
		}
		_, _ = io.Copy(io.Discard, pipe)
		err := cmd.Wait()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			l.ran.exit = exit.ExitCode() // -1: a signal
		} else if err != nil {
			l.ran.exit = -2
		}
		l.ran.stdout, l.ran.stderr = out.String(), errs.String()
	}()
	w.t.Cleanup(func() {
		select {
		case <-l.done:
		default:
			_ = cmd.Process.Kill()
			<-l.done
		}
	})
	return l
}

// end waits for a command's end.
func (l *live) end() ran {
	<-l.done
	return l.ran
}

// kill ends a command as the kernel would.
func kill(p *os.Process) { _ = p.Signal(syscall.SIGKILL) }

// inject runs the program that does what env says at the beginning of a step.
func (w *world) inject(env string, args ...string) ran {
	w.t.Helper()
	return w.follow(binary(w.t, "crossfade_panic"), env, nil, args...).end()
}

// killed runs a command that is killed at the beginning of a step.
func (w *world) killed(step string, args ...string) ran {
	w.t.Helper()
	r := w.inject("CROSSFADE_KILL="+step, args...)
	if r.exit != -1 {
		w.t.Fatalf("not killed at %s\n%s", step, r)
	}
	return r
}

// stopped starts a command and returns when it stands still at the beginning
// of a step. wake resumes it.
func (w *world) stopped(step string, args ...string) (l *live, wake func()) {
	w.t.Helper()
	return w.stoppedAnd(step, nil, args...)
}

// stoppedAnd is stopped for a command whose later events somebody watches.
func (w *world) stoppedAnd(step string, at func(p *os.Process, e event), args ...string) (l *live, wake func()) {
	w.t.Helper()
	l = w.follow(binary(w.t, "crossfade_panic"), "CROSSFADE_STOP="+step, at, args...)
	w.wait("the command to stop at "+step, func() bool {
		select {
		case <-l.done:
			w.t.Fatalf("it ended before %s\n%s", step, l.ran)
		default:
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", l.cmd.Process.Pid))
		_, state, _ := strings.Cut(string(b), ") ")
		return err == nil && strings.HasPrefix(state, "T")
	})
	return l, func() { _ = l.cmd.Process.Signal(syscall.SIGCONT) }
}

// wait polls a condition.
func (w *world) wait(what string, f func() bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-ctx.Done():
			w.t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

// takes reports whether a cluster takes a client's write in both databases.
// Nothing stays of it.
func (w *world) takes(c *lab.Cluster) bool {
	w.t.Helper()
	for db, sql := range map[string]string{
		"shop": "BEGIN; INSERT INTO public.log (line) VALUES ('probe'); ROLLBACK",
		"side": "BEGIN; UPDATE public.kept SET v = v WHERE k = 1; ROLLBACK",
	} {
		ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
		_, err := c.Query(ctx, db, sql)
		cancel()
		if err == nil {
			continue
		}
		var pgErr *pgconn.PgError
		if errors.As(err, &pgErr) && pgErr.Code != refused && pgErr.Code != noDatabase {
			w.t.Fatalf("a client's write on %s: %v", c.Name, err)
		}
		return false
	}
	return true
}

// truth asks status, and both sides themselves, who takes writes; they must
// say the same. It returns phase and writable.
func (w *world) truth() (phase, writable string) {
	w.t.Helper()
	s := w.status()
	old, fresh := w.takes(w.old), w.takes(w.new)
	is := map[[2]bool]string{{true, false}: "old", {false, true}: "new", {false, false}: "none", {true, true}: "both"}[[2]bool{old, fresh}]
	if s["writable"] != is {
		w.t.Errorf("status says writable %v, the servers say %s: %v", s["writable"], is, s)
	}
	if is == "both" {
		w.t.Fatalf("both sides take writes: %v", s)
	}
	return fmt.Sprint(s["phase"]), is
}

// load is clients: some through the pooler, one at each side directly all the
// time, whoever is open.
type load struct {
	w       *world
	next    int
	pool    *lab.Writer
	writers []*lab.Writer
	reports []lab.Report
}

func (w *world) load() *load { return &load{w: w, next: 1000} }

func (l *load) start() {
	l.w.t.Helper()
	write := func(conninfo string, n int, pause, retry time.Duration) *lab.Writer {
		l.next += n
		wr := l.w.Write(conninfo, lab.WriterOptions{Writers: n, Pause: pause, Retry: retry, FirstWorker: l.next - n})
		l.writers = append(l.writers, wr)
		return wr
	}
	through := l.w.old.Conninfo("shop")
	if l.w.pool != nil {
		through = l.w.pool.Conninfo("shop")
	}
	l.pool = write(through, 2, 5*time.Millisecond, 20*time.Millisecond)
	write(l.w.old.Conninfo("shop"), 1, 10*time.Millisecond, 50*time.Millisecond)
	write(l.w.new.Conninfo("shop"), 1, 10*time.Millisecond, 200*time.Millisecond)
}

func (l *load) stop() {
	for _, wr := range l.writers {
		l.reports = append(l.reports, wr.Stop())
	}
	l.writers, l.pool = nil, nil
}

// flow waits for rows through the pooler.
func (l *load) flow(n int64) {
	l.w.t.Helper()
	ctx, cancel := context.WithTimeout(l.w.t.Context(), time.Minute)
	defer cancel()
	if err := l.pool.Flow(ctx, n); err != nil {
		l.w.t.Fatal(err)
	}
}

// judge stops the clients and wants every row that was acknowledged to one of them on
// the final side exactly once; other may be nil.
func (l *load) judge(what string, final, other *lab.Cluster) {
	l.w.t.Helper()
	l.stop()
	far := ""
	if other != nil {
		far = other.Conninfo("shop")
	}
	v := l.w.Judge(final.Conninfo("shop"), far, l.reports...)
	if l.w.t.Failed() {
		l.w.t.Fatalf("%s: %s", what, v)
	}
}

// equal waits until both sides hold the same rows in every table of shop and
// side, and the same catalogs, without the tool's own objects. Nobody writes.
func (w *world) equal() {
	w.t.Helper()
	last := ""
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		last = ""
		for _, db := range []string{"shop", "side"} {
			if a, b := w.rows(w.old, db), w.rows(w.new, db); a != b {
				last = fmt.Sprintf("rows of %s:\nold:\n%s\nnew:\n%s", db, a, b)
			}
		}
		if last == "" {
			break
		}
		select {
		case <-ctx.Done():
			w.t.Fatal(last)
		case <-tick.C:
		}
	}
	for _, db := range []string{"shop", "side"} {
		if d := diff(w.dump(w.old, db), w.dump(w.new, db)); d != "" {
			w.t.Errorf("catalogs of %s, - old, + new:\n%s", db, d)
		}
	}
}

// rows is a line for every table: how many rows, and a hash of them all.
func (w *world) rows(c *lab.Cluster, db string) string {
	w.t.Helper()
	return w.Value(c, db, `
		SELECT string_agg(format('%s %s', t, (xpath('/row/c/text()', query_to_xml(format(
			'SELECT count(*) || '' '' || coalesce(sum(hashtextextended(r::text, 0)::numeric), 0) AS c FROM ONLY %s r', t), false, true, '')))[1]), E'\n' ORDER BY t::text)
		FROM (SELECT c.oid::regclass t FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'crossfade')) k`)
}

// noise are lines of a dump that differ without meaning.
var noise = regexp.MustCompile(`(?m)^(--.*|\\(un)?restrict .*|SET transaction_timeout = 0;|ALTER TABLE ONLY .* SET \(pg_attver=\d+\);)?\n`)

// fences are the statements of a dump that are the tool's own.
var fences = regexp.MustCompile(`(?m)^CREATE TRIGGER crossfade_fence .*\n|^CREATE EVENT TRIGGER crossfade_.*\n.*\n|^ALTER EVENT TRIGGER crossfade_.*\n`)

// firing are the statements of a dump that say when a trigger fires.
var firing = regexp.MustCompile(`(?m)^ALTER (TABLE .* (DISABLE|ENABLE ALWAYS|ENABLE REPLICA) TRIGGER .*|EVENT TRIGGER .* (DISABLE|ENABLE ALWAYS|ENABLE REPLICA);)\n`)

// named are the names that 18 has for NOT NULL, and prints where the table or the
// column had another name when it was made; earlier majors have none.
var named = regexp.MustCompile(`CONSTRAINT \w+_not_null NOT NULL`)

// dump is the schema of a database in the words of new's pg_dump, without what
// is the tool's own, and without the views: each major tells their queries in
// other words.
func (w *world) dump(c *lab.Cluster, db string) string {
	w.t.Helper()
	out, err := w.new.Command(w.t.Context(), "pg_dump", "-s", "-N", "crossfade", "-T", "totals", "-T", "best", "--no-publications", "--no-subscriptions", "-d", c.Conninfo(db)).Output()
	w.Must(err)
	// Triggers that fire on apply are disabled on the side that follows.
	text := named.ReplaceAllString(firing.ReplaceAllString(string(out), ""), "NOT NULL")
	return noise.ReplaceAllString(fences.ReplaceAllString(text, ""), "")
}

// footprint is everything about a cluster that somebody could find there: all
// roles, databases, settings and schemas, slots, origins and subscriptions.
func (w *world) footprint(c *lab.Cluster) string {
	w.t.Helper()
	out, err := w.new.Command(w.t.Context(), "pg_dumpall", "-s", "-d", c.Conninfo("")).Output()
	w.Must(err)
	more := w.Value(c, "", `
		SELECT coalesce(string_agg(l, E'\n' ORDER BY l), '') FROM (
			SELECT 'slot ' || slot_name FROM pg_replication_slots
			UNION ALL SELECT 'origin ' || roname FROM pg_replication_origin
			UNION ALL SELECT 'subscription ' || subname FROM pg_subscription
			UNION ALL SELECT 'setting ' || name || ' = ' || setting FROM pg_file_settings WHERE sourcefile LIKE '%auto.conf'
			UNION ALL SELECT 'prepared ' || gid FROM pg_prepared_xacts
			UNION ALL SELECT 'role ' || rolname FROM pg_roles
			UNION ALL SELECT 'session ' || application_name FROM pg_stat_activity WHERE application_name LIKE 'crossfade%') k(l)`)
	return noise.ReplaceAllString(string(out), "") + more + "\n"
}

// diff names lines that only one text has; "" where they are the same.
func diff(a, b string) string {
	count := map[string]int{}
	for l := range strings.Lines(a) {
		count[l]--
	}
	for l := range strings.Lines(b) {
		count[l]++
	}
	var s strings.Builder
	for _, text := range []string{a, b} {
		for l := range strings.Lines(text) {
			switch n := count[l]; {
			case n < 0:
				s.WriteString("- " + l)
			case n > 0:
				s.WriteString("+ " + l)
			}
			count[l] = 0
		}
	}
	return s.String()
}

// part runs a part of a test in the world as the parts before have left it;
// when one fails, the next would begin where nobody knows.
func (w *world) part(name string, f func(t *testing.T)) {
	t := w.t.(*testing.T)
	t.Run(name, func(sub *testing.T) {
		w.t = sub
		defer func() { w.t = t }()
		f(sub)
	})
	if t.Failed() {
		t.FailNow()
	}
}

// noJournal deletes the journal, as a careful operator would not.
func (w *world) noJournal() {
	w.t.Helper()
	files, err := filepath.Glob(filepath.Join(w.dir, "*.journal"))
	w.Must(err)
	for _, f := range files {
		w.Must(os.Remove(f))
	}
}

type cluster = lab.Cluster

// onlyFence wants of the whole upgrade nothing but old's fence.
func (w *world) onlyFence() {
	w.t.Helper()
	const left = `
		SELECT coalesce(string_agg(l, E'\n' ORDER BY l), '') FROM (
			SELECT 'publication ' || pubname FROM pg_publication
			UNION ALL SELECT 'subscription ' || subname FROM pg_subscription
			UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots
			UNION ALL SELECT 'origin ' || roname FROM pg_replication_origin
			UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger
			UNION ALL SELECT 'setting ' || name FROM pg_file_settings WHERE sourcefile LIKE '%auto.conf'
			UNION ALL SELECT 'object ' || c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'crossfade'
			UNION ALL SELECT 'function ' || p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'crossfade'
			UNION ALL SELECT DISTINCT 'trigger ' || tgname FROM pg_trigger WHERE tgname LIKE 'crossfade%'
			UNION ALL SELECT 'default ' || c FROM pg_db_role_setting r, unnest(setconfig) c WHERE r.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())) k(l)`
	for _, db := range []string{"shop", "side"} {
		want := "default default_transaction_read_only=on\nfunction fence\nobject crossfade.refused\ntrigger crossfade_fence"
		if got := w.Value(w.old, db, left); got != want {
			w.t.Errorf("left in %s on old:\n%s", db, got)
		}
		if got := w.Value(w.new, db, left); got != "" {
			w.t.Errorf("left in %s on new:\n%s", db, got)
		}
	}
	w.refuses("public.log (line) VALUES ('x')")
}

// refuses wants a superuser's explicit write on old to fail with 25006.
func (w *world) refuses(insert string) {
	w.t.Helper()
	_, err := w.old.Query(w.t.Context(), "shop", "BEGIN READ WRITE; INSERT INTO "+insert)
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != "25006" {
		w.t.Errorf("a superuser's INSERT on the closed old: %v", err)
	}
}
