// Package bench measures what decides whether people can use crossfade on a big
// database, beside what they would use instead, on the same clusters in the
// same run: the copy, the comparison, the cutover and the catch-up.
//
// Absolute times are those of one machine at one moment, so competitors take
// turns within a run and what counts is the ratio of their medians. A result
// counts only where what it left was looked at and is whole.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"crossfade/scenarios"
	"crossfade/scenarios/lab"
)

// Options says what to measure.
type Options struct {
	// Old and New are the majors. 0: 15 and 17.
	Old, New int
	// MB is about how large the data set of the copy is, without its indexes. 0: 200.
	MB int
	// Rounds is how often each competitor runs. 0: 3.
	Rounds int
	// Jobs is how many tables, and how many indexes, everybody does at once. 0: as many as there are cores.
	Jobs int
	// Tables are the sizes of the cutover's databases. nil: 10, 1000, 10000.
	Tables []int
	// Shapes are the names of the skewed data sets to copy. nil: all of Shapes().
	Shapes []string
	// Sections are those to measure. nil: all of Sections().
	Sections []string
	// Binary is the crossfade to measure. "": built from this module.
	Binary string
	// Out is given the result as it stands; Say what takes long.
	Out io.Writer
	Say func(line string)
}

// section is one chapter of the report.
type section struct {
	name    string
	measure func(*bench, context.Context) (*Report, error)
}

// sections in the order of the report.
var sections = []section{
	{"copy", (*bench).copies},
	{"shapes", (*bench).shapes},
	{"growth", (*bench).growth},
	{"profile", (*bench).profiles},
	{"limit", (*bench).limits},
	{"compare", (*bench).compares},
	{"cutover", (*bench).cutovers},
	{"catchup", (*bench).catchups},
}

// Sections are the names of what can be measured.
func Sections() []string {
	names := make([]string, len(sections))
	for i, s := range sections {
		names[i] = s.name
	}
	return names
}

// Shapes are the names of the skewed data sets.
func Shapes() []string {
	names := make([]string, len(skewed))
	for i, s := range skewed {
		names[i] = s.name
	}
	return names
}

// bench is one run.
type bench struct {
	Options
	lab *lab.Lab
	dir string // of files that the servers' owner may read
	old *lab.Cluster
	// pgcopydb is its path, or why there is none.
	pgcopydb   string
	noPgcopydb error
	count      int // of new clusters
}

// Run measures and writes the report, section by section, into the file at
// path, where it takes the place of what stood there of that section.
func Run(ctx context.Context, o Options, path string) (err error) {
	if err := o.ready(); err != nil {
		return err
	}
	b := &bench{Options: o}
	if b.lab, err = lab.New(ctx, lab.Config{Store: &lab.Store{Say: o.Say}}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.lab.Down(context.WithoutCancel(ctx))) }()
	if err := b.tools(ctx); err != nil {
		return err
	}
	for _, s := range sections {
		if !slices.Contains(o.Sections, s.name) {
			continue
		}
		began := time.Now()
		o.Say("measuring " + s.name)
		r, err := s.measure(b, ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		r.Name, r.Where = s.name, b.where(r.Once, time.Since(began))
		if _, err := io.WriteString(o.Out, r.Text()+"\n"); err != nil {
			return err
		}
		if err := r.keep(path); err != nil {
			return err
		}
	}
	return nil
}

func (o *Options) ready() error {
	if o.Old == 0 {
		o.Old = 15
	}
	if o.New == 0 {
		o.New = 17
	}
	if o.MB == 0 {
		o.MB = 200
	}
	if o.Rounds == 0 {
		o.Rounds = 3
	}
	if o.Jobs == 0 {
		o.Jobs = runtime.NumCPU()
	}
	if o.Tables == nil {
		o.Tables = []int{10, 1000, 10000}
	}
	if o.Sections == nil {
		o.Sections = Sections()
	}
	if o.Shapes == nil {
		o.Shapes = Shapes()
	}
	if o.Say == nil {
		o.Say = func(string) {}
	}
	for _, name := range o.Shapes {
		if !slices.Contains(Shapes(), name) {
			return fmt.Errorf("there is no shape called %q; there are %s", name, strings.Join(Shapes(), ", "))
		}
	}
	for _, name := range o.Sections {
		if !slices.Contains(Sections(), name) {
			return fmt.Errorf("nothing called %q can be measured; there are %s", name, strings.Join(Sections(), ", "))
		}
	}
	return nil
}

