package monkey

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// mending is a fault that is in force.
type mending struct {
	fault Fault
	mend  func(context.Context) error
	once  sync.Once
}

// round plays one round. It says whether there is anything to go on with.
func (r *run) round(ctx context.Context, next Round) (bool, error) {
	r.result.Script = append(r.result.Script, next)
	r.result.Rounds++
	r.say("%s", next)
	r.book.note("round", "line", next.String())
	var (
		mu       sync.Mutex
		force    []*mending
		pending  sync.WaitGroup
		main     *command
		started  = make(chan struct{})
		others   []*command
		failures []error
	)
	inflict := func(f Fault, held bool) {
		<-started
		limit, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if held {
			main.signal(syscall.SIGSTOP)
		}
		mend, err := r.inflict(limit, f, main)
		if held {
			main.signal(syscall.SIGCONT)
		}
		r.book.note("fault", "is", f.String(), "error", fmt.Sprint(err))
		if err != nil {
			if !errors.Is(err, errNotHere) {
				mu.Lock()
				failures = append(failures, fmt.Errorf("%s: %w", f, err))
				mu.Unlock()
			}
			return
		}
		r.count(f.Target+" "+f.Kind, 1)
		if mend == nil {
			return
		}
		m := &mending{fault: f, mend: mend}
		mu.Lock()
		force = append(force, m)
		r.hurts[f.Target] = true
		mu.Unlock()
		if f.For > 0 {
			pending.Go(func() {
				select {
				case <-time.After(f.For):
				case <-ctx.Done():
				}
				if err := r.mended(ctx, m); err != nil {
					mu.Lock()
					failures = append(failures, err)
					mu.Unlock()
				}
			})
		}
	}
	var watch []watcher
	at := func(w When, do func(held bool)) {
		if w.Step != "" {
			pending.Add(1)
			watch = append(watch, watcher{w.Step, func(reached bool) {
				if !reached {
					pending.Done()
					return
				}
				if w.After == 0 {
					do(true)
					pending.Done()
					return
				}
				time.AfterFunc(w.After, func() { do(false); pending.Done() })
			}})
			return
		}
		pending.Add(1)
		time.AfterFunc(w.After, func() { do(false); pending.Done() })
	}
	before := []Fault{} // what has to be so when the command is typed
	for _, f := range next.Faults {
		if f.When == (When{}) {
			before = append(before, f)
			continue
		}
		at(f.When, func(held bool) { inflict(f, held && f.Target != "tool") })
	}
	if o := next.Other; o != nil {
		at(o.When, func(bool) {
			<-started
			c, err := r.typed(o.Machine, o.Command)
			mu.Lock()
			defer mu.Unlock()
			if failures = append(failures, err); err == nil {
				others = append(others, c)
			}
		})
	}
	for _, f := range before {
		if f.Target == "journal" {
			main = &command{machine: next.Machine}
			close(started)
			inflict(f, false)
			started = make(chan struct{})
		}
	}
	var err error
	if main, err = r.typed(next.Machine, next.Command, watch...); err != nil {
		return false, err
	}
	close(started)
	ended := r.wait(main, r.limit+30*time.Second)
	// Until here may be broken what lasts until the command has ended.
	mu.Lock()
	concurrent := len(others) > 0
	inForce := slices.Clone(force)
	mu.Unlock()
	if ended && !concurrent {
		r.stillServed(ctx, next, main, inForce)
	}
	pending.Wait()
	for _, m := range force {
		if err := r.mended(ctx, m); err != nil {
			failures = append(failures, err)
		}
	}
	healed := r.now()
	for _, c := range others {
		if !r.wait(c, r.limit) {
			r.violate("hang", "%s on %s did not end within %s of the end of all faults", c.command, c.machine, r.limit)
		}
	}
	if !ended {
		r.violate("hang", "%s on %s did not end within %s (%s)", next.Command, next.Machine, r.limit+30*time.Second, next)
	}
	r.lived(append(others, main), healed, len(inForce) > 0)
	r.say("  exit %d %s", main.exit, short(main.says))
	for _, c := range others {
		r.say("  %s %s: exit %d %s", c.machine, c.command, c.exit, short(c.says))
	}
	if err := errors.Join(failures...); err != nil {
		return false, fmt.Errorf("%s: %w", next, err)
	}
	r.exits(next, append(others, main)...)
	if !concurrent {
		r.said(ctx, next, main)
	}
	if !r.settle(ctx, next.Settles, next.Command) || next.Command == "abort" && !r.settle(ctx, next.Settles, "prepare") {
		return false, nil
	}
	r.whole(ctx, next)
	return true, nil
}

// mended ends a fault.
func (r *run) mended(ctx context.Context, m *mending) (err error) {
	m.once.Do(func() {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = m.mend(limit)
		r.mu.Lock()
		delete(r.hurts, m.fault.Target)
		r.mu.Unlock()
		r.book.note("fixed", "fault", m.fault.String(), "error", fmt.Sprint(err))
		if err != nil {
			err = fmt.Errorf("%s: put it back: %w", m.fault, err)
		}
	})
	return err
}

// reach is how long after its end a process's last words may still take effect.
const reach = time.Second

