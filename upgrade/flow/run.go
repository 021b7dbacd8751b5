package flow

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

// Panic is a panic of a step, caught so that what was begun can be undone.
type Panic struct {
	Value any
	Stack []byte
}

func (p *Panic) Error() string { return fmt.Sprintf("panic: %v", p.Value) }

// Run runs plan p from its first step that is not done. It returns nil, or a
// *Failure. A nil journal remembers nothing beyond the process; a nil observe
// is silent. From the Commit step on, cancelling ctx no longer stops anything,
// but for Plan.Interrupt; a step that fails no longer ends the run, and a journal
// that cannot be written is noted and done without. What the steps list (Does,
// Undoes) it lets go of at once: nobody reads it who runs a plan, and with many
// tables it is most of the plan.
func Run(ctx context.Context, p Plan, j *Journal, observe func(Event)) error {
	p.Steps = slices.Clone(p.Steps)
	for i := range p.Steps {
		p.Steps[i].Does, p.Steps[i].Undoes = nil, nil
	}
	r := newRunner(p, j, observe)
	for i := 0; i < len(p.Steps); i++ {
		if r.committed {
			return r.onwards(ctx, i)
		}
		var err error
		if end := r.besides(i); end > i+1 {
			i, err = r.lanes(ctx, i, end)
		} else {
			err = r.step(ctx, &p.Steps[i])
		}
		if err == nil {
			continue
		}
		if r.committed { // the Commit step failed, and may have decided: nothing after it can be tried
			r.left[i] = err
			return r.onwards(ctx, i+1)
		}
		var again *Again
		if errors.As(err, &again) && ctx.Err() == nil {
			from := slices.IndexFunc(p.Steps, func(s Step) bool { return s.ID == again.From })
			if from < 0 || from > i {
				return &Failure{Plan: p.Name, Step: p.Steps[i].ID, Err: fmt.Errorf("no step %s to start again from: %w", again.From, err)}
			}
			service, rest := r.undo(ctx, from, i)
			if errs := append(service, rest...); len(errs) > 0 {
				return r.fail(ctx, i, errors.Join(append([]error{err}, errs...)...))
			}
			if wait(ctx, again.Wait) {
				i = from - 1
				continue
			}
			err = context.Cause(ctx)
		}
		return r.fail(ctx, i, err)
	}
	return nil
}

// onwards runs the steps from i on after the point of no return: each is tried
// but those that need one that failed, until the plan's Interrupt comes.
func (r *runner) onwards(asked context.Context, i int) error {
	for i < len(r.p.Steps) {
		end := r.besides(i)
		var lanes sync.WaitGroup
		for _, steps := range r.byLane(i, end) {
			lanes.Go(func() {
				for _, n := range steps {
					if err := r.onward(asked, n); err != nil {
						r.mu.Lock()
						r.left[n] = err
						r.mu.Unlock()
					}
				}
			})
		}
		lanes.Wait()
		i = end
	}
	if len(r.left) == 0 {
		return nil
	}
	f := &Failure{Plan: r.p.Name, Committed: true}
	for n, s := range r.p.Steps {
		if err := r.left[n]; err != nil {
			f.Left = append(f.Left, Left{Step: s.ID, Title: s.Title, Err: err})
		}
	}
	f.Step, f.Err = f.Left[0].Step, f.Left[0].Err
	return f
}

// onward runs one step after the point of no return, or says why it cannot be tried.
func (r *runner) onward(asked context.Context, n int) error {
	s := &r.p.Steps[n]
	r.mu.Lock()
	var lacks []string
	for before := range n {
		needed := r.p.Steps[before].Commit || slices.Contains(s.Needs, r.p.Steps[before].ID)
		if needed && r.left[before] != nil {
			lacks = append(lacks, r.p.Steps[before].ID)
		}
	}
	r.mu.Unlock()
	if len(lacks) > 0 {
		return fmt.Errorf("%w: it needs %s", ErrNeeds, strings.Join(lacks, ", "))
	}
	return r.heeding(asked, s)
}

// Undo undoes every step of p, newest first: first the steps whose undo
// gives service back, then the rest. An undo that fails never stops the next.
// It returns nil, or a *Failure with Undone telling about the first part.
func Undo(ctx context.Context, p Plan, j *Journal, observe func(Event)) error {
	r := newRunner(p, j, observe)
	service, rest := r.undo(ctx, 0, len(p.Steps)-1)
	errs := append(service, rest...)
	if len(errs) == 0 {
		return nil
	}
	return &Failure{Plan: p.Name, Step: "undo", Err: errs[0], UndoErrs: errs[1:], Undone: len(service) == 0}
}