// tools gets the programs to be measured: into a folder that the servers'
// owner may enter, as whom all of them run.
func (b *bench) tools(ctx context.Context) (err error) {
	b.dir = filepath.Join(b.lab.Dir, "bench")
	if _, err := b.lab.Run(ctx, "mkdir", "-p", b.dir); err != nil {
		return err
	}
	into := filepath.Join(b.lab.Dir, "bin")
	if err := os.MkdirAll(into, 0o755); err != nil {
		return err
	}
	if b.Binary == "" {
		b.Binary, err = scenarios.Build(ctx, into)
	} else {
		given := b.Binary
		b.Binary = filepath.Join(into, "crossfade")
		err = exec.CommandContext(ctx, "install", given, b.Binary).Run()
	}
	if err != nil {
		return err
	}
	b.pgcopydb, b.noPgcopydb = b.lab.Store.Program(ctx, "pgcopydb")
	if b.noPgcopydb != nil {
		b.Say("pgcopydb is left out: " + b.noPgcopydb.Error())
	}
	return nil
}

// settings are those of both servers, for everybody: a server of this size as
// one would set it up for a load.
func settings() map[string]string {
	return map[string]string{
		"shared_buffers": "256MB", "maintenance_work_mem": "256MB", "max_wal_size": "8GB", "checkpoint_timeout": "30min",
		"max_wal_senders": "40", "max_replication_slots": "160", "max_worker_processes": "40",
		"max_logical_replication_workers": "24", "max_sync_workers_per_subscription": "4",
		"wal_retrieve_retry_interval": "100ms", "autovacuum": "off", "max_connections": "100",
	}
}

// start makes a cluster.
func (b *bench) start(ctx context.Context, name string, major int) (*lab.Cluster, error) {
	return b.lab.Start(ctx, lab.Options{Name: name, Major: major, Settings: settings(), Fsync: true})
}

// oldCluster is the one old cluster of the run.
func (b *bench) oldCluster(ctx context.Context) (*lab.Cluster, error) {
	if b.old != nil {
		return b.old, nil
	}
	c, err := b.start(ctx, fmt.Sprintf("old%d", b.Old), b.Old)
	if err == nil {
		b.old = c
	}
	return c, err
}

// newCluster makes an empty new cluster; the caller removes it.
func (b *bench) newCluster(ctx context.Context) (*lab.Cluster, error) {
	b.count++
	return b.start(ctx, fmt.Sprintf("new%d", b.count), b.New)
}

// where says on what was measured.
func (b *bench) where(once bool, took time.Duration) string {
	rounds := fmt.Sprintf("%d rounds", b.Rounds)
	if once {
		rounds = "each once"
	}
	return fmt.Sprintf("PostgreSQL %d → %d on one machine with %d cores, fsync on, %d jobs each, %s; measured on %s in %s.%s",
		b.Old, b.New, runtime.NumCPU(), b.Jobs, rounds, time.Now().UTC().Format("2006-01-02"), took.Round(time.Second), disturbed())
}

// disturbed says when the machine had other work: then seconds say little, and
// ratios more.
func disturbed() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	var one, five float64
	// Everybody's jobs and the servers that they keep busy are some three times the cores.
	if _, err := fmt.Sscan(string(text), &one, &five); err != nil || five < float64(4*runtime.NumCPU()) {
		return ""
	}
	return fmt.Sprintf(" **Other work ran beside it: a load of %.0f on %d cores. Seconds are several times what they are on a quiet machine.**", five, runtime.NumCPU())
}
