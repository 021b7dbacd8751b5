package cutover

import "time"

// Window is when a cutover may begin. The zero Window is any time.
type Window struct {
	Zone     *time.Location
	Days     []time.Weekday // none: every day
	From, To time.Duration  // since midnight, wall clock
}

// Any reports whether the window is any time.
func (w Window) Any() bool { return w.Zone == nil }

// on is the window of the day of t: two instants, so that a night on which
// clocks change is as long as it is.
func (w Window) on(t time.Time) (from, to time.Time) {
	y, m, d := t.In(w.Zone).Date()
	at := func(o time.Duration) time.Time {
		return time.Date(y, m, d, int(o.Hours()), int(o.Minutes())%60, int(o.Seconds())%60, 0, w.Zone)
	}
	return at(w.From), at(w.To)
}

// Open reports whether now lies in the window.
func (w Window) Open(now time.Time) bool {
	if w.Any() {
		return true
	}
	from, to := w.on(now)
	return w.day(now) && !now.Before(from) && now.Before(to)
}

func (w Window) day(t time.Time) bool {
	if len(w.Days) == 0 {
		return true
	}
	for _, d := range w.Days {
		if t.In(w.Zone).Weekday() == d {
			return true
		}
	}
	return false
}

// Next is the window that is open now with need of it left, or the next one
// that is at least as long as need. Zero times: none within a year.
func (w Window) Next(now time.Time, need time.Duration) (from, to time.Time) {
	if w.Any() {
		return now, now.AddDate(100, 0, 0)
	}
	for i := range 366 {
		day := now.In(w.Zone).AddDate(0, 0, i)
		from, to = w.on(day)
		if !w.day(day) || to.Sub(from) < need {
			continue
		}
		if begin := later(from, now); to.Sub(begin) >= need && to.After(begin) {
			return from, to
		}
	}
	return time.Time{}, time.Time{}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