type runner struct {
	p         Plan
	j         *Journal
	observe   func(Event)
	mu        sync.Mutex // of what follows but committed, which is set between steps
	memory    map[string]Memory
	left      map[int]error // after the point of no return: what is still to do, by step
	forgets   sync.Once     // notes that the journal cannot be written
	committed bool
}

func newRunner(p Plan, j *Journal, observe func(Event)) *runner {
	r := &runner{p: p, j: j, observe: func(Event) {}, memory: map[string]Memory{}, left: map[int]error{}, committed: p.Committed}
	if observe != nil {
		var one sync.Mutex
		r.observe = func(e Event) {
			one.Lock()
			defer one.Unlock()
			observe(e)
		}
	}
	return r
}

// besides is where the steps end that run beside step i.
func (r *runner) besides(i int) int {
	end := i + 1
	for group := r.p.Steps[i].Beside; group != "" && end < len(r.p.Steps) && r.p.Steps[end].Beside == group; {
		end++
	}
	return end
}

// byLane are the steps from..end-1, those of each lane in their order.
func (r *runner) byLane(from, end int) [][]int {
	var names []string
	steps := map[string][]int{}
	for i := from; i < end; i++ {
		lane := r.p.Steps[i].Lane
		if steps[lane] == nil {
			names = append(names, lane)
		}
		steps[lane] = append(steps[lane], i)
	}
	lanes := make([][]int, len(names))
	for n, lane := range names {
		lanes[n] = steps[lane]
	}
	return lanes
}

// lanes runs the steps from..end-1 side by side, each lane in its order. It
// returns the index of the last of them, or of the first that failed, with the
// errors of all lanes.
func (r *runner) lanes(ctx context.Context, from, end int) (int, error) {
	lanes := r.byLane(from, end)
	failed, errs := make([]int, len(lanes)), make([]error, len(lanes))
	var all sync.WaitGroup
	for n, steps := range lanes {
		all.Go(func() {
			for _, i := range steps {
				if err := r.step(ctx, &r.p.Steps[i]); err != nil {
					failed[n], errs[n] = i, err
					return
				}
			}
		})
	}
	all.Wait()
	at := slices.IndexFunc(errs, func(err error) bool { return err != nil })
	if at < 0 {
		return end - 1, nil
	}
	for n, err := range errs {
		if n != at && err != nil {
			errs[n] = fmt.Errorf("step %s: %w", r.p.Steps[failed[n]].ID, err)
		}
	}
	return failed[at], errors.Join(errs...)
}

// heeding runs one step after the point of no return, where only the plan's
// Interrupt is heeded: before a late step, and in one that stops.
func (r *runner) heeding(asked context.Context, s *Step) error {
	ctx := context.WithoutCancel(asked)
	interrupt := func() error {
		if cause := context.Cause(asked); s.Late && r.p.Interrupt != nil && errors.Is(cause, r.p.Interrupt) {
			return cause
		}
		return nil
	}
	if err := interrupt(); err != nil {
		return err
	}
	if s.Late && s.Stops {
		stopping, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(asked, func() {
			if err := interrupt(); err != nil {
				cancel(err)
			}
		})()
		ctx = stopping
	}
	return r.step(ctx, s)
}

func (r *runner) step(ctx context.Context, s *Step) error {
	e := Event{Cluster: r.p.Cluster, Plan: r.p.Name, Step: s.ID, Title: s.Title, Commits: s.Commit, Forecast: s.Forecast, Beside: s.Beside}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	done, err := r.isDone(ctx, s)
	if err != nil {
		return r.failed(ctx, e, time.Now(), fmt.Errorf("looking whether it is done: %w", err))
	}
	if done {
		if s.Commit {
			r.committed = true
		}
		return r.record(e, Skip, 0, nil)
	}
	if err := r.record(e, Begin, 0, nil); err != nil {
		return r.failed(ctx, e, time.Now(), err)
	}
	if s.Commit {
		// From here signals are only noted: whatever Do returns, unless it is
		// certain that nothing was decided, there is only forward.
		ctx = context.WithoutCancel(ctx)
	}
	began := time.Now()
	err = call(ctx, s.Timeout, "step "+s.ID, s.Do, r.turn(e))
	if s.Commit && !errors.Is(err, ErrNotTaken) {
		r.committed = true
	}
	if err != nil {
		return r.failed(ctx, e, began, err)
	}
	return r.record(e, End, time.Since(began), nil)
}

