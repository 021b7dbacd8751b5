package flow

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
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
// but for Plan.Interrupt.
func Run(ctx context.Context, p Plan, j *Journal, observe func(Event)) error {
	r := newRunner(p, j, observe)
	asked := ctx
	for i := 0; i < len(p.Steps); i++ {
		s := &p.Steps[i]
		if cause := context.Cause(asked); r.committed && s.Late && p.Interrupt != nil && errors.Is(cause, p.Interrupt) {
			return r.fail(ctx, i, cause)
		}
		if r.committed {
			ctx = context.WithoutCancel(ctx)
		}
		err := r.step(ctx, s)
		if err == nil {
			continue
		}
		var again *Again
		if errors.As(err, &again) && !r.committed && ctx.Err() == nil {
			from := slices.IndexFunc(p.Steps, func(s Step) bool { return s.ID == again.From })
			if from < 0 || from > i {
				return &Failure{Plan: p.Name, Step: s.ID, Err: fmt.Errorf("no step %s to start again from: %w", again.From, err)}
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

// Undo takes back every step of p, newest first: first the steps whose undo
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
	memory    map[string]Memory
	committed bool
}

func newRunner(p Plan, j *Journal, observe func(Event)) *runner {
	if observe == nil {
		observe = func(Event) {}
	}
	return &runner{p: p, j: j, observe: observe, memory: map[string]Memory{}}
}

func (r *runner) step(ctx context.Context, s *Step) error {
	e := Event{Cluster: r.p.Cluster, Plan: r.p.Name, Step: s.ID, Title: s.Title, Commits: s.Commit, Forecast: s.Forecast}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	done, err := r.isDone(ctx, s)
	if err != nil {
		return r.failed(ctx, e, time.Now(), fmt.Errorf("looking whether it is done: %w", err))
	}
	if done {
		r.committed = r.committed || s.Commit
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

// fail ends a run at step i.
func (r *runner) fail(ctx context.Context, i int, err error) error {
	f := &Failure{Plan: r.p.Name, Step: r.p.Steps[i].ID, Err: err, Committed: r.committed}
	if r.p.AllOrNothing && !r.committed {
		service, rest := r.undo(ctx, 0, i)
		f.Undone = len(service) == 0
		f.UndoErrs = append(service, rest...)
	}
	return f
}

// undo takes back the steps from..to, newest first, those that give service
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
				err = r.record(e, Undone, time.Since(began), nil)
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
	mem, ok := r.memory[e.Step]
	if !ok {
		mem = r.j.memory(r.p, e.Step)
		r.memory[e.Step] = mem
	}
	return &Turn{mem: mem, observe: r.observe, event: e}
}

func (r *runner) record(e Event, kind Kind, took time.Duration, err error) error {
	e.At, e.Kind, e.Took, e.Err = time.Now(), kind, took, err
	return errors.Join(r.j.record(r.p, e), tell(r.observe, e))
}

// tell tells of an event. A panic there is a failure of the step like one of
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
