package cutover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
)

// Rehearsal is what one rehearsal of the cutover has measured, as row 0
// remembers it.
type Rehearsal struct {
	At          time.Time `json:"at"`
	WithTraffic bool      `json:"with_traffic"`
	// Blocked is from the first PAUSE or lock to the end of the last step that
	// was rehearsed: a cutover's writers are blocked for as long, and then for
	// close and open.
	Blocked float64 `json:"blocked_seconds"`
	// Wait is the longest that a client waited for a lock of the rehearsal's, or
	// in a pooler that it had paused; nil: not known.
	Wait *float64 `json:"longest_wait_seconds"`
	// Steps is how long each took, by id; of one that was tried again, the last time.
	Steps map[string]float64 `json:"steps"`
}

// rehearsalsKept is how many rehearsals are remembered. One that fell into a
// bad moment does not spoil the forecast of three.
const rehearsalsKept = 3

// Forecast is how long the steps of a cutover are expected to take: the median
// of what rehearsals have measured.
func Forecast(rs []Rehearsal) map[string]time.Duration {
	took := map[string][]float64{}
	for _, r := range rs {
		for id, s := range r.Steps {
			took[id] = append(took[id], s)
		}
	}
	median := map[string]time.Duration{}
	for id, all := range took {
		slices.Sort(all)
		m := (all[(len(all)-1)/2] + all[len(all)/2]) / 2
		median[id] = time.Duration(m * float64(time.Second))
	}
	return median
}

// beginRehearsal, endRehearsal and keepRehearsal are the writes of a rehearsal:
// its row, so that whoever comes next can undo what one left that was killed,
// and at its end what it has measured.
const (
	beginRehearsal = "INSERT INTO crossfade.upgrade (attempt, upgrade, direction, state, memory) VALUES ($attempt, $upgrade, $direction, 'rehearsing', $memory)"
	endRehearsal   = "DELETE FROM crossfade.upgrade WHERE attempt = $attempt AND state = 'rehearsing'"
	keepRehearsal  = "UPDATE crossfade.upgrade SET memory = jsonb_set(memory, '{rehearsed}', $rehearsed) WHERE attempt = 0"
)

// rehearsal is what makes a crossing one that is undone after its last
// reversible step.
type rehearsal struct {
	traffic bool // clients are held back in the poolers, too
	refused int64
	waits   *waits

	mu       sync.Mutex
	took     map[string]time.Duration
	tries    int
	measured bool          // every step was rehearsed
	paused   time.Time     // since when clients are held back; zero: they are not
	longest  time.Duration // that they were
	left     []string
}

// quietStep is pauseStep of a rehearsal that pauses no traffic.
const quietStep = "quiet"

// pausesWith is the option of the command that makes a rehearsal pause the traffic.
const pausesWith = "--with-traffic"

// Rehearse builds the plan that takes the reversible steps of a cutover, the
// same ones that New does, times them and undoes them. The fence stays open, no
// DDL is refused, no sequence is set, and nobody's transaction is ended:
// clients wait for the locks of the barrier, and see nothing else. With traffic
// they are held back in the poolers, too, as in the cutover.
func Rehearse(c Config, traffic bool) *Crossing {
	c.KillAfter = 0
	x := newCrossing(c)
	x.rehearsal = &rehearsal{traffic: traffic, took: map[string]time.Duration{}}
	x.stopped = false // what a real attempt has left is no leftover of this one
	steps := in(x.order(), arming, reversible)
	for i := range steps {
		steps[i] = x.rehearsing.timed(steps[i], i == 0, i == len(steps)-1)
	}
	p := x.plan(steps)
	p.Name = "rehearse"
	p.Steps = append(p.Steps, undoing(p.Steps)...)
	p.Steps = append(p.Steps, x.rehearsing.nothingLeft())
	return &Crossing{Plan: p, x: x}
}

// Rehearsed builds the plan of a rehearsal that was cut off, to be undone.
func Rehearsed(c Config, d Decision) *Crossing {
	c.Attempt = d.Attempt
	again := Rehearse(c, d.WithTraffic)
	again.x.remember(d)
	return again
}

