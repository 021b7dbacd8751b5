package runbook

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/cutover/traffic"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// reportOf is everything that Read says of a text, as a person sees it.
func reportOf(t *testing.T, name string, text []byte) string {
	t.Helper()
	rb, warnings, err := parse(name, text)
	var b strings.Builder
	for _, p := range warnings {
		if !p.Warning {
			t.Errorf("%s is among the warnings and is none", p)
		}
		fmt.Fprintf(&b, "%s\n%s", p, p.Excerpt())
	}
	if err == nil {
		if rb == nil {
			t.Fatal("neither a runbook nor an error")
		}
		return b.String() + "read\n"
	}
	var re *Error
	if !errors.As(err, &re) || rb != nil || len(re.Problems) == 0 {
		t.Fatalf("runbook %v with error %T %v; want no runbook and a *Error with problems", rb, err, err)
	}
	for _, p := range re.Problems {
		if p.Warning {
			t.Errorf("%s is among the mistakes and is none", p)
		}
		fmt.Fprintf(&b, "%s\n%s", p, p.Excerpt())
	}
	return b.String()
}

// Every file of testdata has what Read says of it beside it.
func TestReadGolden(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no runbooks to read: %v", err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := reportOf(t, name, text)
			for range 3 {
				if again := reportOf(t, name, text); again != got {
					t.Fatalf("another answer the second time:\n%s", cmp.Diff(got, again))
				}
			}
			if strings.Contains(got, "geheim") {
				t.Errorf("a password is shown:\n%s", got)
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// compareProblems compares runbooks by what they say, not by where it stands.
var compareProblems = cmp.Options{
	cmp.Comparer(func(a, b Position) bool { return true }),
	cmp.Comparer(func(a, b Pattern) bool { return a.String() == b.String() }),
	cmp.Comparer(func(a, b *time.Location) bool {
		return (a == nil) == (b == nil) && (a == nil || a.String() == b.String())
	}),
}

func must(t *testing.T, text string) *Runbook {
	t.Helper()
	rb, _, err := parse("rb.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return rb
}

func TestReadThisVersion(t *testing.T) {
	t.Parallel()
	const file = "testdata/this_version.yaml"
	rb, warnings, err := Read(file)
	if err != nil || len(warnings) > 0 {
		t.Fatalf("warnings %v, error %v", warnings, err)
	}
	journal, err := filepath.Abs("testdata/wacken17.journal")
	if err != nil {
		t.Fatal(err)
	}
	zone, err := time.LoadLocation("Europe/Brussels")
	if err != nil {
		t.Fatal(err)
	}
	want := contract(file, journal, zone)
	if diff := cmp.Diff(want, rb, compareProblems); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// contract is the contract's example as far as this version goes.
func contract(file, journal string, zone *time.Location) *Runbook {
	sync := "ANY 1 (metal, rock)"
	pattern := func(s string) Pattern { return Pattern{text: s} }
	return &Runbook{
		Upgrade: "wacken17",
		File:    file,
		Old: Old{
			Primary:  "host=wacken dbname=postgres user=crossfade",
			Bin:      "/usr/lib/postgresql/15/bin",
			Host:     HostLocal,
			Standbys: []OldStandby{{Name: "metal", Conninfo: "host=metal user=crossfade", Host: HostLocal}},
		},
		New: []NewCluster{{
			Cluster: "wacken17",
			Primary: "host=wacken17 dbname=postgres user=crossfade",
			FromNew: "host=wacken user=replicator",
			FromOld: "host=wacken17 user=replicator",
			Host:    HostLocal,
			Bin:     "/usr/lib/postgresql/17/bin",
			Standbys: []Standby{{
				Name:     "metal",
				Conninfo: "host=metal port=5433 user=crossfade",
				Host:     HostLocal,
				Bin:      "/usr/lib/postgresql/17/bin",
				Data:     "/var/lib/postgresql/17/main",
				Config:   "/etc/postgresql/17/main",
				Start:    []string{"systemctl", "start", "postgresql@17-main"},
				Upstream: UpstreamPrimary,
				Slot:     "metal",
				Settings: []Setting{{"hot_standby_feedback", "on"}},
			}},
			SynchronousStandbyNames: &sync,
		}},
		Databases: []Database{{
			Name:     "shop",
			Exclude:  []Pattern{pattern("audit.*")},
			Identity: []Identity{{Table: TableName{"public", "log"}}},
			Sets: []Set{
				{Name: "orders", Tables: []Pattern{pattern("public.orders"), pattern("public.order_lines")}},
				{Name: "rest", Tables: []Pattern{pattern("*")}},
			},
		}},
		Copy:    Copy{Jobs: 4, IndexJobs: 2, Chunk: 1073741824, Limit: 209715200},
		Catchup: Catchup{MaxLag: 16777216, Stable: 10 * time.Second, MaxWAL: 53687091200},
		Verify:  Verify{Mode: VerifyFull},
		Cutover: Cutover{
			Window: Window{
				Zone: zone, Days: []time.Weekday{time.Saturday, time.Sunday},
				From: 2 * time.Hour, To: 4 * time.Hour,
			},
			MaxBlocked: 5 * time.Second, LockTimeout: 400 * time.Millisecond, Patience: 10 * time.Minute,
			Approve: ApprovePrompt, Back: true, SequenceMargin: 1000,
			Traffic: []Traffic{
				{Entry: &traffic.PgBouncerEntry{
					Databases: []string{"shop"},
					Instances: []traffic.PgBouncerInstance{{Admin: "host=pool1 port=6432 user=pgbouncer", Config: "/etc/pgbouncer/pgbouncer.ini"}},
				}},
				{Entry: &traffic.HookEntry{Run: []string{"/usr/local/bin/move-dns"}, Timeout: 10 * time.Second}},
			},
		},
		Hooks: Hooks{
			BeforeCutover: &Hook{Run: []string{"/usr/local/bin/tell-oncall"}, Timeout: 30 * time.Second},
			AfterOpen:     &Hook{Run: []string{"/usr/local/bin/start-cron"}, Timeout: 30 * time.Second},
		},
		Accept:  []Accept{{ID: "large-objects"}, {ID: "unlogged", Object: "public.cache"}},
		Journal: journal,
	}
}

// Findings of the servers are reported where the runbook has their cause.
func TestReadPositions(t *testing.T) {
	t.Parallel()
	rb, _, err := Read("testdata/this_version.yaml")
	if err != nil {
		t.Fatal(err)
	}
	db := rb.Databases[0]
	for _, c := range []struct {
		what         string
		at           Position
		line, column int
	}{
		{"old standby", rb.Old.Standbys[0].At, 8, 7},
		{"cluster", rb.New[0].At, 12, 5},
		{"standby", rb.New[0].Standbys[0].At, 20, 9},
		{"database", db.At, 34, 5},
		{"exclude", db.Exclude[0].At, 35, 15},
		{"identity", db.Identity[0].At, 36, 16},
		{"set", db.Sets[1].At, 39, 9},
		{"pattern", db.Sets[0].Tables[1].At, 38, 48},
		{"window", rb.Cutover.Window.At, 45, 11},
		{"traffic", rb.Cutover.Traffic[1].At, 55, 7},
		{"hook", rb.Hooks.AfterOpen.At, 58, 15},
		{"accept", rb.Accept[1].At, 59, 25},
	} {
		if c.at.Line != c.line || c.at.Column != c.column {
			t.Errorf("%s is at %d:%d, want %d:%d", c.what, c.at.Line, c.at.Column, c.line, c.column)
		}
	}
}

// What is not written has the contract's defaults: the example writes them.
func TestReadDefaults(t *testing.T) {
	t.Parallel()
	full, _, err := Read("testdata/this_version.yaml")
	if err != nil {
		t.Fatal(err)
	}
	rb, _, err := Read("testdata/minimal.yaml")
	if err != nil {
		t.Fatal(err)
	}
	full.Cutover.Window, full.Cutover.Traffic, full.Copy.Limit = Window{}, nil, 0
	want := &Runbook{
		Upgrade: "w17",
		File:    "testdata/minimal.yaml",
		Old:     Old{Primary: "host=wacken"},
		New:     []NewCluster{{Cluster: "w17", Primary: "postgresql://crossfade@wacken17:5433/postgres"}},
		Copy:    full.Copy, Catchup: full.Catchup, Verify: full.Verify, Cutover: full.Cutover,
		Journal: filepath.Join(filepath.Dir(full.Journal), "w17.journal"),
	}
	if diff := cmp.Diff(want, rb, compareProblems); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

const head = "upgrade: w17\nold: {primary: host=wacken}\nnew: [{cluster: w17, primary: host=w17}]\n"

func TestReadValues(t *testing.T) {
	t.Parallel()
	rb := must(t, head+`
databases: [{name: shop, identity: {'public."Log"': 'index:Odd "key"'}}, {name: "17"}]
copy: {chunk: 1.5 MB, jobs: 7}
catchup: {max_lag: 512B, max_wal: 2TB, stable: 0}
verify: {mode: counts}
cutover:
  window: {zone: UTC, from: "22:30", to: "24:00"}
  kill_after: 1m30s
  approve: file:sub/../go
  back: false
  sequences: {margin: 0}
  traffic:
    - hook: {run: [true, 010, -x], timeout: 2m}
    - pgbouncer: {databases: ["*"], instances: [{admin: host=p, config: p.ini}]}
accept: [large-objects, "unlogged:public.a:b"]
journal: /var/lib/crossfade/../w17.journal
`)
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"chunk", rb.Copy.Chunk, int64(3 << 19)},
		{"jobs", rb.Copy.Jobs, 7},
		{"max_lag", rb.Catchup.MaxLag, int64(512)},
		{"max_wal", rb.Catchup.MaxWAL, int64(2 << 40)},
		{"stable", rb.Catchup.Stable, time.Duration(0)},
		{"mode", rb.Verify.Mode, VerifyCounts},
		{"from", rb.Cutover.Window.From, 22*time.Hour + 30*time.Minute},
		{"to", rb.Cutover.Window.To, 24 * time.Hour},
		{"zone", rb.Cutover.Window.Zone, time.UTC},
		{"days", rb.Cutover.Window.Days, []time.Weekday(nil)},
		{"kill_after", rb.Cutover.KillAfter, 90 * time.Second},
		{"approve", rb.Cutover.Approve, ApproveByFile},
		{"approve file", rb.Cutover.ApproveFile, filepath.Join(dir, "go")},
		{"back", rb.Cutover.Back, false},
		{"margin", rb.Cutover.SequenceMargin, int64(0)},
		{"run", rb.Cutover.Traffic[0].Entry.(*traffic.HookEntry).Run, []string{"true", "010", "-x"}},
		{"config", rb.Cutover.Traffic[1].Entry.(*traffic.PgBouncerEntry).Instances[0].Config, filepath.Join(dir, "p.ini")},
		{"accept", rb.Accept[1].Object, "public.a:b"},
		{"journal", rb.Journal, "/var/lib/w17.journal"},
		{"identity", rb.Databases[0].Identity[0].Table, TableName{"public", "Log"}},
		{"index", rb.Databases[0].Identity[0].Index, `Odd "key"`},
		{"default set", rb.Databases[1].Sets, DefaultDatabase("17").Sets},
	} {
		if diff := cmp.Diff(c.want, c.got, compareProblems); diff != "" {
			t.Errorf("%s: -want +got:\n%s", c.what, diff)
		}
	}
}

// The contract writes host: local: without quotes, which YAML alone refuses.
func TestReadBareLocal(t *testing.T) {
	t.Parallel()
	for _, old := range []string{
		`old: {primary: host=w, host: local:}`,
		`old: {primary: host=w, host: local: }`,
		`old: {host: local:, primary: host=w}`,
		"old:\n  host: local:\n  primary: host=w",
		"old:\n  host: local: # here\n  primary: host=w",
		"old:\r\n  host:  local:\r\n  primary: host=w",
		`old: {primary: host=w, host: "local:"}`,
		`old: {primary: host=w, host: local}`,
	} {
		rb := must(t, "upgrade: w17\nnew: [{cluster: w17, primary: host=w17}]\n"+old+"\n")
		if rb.Old.Host != HostLocal || rb.Old.Primary != "host=w" {
			t.Errorf("%q: host %q, primary %q", old, rb.Old.Host, rb.Old.Primary)
		}
	}
}

func TestReadUnreadable(t *testing.T) {
	t.Parallel()
	_, _, err := Read("testdata/none.yaml")
	var re *Error
	if !errors.As(err, &re) || !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %T %v, want a *Error that is ErrNotExist", err, err)
	}
	const want = "testdata/none.yaml: the runbook cannot be read: no such file or directory"
	if err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
	if ex := re.Problems[0].Excerpt(); ex != "" {
		t.Errorf("there is no line to show, got %q", ex)
	}
}

// What the YAML library refuses without a word of where is still a mistake.
func TestReadDeep(t *testing.T) {
	t.Parallel()
	_, _, err := parse("rb.yaml", []byte(head+"accept: "+strings.Repeat("[", 20000)))
	var re *Error
	if !errors.As(err, &re) || len(re.Problems) != 1 || !strings.HasPrefix(re.Problems[0].Says, "not YAML: ") {
		t.Fatalf("got %v", err)
	}
	if re.Problems[0].Line != 4 {
		t.Errorf("got %v, want it in line 4", err)
	}
}

func TestProblem(t *testing.T) {
	t.Parallel()
	rb := must(t, head+"databases:\n  - {name: shöp, exclude: [audit.x]}\n")
	at := rb.Databases[0].Exclude[0].At
	p := rb.Problem(at, "audit.x: gone")
	if got, want := p.String(), "rb.yaml:5:28: audit.x: gone"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := p.Excerpt(), "      - {name: shöp, exclude: [audit.x]}\n"+strings.Repeat(" ", 4+27)+"^\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if at.Problem("x") != rb.Problem(at, "x") {
		t.Error("a position and its runbook make different problems")
	}
	p = rb.Problem(Position{}, "nowhere")
	p.Warning = true
	if got, want := p.String()+p.Excerpt(), "rb.yaml: warning: nowhere"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := (Position{}).Problem("nowhere").String(); got != "nowhere" {
		t.Errorf("got %q", got)
	}
	long := Problem{File: "f", Line: 1, Column: 201, Source: strings.Repeat("a", 200) + "X" + strings.Repeat("b", 200)}
	if got, want := long.Excerpt(), "    …"+strings.Repeat("a", 100)+"X"+strings.Repeat("b", 99)+"…\n"+strings.Repeat(" ", 4+101)+"^\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	tab := Problem{File: "f", Line: 1, Column: 3, Source: "a\tb"}
	if got, want := tab.Excerpt(), "    a\tb\n     \t^\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The example runbooks are the seeds; what is found is kept
// under testdata/fuzz.
func FuzzRead(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		rb, warnings, err := parse("rb.yaml", text)
		if (rb == nil) == (err == nil) {
			t.Fatalf("runbook %v, error %v", rb, err)
		}
		problems := slices.Clone(warnings)
		var re *Error
		if errors.As(err, &re) {
			problems = append(problems, re.Problems...)
		}
		lines := strings.Count(string(text), "\n") + 1
		for _, p := range problems {
			if p.Line < 1 || p.Line > lines || p.Column < 1 || strings.Contains(p.String(), "\n") {
				t.Errorf("%q of %d lines", p, lines)
			}
			_ = p.Excerpt()
		}
		if rb == nil {
			return
		}
		for _, db := range rb.Databases {
			Assign(db, []TableName{{"public", "orders"}, {"audit", "log"}})
		}
	})
}
