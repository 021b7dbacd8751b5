package traffic

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"crossfade/upgrade/pg"
)

// GuardSpec is what a guard needs to resume clients by itself. It holds
// secrets, so that it travels through a pipe and never in arguments.
type GuardSpec struct {
	// Deadline is how long after its start the guard resumes even though the
	// tool still lives, because it may be frozen; 0 waits for its end alone.
	Deadline time.Duration `json:"deadline,omitempty"`
	Units    []GuardUnit   `json:"units,omitempty"`
}

// GuardUnit is one unit of the traffic that a guard resumes.
type GuardUnit struct {
	Kind string          `json:"kind"` // its key
	Name string          `json:"name"` // of the unit, for Pointed
	Spec json.RawMessage `json:"spec"` // what its kind makes a Switch of
	// Here: it must be resumed from the folder that the tool was started in.
	Here bool `json:"here,omitempty"`
}

// Spec is what a guard of these switches needs.
func (g Group) Spec(deadline time.Duration) (GuardSpec, error) {
	spec := GuardSpec{Deadline: deadline}
	for _, s := range g.Units() {
		u, err := s.Guarded()
		if err != nil {
			return spec, fmt.Errorf("%s: %w", s.Name(), err)
		}
		spec.Units = append(spec.Units, u)
	}
	return spec, nil
}

func (s GuardSpec) switches() (Group, error) {
	var g Group
	kinds := Kinds()
	for _, u := range s.Units {
		i := slices.IndexFunc(kinds, func(k Kind) bool { return k.Key == u.Kind && k.Revive != nil })
		if i < 0 {
			return nil, fmt.Errorf("%s cannot be resumed by a guard", u.Name)
		}
		sw, err := kinds[i].Revive(u)
		if err != nil {
			return nil, err
		}
		g = append(g, sw)
	}
	return g, nil
}

// What the two say to each other, a line each. The child is given decided (old
// is closed for good: clients must not be sent there any more), pointed with the
// name of a unit (its clients go to new: to resume them is right) and done (they go
// on; end). It says ready, resumed, and answers every word with ok.
const (
	sayDecided = "decided"
	sayPointed = "pointed"
	sayDone    = "done"
	sayReady   = "ready"
	sayResumed = "resumed"
	sayFailed  = "failed"
	sayOK      = "ok"
)

// ErrResumed says that the guard has resumed clients already.
var ErrResumed = errors.New("the guard has resumed clients: the deadline had passed")

// Guard is the child process that resumes clients when this process is gone
// before the decision, or has not confirmed it by the deadline. It lives in a
// session of its own, so that neither Ctrl-C nor a closed terminal ends it.
type Guard struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	words chan string // what it says, but resumed; closed at its end

	talking sync.Mutex // one word at a time

	mu      sync.Mutex
	resumed bool
}

// guardStart limits how long a guard takes to be ready: it reaches every
// console once.
const guardStart = 5 * time.Second

// StartGuard starts exe as "exe guard", waits until it has reached every
// console with what it was given, and returns. Its deadline counts from then.
// ctx limits only the start.
func StartGuard(ctx context.Context, exe string, spec GuardSpec) (*Guard, error) {
	b, err := json.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	cmd := exec.Command(exe, "guard")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Dir = "/"
	if slices.ContainsFunc(spec.Units, func(u GuardUnit) bool { return u.Here }) {
		cmd.Dir = ""
	}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	g := &Guard{cmd: cmd, in: in, words: make(chan string, 8)}
	go g.listen(out)
	ctx, cancel := context.WithTimeoutCause(ctx, guardStart, fmt.Errorf("it was not ready within %s", guardStart))
	defer cancel()
	if _, err = in.Write(append(b, '\n')); err == nil {
		err = g.hears(ctx, sayReady)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the guard: %w", err), g.end())
	}
	return g, nil
}

func (g *Guard) listen(out io.Reader) {
	defer close(g.words)
	for s := bufio.NewScanner(out); s.Scan(); {
		if s.Text() == sayResumed {
			g.mu.Lock()
			g.resumed = true
			g.mu.Unlock()
			continue
		}
		g.words <- s.Text()
	}
}