// rehearsing is what a crossing does besides its steps when it is a rehearsal.
type rehearsing struct {
	*attempt
	gates *gates
}

// quietly reports whether this is a rehearsal that pauses no traffic.
func (a *attempt) quietly() bool { return a.rehearsal != nil && !a.rehearsal.traffic }

// quiet is what traffic/pause begins with, where nothing is paused.
func (h *hold) quiet() flow.Step {
	return flow.Step{
		ID: quietStep, Title: "Wait until no old transaction writes, and look a last time", Done: never, Does: h.recheck.effects(),
		Do: func(ctx context.Context, t *flow.Turn) error {
			return h.recheck.look(ctx, t)
		},
	}
}

// timed is a step whose time is taken. With the first one the watching begins, with
// the last one everything is measured.
func (h *rehearsing) timed(s flow.Step, first, last bool) flow.Step {
	r, do := h.rehearsal, s.Do
	s.Do = func(ctx context.Context, t *flow.Turn) error {
		if first {
			if err := h.witness(ctx); err != nil {
				return err
			}
		}
		began := time.Now()
		if err := do(ctx, t); err != nil {
			return err
		}
		r.mu.Lock()
		r.took[s.ID] = time.Since(began)
		r.mu.Unlock()
		if last {
			h.mu.Lock()
			h.took = time.Since(h.blocked)
			h.mu.Unlock()
			r.measured = true
		}
		return nil
	}
	return s
}

// trying counts a try for the locks. Of a crossing that is no rehearsal (nil) nothing
// is measured, neither here nor in pausing and resumed.
func (r *rehearsal) trying() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tries++
}

// pausing begins the time for which clients are held back in poolers, resumed ends it.
func (r *rehearsal) pausing() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.paused = time.Now()
}

func (r *rehearsal) resumed() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.paused.IsZero() {
		r.longest = max(r.longest, time.Since(r.paused))
	}
	r.paused = time.Time{}
}

// undoing are the undos of steps as steps, in the order in which a failure
// would bring them: first what gives service back.
func undoing(steps []flow.Step) []flow.Step {
	var undo []flow.Step
	for _, serves := range []bool{true, false} {
		for _, s := range slices.Backward(steps) {
			if s.Undo == nil || s.Serves != serves {
				continue
			}
			undo = append(undo, flow.Step{
				ID: "undo/" + s.ID, Title: "Undo: " + strings.ToLower(s.Title[:1]) + s.Title[1:],
				Does: s.Undoes, Do: s.Undo, Done: never, Timeout: 30 * time.Second, Option: s.Option,
			})
		}
	}
	return undo
}

// witness begins to watch what the rehearsal does to the application.
func (h *rehearsing) witness(ctx context.Context) error {
	n, err := h.refusedNow(ctx)
	if err != nil {
		return err
	}
	h.rehearsal.refused = n
	h.rehearsal.waits, err = watchWaits(ctx, h.attempt)
	return err
}

// refusedNow counts the statements that the fence has refused in all databases.
func (h *rehearsing) refusedNow(ctx context.Context) (int64, error) {
	var sum int64
	for _, db := range h.databases {
		conn, err := h.onClosing(ctx, db.Name)
		if err != nil {
			return 0, err
		}
		n, err := h.Part.Refused(ctx, conn)
		if err != nil {
			return 0, &pg.Error{Doing: "count what was refused in " + db.Name, On: h.Closing.Server.String(), Err: err}
		}
		sum += n
	}
	return sum, nil
}

// stays remembers tables that were too busy to take the open fence off.
func (h *rehearsing) stays(db string, tables []string) {
	if h.rehearsal == nil {
		return
	}
	h.rehearsal.mu.Lock()
	defer h.rehearsal.mu.Unlock()
	for _, t := range tables {
		h.rehearsal.left = append(h.rehearsal.left, db+" "+t)
	}
}