func (r *runner) isDone(ctx context.Context, s *Step) (done bool, err error) {
	if s.Done == nil {
		return r.j.ended(r.p, s.ID), nil
	}
	defer catch(&err)
	return s.Done(ctx)
}

func (r *runner) failed(ctx context.Context, e Event, began time.Time, err error) error {
	if ctx.Err() != nil && !errors.Is(err, context.Cause(ctx)) {
		err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	}
	// The failure itself is what the caller must hear of; a journal that
	// cannot be written any more is added to it.
	if jerr := r.record(e, Fail, time.Since(began), err); jerr != nil {
		err = errors.Join(err, jerr)
	}
	return err
}

// fail ends a run at step i, before the point of no return.
func (r *runner) fail(ctx context.Context, i int, err error) error {
	f := &Failure{Plan: r.p.Name, Step: r.p.Steps[i].ID, Err: err}
	if r.p.AllOrNothing {
		service, rest := r.undo(ctx, 0, i)
		f.Undone = len(service) == 0
		f.UndoErrs = append(service, rest...)
	}
	return f
}

// undo undoes the steps from..to, newest first, those that give service
// back before the others.
func (r *runner) undo(ctx context.Context, from, to int) (service, rest []error) {
	ctx = context.WithoutCancel(ctx)
	for _, serves := range []bool{true, false} {
		for i := to; i >= from; i-- {
			s := &r.p.Steps[i]
			if s.Undo == nil || s.Serves != serves {
				continue
			}
			e := Event{Cluster: r.p.Cluster, Plan: r.p.Name, Step: s.ID, Title: s.Title}
			limit := s.UndoTimeout
			if limit == 0 {
				limit = 30 * time.Second
			}
			began := time.Now()
			err := call(ctx, limit, "undo of "+s.ID, s.Undo, r.turn(e))
			if err == nil {
				// What is undone is so whether or not it can be written down.
				err = r.noted(e, Undone, time.Since(began))
			}
			if err != nil {
				err = fmt.Errorf("%s: %w", s.ID, err)
				if serves {
					service = append(service, err)
				} else {
					rest = append(rest, err)
				}
			}
		}
	}
	return service, rest
}

func (r *runner) turn(e Event) *Turn {
	r.mu.Lock()
	defer r.mu.Unlock()
	mem, ok := r.memory[e.Step]
	if !ok {
		mem = r.j.memory(r.p, e.Step)
		if r.committed {
			mem = &lenient{Memory: mem, refused: func(err error) { r.forget(e, err) }}
		}
		r.memory[e.Step] = mem
	}
	return &Turn{mem: mem, observe: r.observe, event: e}
}

// record writes an event down and reports it. Before the point of no return a
// journal that cannot be written is an error.
func (r *runner) record(e Event, kind Kind, took time.Duration, err error) error {
	if r.committed {
		e.Err = err
		return r.noted(e, kind, took)
	}
	e.At, e.Kind, e.Took, e.Err = time.Now(), kind, took, err
	return errors.Join(r.j.record(r.p, e), tell(r.observe, e))
}

// noted is record where the journal is only a memory.
func (r *runner) noted(e Event, kind Kind, took time.Duration) error {
	e.At, e.Kind, e.Took = time.Now(), kind, took
	if err := r.j.record(r.p, e); err != nil {
		r.forget(e, err)
	}
	return tell(r.observe, e)
}

// forget notes, once a run, that the journal cannot be written.
func (r *runner) forget(e Event, err error) {
	r.forgets.Do(func() {
		e.At, e.Kind, e.Err = time.Now(), Note, nil
		e.Says = fmt.Sprintf("the run goes on without its journal: %v", err)
		// A reader of notes that fails is no reason to stop.
		_ = tell(r.observe, e)
	})
}

// tell reports an event. A panic there is a failure of the step like one of
// its own: what was begun can still be undone.
func tell(observe func(Event), e Event) (err error) {
	defer catch(&err)
	observe(e)
	return nil
}

func call(ctx context.Context, limit time.Duration, what string, f func(context.Context, *Turn) error, t *Turn) (err error) {
	if f == nil {
		return nil
	}
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, fmt.Errorf("%s took longer than its limit of %s", what, limit))
		defer cancel()
	}
	defer func() {
		if err != nil && ctx.Err() != nil && !errors.Is(err, context.Cause(ctx)) {
			err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
		}
	}()
	defer catch(&err)
	return f(ctx, t)
}

func catch(err *error) {
	if v := recover(); v != nil {
		*err = &Panic{Value: v, Stack: debug.Stack()}
	}
}

// wait waits for d and reports whether ctx still lives.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
