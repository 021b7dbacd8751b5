// Package monkey breaks things at random while two people on two machines take a
// cluster to a new major version and back, and judges what became of the
// application's data.
//
// The judges know nothing of crossfade but its commands and exit codes: they have
// the clients' own list of acknowledged rows, the sums of a bank, every value
// that a sequence handed out, and what both sides answered to clients that never
// stop trying to write to each. What happens is drawn from a seed, and is printed
// as a script that can be played again; how quick the servers are is not.
//
// Run is where to begin reading. It is for cmd/lab and tests.
package monkey

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"crossfade/scenarios/lab"
)

// Options says what to play.
type Options struct {
	// Seed decides every action and every fault.
	Seed uint64
	// For is how long rounds are begun; what a round began is ended. 0: one minute.
	For time.Duration
	// Script is played instead of what the seed draws. nil: the seed's.
	Script []Round
	// Crossfade is the binary under test. Required.
	Crossfade string
	// Evidence is the folder that history, logs and journals are kept in when a rule
	// was broken; it must not exist. "": a new one among the system's temporary files.
	Evidence string
	// Served is how long clients may be without an answer once a command has ended
	// and nothing is broken; a command may take twelve times as long, and the
	// runbook's max_blocked is half of it, so that a slow machine needs one number. 0: 10 s.
	Served time.Duration
	// Out is given what happens, a line each. nil: nobody.
	Out io.Writer
}

// Violation is a rule that was broken.
type Violation struct {
	Rule string // rows, bank, numbers, both, served, exit, hang, stuck, equal
	Says string
}

func (v Violation) String() string { return v.Rule + ": " + v.Says }

// Result is what a run has seen.
type Result struct {
	Seed       uint64
	Rounds     int
	Acked      int64 // rows
	Values     int64 // of the sequence
	Probes     int64 // attempts to write to one side or the other directly, refused ones too
	Switches   int   // of the side that takes writes, as the clients saw it
	Faults     map[string]int
	Exits      map[string]int // of commands
	Longest    time.Duration  // that clients waited for an answer after a command
	Script     []Round
	Violations []Violation
	Evidence   string // the folder, where a rule was broken
}

// Figures is the result as one line.
func (r *Result) Figures() string {
	var kinds []string
	for _, k := range slices.Sorted(maps.Keys(r.Faults)) {
		kinds = append(kinds, fmt.Sprintf("%s %d", k, r.Faults[k]))
	}
	return fmt.Sprintf("seed %d: %d rounds, %d rows, %d values, %d probes, %d switches, longest wait %s, faults: %s; %d violations",
		r.Seed, r.Rounds, r.Acked, r.Values, r.Probes, r.Switches, r.Longest.Round(time.Millisecond), strings.Join(kinds, ", "), len(r.Violations))
}

// run is one run.
type run struct {
	Options
	dir    string // of the history and the commands' output
	began  time.Time
	limit  time.Duration // that a command may take when nothing is broken
	stage  *stage
	load   *load
	book   *book
	result *Result

	mu         sync.Mutex
	typedCount int
	commands   []*command
	crashes    []crash
	hurts      map[string]bool // what is broken now, by target
	broken     map[string]bool // rules that were reported already and are not again
}

