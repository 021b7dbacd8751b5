package load

import (
	"context"
	"sync"
	"time"
)

// Pace is a rate that any number of pipes keep together. Nil is none.
type Pace struct {
	perSecond float64

	mu   sync.Mutex
	free time.Time // when everything that was let through is paid for
}

// NewPace is a rate in bytes a second; nil, no rate at all, where it is 0.
func NewPace(bytes int64) *Pace {
	if bytes <= 0 {
		return nil
	}
	return &Pace{perSecond: float64(bytes)}
}

// slack is what a pace forgives of a time in which less came than might have:
// enough for a pipe that was held up for a moment, too little for a burst.
const slack = 50 * time.Millisecond

// take says until when n bytes that came now hold their pipe up.
func (p *Pace) take(now time.Time, n int64) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if earliest := now.Add(-slack); p.free.Before(earliest) {
		p.free = earliest
	}
	p.free = p.free.Add(time.Duration(float64(n) / p.perSecond * float64(time.Second)))
	return p.free
}

// wait lets n bytes through and waits until the next may come.
func (p *Pace) wait(ctx context.Context, n int64) error {
	if p == nil || n <= 0 {
		return nil
	}
	until := time.Until(p.take(time.Now(), n))
	if until <= 0 {
		return nil
	}
	t := time.NewTimer(until)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