// lived notes when commands lived. What they sent over a line that was cut, or to a
// server that was frozen, arrives when that is over.
func (r *run) lived(commands []*command, healed time.Duration, late bool) {
	for _, c := range commands {
		c.end += reach
		if late {
			c.end = max(c.end, healed+3*reach)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commands = append(r.commands, commands...)
}

// exits wants codes that the contract has, and no difference found.
func (r *run) exits(next Round, commands ...*command) {
	for _, c := range commands {
		switch c.exit {
		case 0, 1, 3, 4, 8, 130, -1: // -1: killed
		case 5, 6:
			if c.command != "cutover" && c.command != "rollback" {
				r.violate("exit", "%s on %s ended with %d: %s (%s)", c.command, c.machine, c.exit, c.says, next)
			}
		default:
			r.violate("exit", "%s on %s ended with %d: %s (%s)", c.command, c.machine, c.exit, c.says, next)
		}
	}
}

// sides says which side an exit code promises, "" for none.
func promised(command string, exit int) string {
	to, from := "new", "old"
	switch command {
	case "rollback":
		to, from = from, to
	case "cutover":
	default:
		return ""
	}
	switch exit {
	case 0, 6:
		return to
	case 5:
		return from
	}
	return ""
}

// said wants the side that an exit code names to take writes, once nothing is
// broken any more.
func (r *run) said(ctx context.Context, next Round, c *command) {
	if side := promised(c.command, c.exit); side != "" {
		if without, _ := r.load.served(ctx, r.Served, "probe "+side); len(without) > 0 {
			r.violate("exit", "%s ended with %d, and %s took no write for %s (%s)", c.command, c.exit, side, r.Served, next)
		}
	}
}

// direct and pooled are the clients that somebody waits for.
var direct = []string{"rows both", "bank both", "numbers both"}

func pooled(pool string) []string { return []string{"rows " + pool, "bank " + pool, "numbers " + pool} }

// stillServed wants, when a command has ended with 0, 5 or 6 while both servers are
// whole, all clients to be served but those of poolers that are broken or cut off.
func (r *run) stillServed(ctx context.Context, next Round, c *command, force []*mending) {
	if promised(c.command, c.exit) == "" {
		return
	}
	r.mu.Lock()
	hurts := map[string]bool{}
	for _, m := range force {
		if r.hurts[m.fault.Target] {
			hurts[m.fault.Target] = true
		}
	}
	r.mu.Unlock()
	if hurts["old"] || hurts["new"] {
		return
	}
	names := slices.Clone(direct)
	for _, p := range r.stage.pools {
		// A pooler reaches the servers over the same lines as the tool.
		if !hurts[p.Name] && !hurts["tool-old"] && !hurts["tool-new"] {
			names = append(names, pooled(p.Name)...)
		}
	}
	r.wantServed(ctx, names, fmt.Sprintf("after %s ended with %d (%s)", c.command, c.exit, next))
}

func (r *run) wantServed(ctx context.Context, names []string, when string) {
	without, longest := r.load.served(ctx, r.Served, names...)
	r.mu.Lock()
	r.result.Longest = max(r.result.Longest, longest)
	r.mu.Unlock()
	if len(without) > 0 && ctx.Err() == nil {
		r.violate("served", "%s had no answer for %s %s", strings.Join(without, ", "), r.Served, when)
	}
}

// onward are the commands that settle types because status says so; what ends an
// upgrade is not among them.
var onward = []string{"prepare", "cutover", "rollback", "verify"}

// settle types a command until it is done. Where it is not, it types what status
// says is next, and then the command again.
func (r *run) settle(ctx context.Context, machine, words string) bool {
	const tries = 8
	var last *command
	typed := func(words string) bool {
		c, err := r.typed(machine, words)
		if err != nil {
			r.violate("stuck", "%s cannot be typed: %v", words, err)
			return false
		}
		if !r.wait(c, r.limit) {
			r.violate("hang", "%s on %s did not end within %s, and nothing was broken", words, machine, r.limit)
		}
		r.lived([]*command{c}, 0, false)
		r.exits(Round{Machine: machine, Command: words, Settles: machine}, c)
		if c.exit != 0 {
			r.say("  again: %s %s: exit %d %s", machine, words, c.exit, short(c.says))
		}
		last = c
		return c.exit == 0
	}
	for range tries {
		if ctx.Err() != nil {
			return false
		}
		if typed(words) {
			return true
		}
		next, phase := r.status(machine)
		if words == "rehearse" && last.exit == 4 && phase != "" && phase != "ready" {
			return true // it is for no other phase, and that is its answer
		}
		if next != words && slices.Contains(onward, next) {
			typed(next)
		}
	}
	r.violate("stuck", "%s was typed %d times when nothing was broken any more, and ended with %d: %s", words, tries, last.exit, last.says)
	return false
}

// whole wants, between two rounds, all clients served and nothing lost by then.
func (r *run) whole(ctx context.Context, next Round) {
	names := slices.Clone(direct)
	for _, p := range r.stage.pools {
		names = append(names, pooled(p.Name)...)
	}
	r.wantServed(ctx, names, "when nothing was broken any more and the command had ended with 0 ("+next.String()+")")
	r.sequences()
	r.oneSide()
}

func short(s string) string {
	if r := []rune(s); len(r) > 160 {
		return string(r[:160]) + "…"
	}
	return s
}