// end takes the rehearsal's row away: what it said is undone. Where
// everything was measured, that is remembered in the same transaction.
//
// Where links are stopped still, the row stays: they are resumed by whoever
// undoes what this one has left.
func (h *rehearsing) end(ctx context.Context) error {
	if h.stopped {
		return errors.New("links are stopped still, and the rehearsal's row stays until they go on")
	}
	conn, err := h.onClosing(ctx, h.Home)
	if err != nil {
		return err
	}
	vars, err := h.vars(Memory{})
	if err != nil {
		return err
	}
	sql := h.Part.Own(endRehearsal)
	if h.rehearsal.measured {
		sql = h.rowEnds()
		kept := append(slices.Clone(h.Rehearsed), h.measured())
		b, err := json.Marshal(kept[max(0, len(kept)-rehearsalsKept):])
		if err != nil {
			return err
		}
		vars["rehearsed"] = pg.Literal(string(b))
	}
	if err := pg.Exec(ctx, conn, h.on(h.Closing, h.Home, sql).Fill(vars).SQL); err != nil {
		return &pg.Error{Doing: "end the rehearsal", On: h.Closing.Server.String(), Err: err}
	}
	h.announced = false
	return nil
}

func (h *rehearsing) measured() Rehearsal {
	r := h.rehearsal
	r.mu.Lock()
	defer r.mu.Unlock()
	h.mu.Lock()
	blocked := h.took
	h.mu.Unlock()
	m := Rehearsal{At: time.Now().UTC(), WithTraffic: r.traffic, Blocked: blocked.Seconds(), Steps: map[string]float64{}}
	for id, d := range r.took {
		m.Steps[id] = d.Seconds()
	}
	if r.waits == nil {
		return m
	}
	if d, ok := r.waits.longest(); ok {
		m.Wait = new(max(d, r.longest).Seconds())
	}
	return m
}

// linksAgain is how long the links to the opening side may take to stream again.
const linksAgain = 30 * time.Second

// nothingLeft looks at both sides, rather than assume that they are as before.
func (h *rehearsing) nothingLeft() flow.Step {
	return flow.Step{
		ID: "undone", Title: "See that nothing is left, and that " + h.Opening.Name + " follows again", Done: never,
		Do: func(ctx context.Context, _ *flow.Turn) error {
			ctx, cancel := context.WithTimeoutCause(ctx, linksAgain, fmt.Errorf("%s have passed", linksAgain))
			defer cancel()
			return h.each(ctx, func(ctx context.Context, db *database) error { return h.asBefore(ctx, db) })
		},
	}
}

func (h *rehearsing) asBefore(ctx context.Context, db *database) error {
	closing, opening, err := h.ends(ctx, db)
	if err != nil {
		return err
	}
	at, err := link.Positions(ctx, opening, closing, db.Way)
	if err != nil {
		return err
	}
	for _, l := range db.Way {
		if at[l.Name].Slot || at[l.Name].Subscription {
			return fmt.Errorf("%s is left of the way back in %s", l.Name, db.Name)
		}
	}
	tables, err := armed(ctx, closing, db.Elsewhere)
	if err != nil {
		return err
	}
	h.rehearsal.mu.Lock()
	for _, t := range tables {
		if !slices.Contains(h.rehearsal.left, db.Name+" "+t) {
			err = fmt.Errorf("the open fence is left on %s of %s", t, db.Name)
		}
	}
	h.rehearsal.mu.Unlock()
	if err != nil {
		return err
	}
	says := ""
	err = pg.Poll(ctx, 20*time.Millisecond, "the links to "+h.Opening.Name+" to stream again", func(ctx context.Context) (bool, error) {
		var err error
		says, err = h.gates.linksGate(ctx, db)
		return says == "", err
	})
	if err != nil && says != "" {
		return fmt.Errorf("%w; %s", err, says)
	}
	return err
}

// Rehearsal ends the watching and tells what a rehearsal has measured so far,
// whatever became of it: refused is less than 0 where it could not be asked,
// left are the tables that the open fence could not be taken off.
func (c *Crossing) Rehearsal(ctx context.Context) (m Rehearsal, refused int64, tries int, left []string) {
	r := c.x.rehearsal
	refused = -1
	if r.waits != nil {
		r.waits.end()
		if n, err := c.x.rehearsing.refusedNow(ctx); err == nil {
			refused = n - r.refused
		}
	}
	m = c.x.rehearsing.measured()
	r.mu.Lock()
	defer r.mu.Unlock()
	return m, refused, r.tries, slices.Clone(r.left)
}