func (g *Guard) hears(ctx context.Context, word string) error {
	select {
	case got, ok := <-g.words:
		switch {
		case !ok:
			return errors.New("it has ended")
		case got != word:
			return errors.New(strings.TrimPrefix(got, sayFailed+" "))
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Resumed is whether the guard has resumed clients.
func (g *Guard) Resumed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.resumed
}

// guardAnswer limits how long a living guard takes for a word.
const guardAnswer = 2 * time.Second

// say gives the guard one word; its answer is awaited, so that afterwards it
// certainly acts by it.
func (g *Guard) say(word string) error {
	g.talking.Lock()
	defer g.talking.Unlock()
	ctx, cancel := context.WithTimeoutCause(context.Background(), guardAnswer, fmt.Errorf("no answer within %s", guardAnswer))
	defer cancel()
	_, err := io.WriteString(g.in, word+"\n")
	if err == nil {
		err = g.hears(ctx, sayOK)
	}
	if err != nil {
		return fmt.Errorf("send %q to the guard: %w", word, err)
	}
	if g.Resumed() {
		return ErrResumed
	}
	return nil
}

// Decided tells the guard that the decision has been taken: neither the
// deadline nor the end of this process makes it resume any more. ErrResumed
// says that it had done so before.
func (g *Guard) Decided() error { return g.say(sayDecided) }

// Pointed tells the guard that a unit (Group.Units, by its Name) sends clients to
// the new side: from here the end of this process makes it resume that unit, for
// nobody else would.
func (g *Guard) Pointed(unit string) error { return g.say(sayPointed + " " + unit) }

// Release is Decided.
func (g *Guard) Release() error { return g.Decided() }

// Stop ends the guard after clients were resumed.
func (g *Guard) Stop() error {
	// A guard that has ended by itself has nothing more to do.
	if err := g.say(sayDone); err != nil && !errors.Is(err, ErrResumed) && !errors.Is(err, syscall.EPIPE) {
		return errors.Join(err, g.end())
	}
	return g.end()
}

// end closes the pipe and waits for the child; one that hangs is killed.
func (g *Guard) end() error {
	_ = g.in.Close() // it may be closed already
	late := time.AfterFunc(guardAnswer, func() { _ = g.cmd.Process.Kill() })
	defer late.Stop()
	for range g.words { // until it says nothing more
	}
	if err := g.cmd.Wait(); err != nil {
		return fmt.Errorf("the guard ended: %w", err)
	}
	return nil
}

// GuardMain is the hidden command "guard": it reads its GuardSpec as the first
// line of stdin, then the words of the process that started it, and resumes
// when that is gone or the deadline passes, unless it was told not to. It
// returns the exit code: 0, or 1 where clients could not be resumed.
func GuardMain(stdin io.Reader) int {
	// The terminal's signals are for the tool; a reader of stdout that is gone
	// must not end the one process that is left.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGQUIT)
	return guardMain(stdin, os.Stdout, os.Stderr)
}

func guardMain(stdin io.Reader, stdout, stderr io.Writer) int {
	tell := func(word string) { _, _ = fmt.Fprintln(stdout, word) } // the reader may be gone
	in := bufio.NewReader(stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return 0 // nothing was asked of it
	}
	var spec GuardSpec
	var group Group
	if err = json.Unmarshal(line, &spec); err == nil {
		group, err = spec.switches()
	}
	if err == nil {
		err = group.reached()
	}
	if err != nil {
		tell(sayFailed + " " + strings.ReplaceAll(err.Error(), "\n", "; "))
		return 1
	}
	words := make(chan string)
	go func() {
		defer close(words)
		for s := bufio.NewScanner(in); s.Scan(); {
			words <- s.Text()
		}
	}()
	tell(sayReady)
	return watch(spec.Deadline, words, tell, func(units []string) bool {
		if err := group.named(units).resumeUntil(guardPatience); err != nil {
			_, _ = fmt.Fprintln(stderr, "crossfade guard: could not resume client traffic:", err)
			return false
		}
		return true
	})
}

// named are the switches of a group with these names; all of it where there is none.
func (g Group) named(names []string) Group {
	if len(names) == 0 {
		return g
	}
	return slices.DeleteFunc(slices.Clone(g), func(s Switch) bool { return !slices.Contains(names, s.Name()) })
}

// watch is the guard's decision. It returns the exit code. resume is given the
// units that have been pointed; none means all, before the decision.
func watch(deadline time.Duration, words <-chan string, tell func(string), resume func(units []string) bool) int {
	var late <-chan time.Time
	if deadline > 0 {
		t := time.NewTimer(deadline)
		defer t.Stop()
		late = t.C
	}
	exit, resumed, decided := 0, false, false
	var pointed []string
	act := func() {
		if decided && len(pointed) == 0 || resumed {
			return
		}
		// Said before it acts: who hears nothing can trust that nothing was done.
		tell(sayResumed)
		if resumed = resume(pointed); !resumed {
			exit = 1
		}
	}
	for {
		select {
		case <-late:
			late = nil
			act()
		case word, ok := <-words:
			if !ok {
				act()
				return exit
			}
			word, unit, _ := strings.Cut(word, " ")
			switch word {
			case sayDecided:
				decided = true
			case sayPointed:
				// An earlier resume, at the deadline, was of what was paused then.
				decided, resumed, late = true, false, nil
				pointed = append(pointed, unit)
			}
			tell(sayOK)
			if word == sayDone {
				return exit
			}
		}
	}
}

// guardPatience is how long a guard goes on trying.
const guardPatience = 60 * time.Second

// resumeUntil resumes all, again and again while one does not answer.
func (g Group) resumeUntil(patience time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), patience, fmt.Errorf("gave up after %s", patience))
	defer cancel()
	var last error
	err := pg.Poll(ctx, 500*time.Millisecond, "every pooler to answer", func(ctx context.Context) (bool, error) {
		// RESUME of what goes on already is harmless, so all are asked again.
		once, cancel := afterwards(ctx)
		defer cancel()
		last = g.Resume(once)
		return last == nil, nil
	})
	return errors.Join(err, last)
}

// reached proves that every console is reached with what the guard was given.
func (g Group) reached() error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), guardStart, fmt.Errorf("no answer within %s", guardStart))
	defer cancel()
	return g.each(ctx, func(ctx context.Context, s Switch) error {
		if r, ok := s.(Reachable); ok {
			return r.Reach(ctx)
		}
		return nil
	})
}
