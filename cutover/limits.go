package cutover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"crossfade/upgrade/flow"
)

// timing is how an attempt stands with its limits.
type timing struct {
	first    time.Time     // of all attempts: patience counts from here
	blocked  time.Time     // of this attempt: max_blocked counts from here
	took     time.Duration // blocked until open
	lockWait time.Duration // for one lock of the barrier
	backoff  time.Duration // before the next try
}

// begin starts the clock of max_blocked.
func (a *attempt) begin() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.blocked.IsZero() {
		a.blocked = time.Now()
	}
}

func (a *attempt) endAttempt() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.blocked = time.Time{}
}

// tryAgain turns a failure to pause or to lock into another try from pause on,
// until patience ends. What is no waiting for clients stays what it is.
func (a *attempt) tryAgain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	a.endAttempt()
	if a.remains() <= 0 {
		return fmt.Errorf("%w (%s): %w", ErrPatience, time.Since(a.first).Round(time.Second), err)
	}
	if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		return err
	}
	a.backoff = min(max(2*a.backoff, 200*time.Millisecond), 5*time.Second)
	from := pauseStep
	if a.quietly() {
		from = quietStep
	}
	return &flow.Again{From: from, Wait: a.backoff, Err: err}
}

// remains is how long may still be waited: what remains of Patience, and no longer
// than until Until.
func (a *attempt) remains() time.Duration {
	left := a.Patience
	if !a.first.IsZero() {
		left -= time.Since(a.first)
	}
	if !a.Until.IsZero() {
		left = min(left, time.Until(a.Until))
	}
	return max(left, 0)
}

// left is what remains of the budget of this attempt.
func (a *attempt) left() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.blocked.IsZero() {
		return a.MaxBlocked
	}
	return a.MaxBlocked - time.Since(a.blocked)
}

// budget is ctx limited by what remains of max_blocked.
func (a *attempt) budget(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, max(a.left(), 0),
		fmt.Errorf("writers would have been blocked for longer than max_blocked (%s)", a.MaxBlocked))
}

// blockedStep is a step between pause and open: it stops when the budget does.
func (a *attempt) blockedStep(s flow.Step) flow.Step {
	s.Blocks = true
	do := s.Do
	s.Do = func(ctx context.Context, t *flow.Turn) error {
		ctx, cancel := a.budget(ctx)
		defer cancel()
		return do(ctx, t)
	}
	s.Done = func(context.Context) (bool, error) { return false, nil }
	return s
}

func never(context.Context) (bool, error) { return false, nil }

// ifThere runs what is to do on the closed side after open; when that side cannot
// be reached within a limit, that is noted and left.
func (a *attempt) ifThere(ctx context.Context, t *flow.Turn, consequence string, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Second, errors.New("10 seconds have passed"))
	defer cancel()
	err := f(ctx)
	if absent(err) {
		// A session may have been ended while its server lives.
		a.revive(ctx)
		err = f(ctx)
	}
	if err == nil || !absent(err) {
		return err
	}
	t.Note("%s could not be reached (%v): %s", a.Closing.Server, err, consequence)
	return nil
}