// Run plays a seed or a script. The error is for what kept it from playing; the
// rules that were broken are in the result.
func Run(ctx context.Context, o Options) (result *Result, err error) {
	o.For = cmp.Or(o.For, time.Minute)
	o.Served = cmp.Or(o.Served, 10*time.Second)
	if o.Out == nil {
		o.Out = io.Discard
	}
	dir, err := os.MkdirTemp("", "monkey-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	l, err := lab.New(ctx, lab.Config{})
	if err != nil {
		return nil, err
	}
	defer func() {
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, l.Down(down))
	}()
	r := &run{
		Options: o, dir: dir, began: time.Now(), limit: 12 * o.Served, hurts: map[string]bool{}, broken: map[string]bool{},
		result: &Result{Seed: o.Seed, Faults: map[string]int{}, Exits: map[string]int{}},
	}
	file, err := os.Create(filepath.Join(dir, "history.jsonl"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	r.book = &book{began: r.began, file: file}
	if r.stage, err = boot(ctx, l, o.Crossfade, filepath.Join(dir, "machines"), o.Served); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.stage.close()) }()
	if r.load, err = newLoad(r.stage); err != nil {
		return nil, err
	}
	r.load.began = r.began
	r.load.start(ctx)
	defer r.load.stop()
	if err := r.play(ctx); err != nil {
		return nil, err
	}
	if err := r.judge(ctx); err != nil {
		return nil, err
	}
	r.figures()
	if len(r.result.Violations) > 0 {
		if err := r.evidence(); err != nil {
			return r.result, err
		}
	}
	return r.result, nil
}

func (r *run) now() time.Duration { return time.Since(r.began) }

func (r *run) say(format string, args ...any) {
	_, _ = fmt.Fprintf(r.Out, "%8s  %s\n", clock(r.now()), fmt.Sprintf(format, args...)) // nobody may be listening
}

func (r *run) count(what string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if exit, ok := strings.CutPrefix(what, "exit "); ok {
		r.result.Exits[exit] += n
		return
	}
	r.result.Faults[what] += n
}

func (r *run) crashed(c crash) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.crashes = append(r.crashes, c)
}

// violate notes a broken rule.
func (r *run) violate(rule, format string, args ...any) {
	v := Violation{rule, fmt.Sprintf(format, args...)}
	r.mu.Lock()
	r.result.Violations = append(r.result.Violations, v)
	r.mu.Unlock()
	r.book.note("violation", "rule", rule, "says", v.Says)
	r.say("BROKEN %s", v)
}

// play does the rounds, and ends the upgrade.
func (r *run) play(ctx context.Context) error {
	r.say("seed %d", r.Seed)
	if !r.settle(ctx, "a", "prepare") {
		return nil
	}
	s := newScript(r.Seed)
	began := time.Now()
	for i := 0; ; i++ {
		var next Round
		switch {
		case r.Script != nil && i >= len(r.Script), r.Script == nil && time.Since(began) >= r.For:
			return r.end(ctx, s)
		case r.Script != nil:
			next = r.Script[i]
		default:
			next = s.next()
		}
		if goOn, err := r.round(ctx, next); err != nil || !goOn {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// end wants both sides to be equal once nobody writes, and finishes.
func (r *run) end(ctx context.Context, s *script) error {
	if r.Script == nil || r.Script[len(r.Script)-1].Command != "finish" {
		if err := r.equal(ctx); err != nil {
			return err
		}
		_, err := r.round(ctx, s.last())
		return err
	}
	return nil
}

// evidence keeps what explains a broken rule.
func (r *run) evidence() error {
	to := r.Evidence
	if to == "" {
		var err error
		if to, err = os.MkdirTemp("", fmt.Sprintf("crossfade-monkey-%d-", r.Seed)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	r.result.Evidence = to
	var lines strings.Builder
	for _, round := range r.result.Script {
		lines.WriteString(round.String() + "\n")
	}
	if err := os.WriteFile(filepath.Join(to, "script"), []byte(lines.String()), 0o644); err != nil {
		return err
	}
	all := append(r.load.acks(false), r.load.acks(true)...)
	slices.SortFunc(all, func(a, b ack) int { return cmp.Compare(a.end, b.end) })
	file, err := os.Create(filepath.Join(to, "answers"))
	if err != nil {
		return err
	}
	if err := errors.Join(writeAcks(file, all), file.Close()); err != nil {
		return err
	}
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Type().IsRegular() {
			b, err := os.ReadFile(filepath.Join(r.dir, e.Name()))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(to, e.Name()), b, 0o644); err != nil {
				return err
			}
		}
	}
	return r.stage.keep(to)
}
