package scenarios

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"crossfade/scenarios/lab"
)

// Options say how to play. The zero Options builds crossfade, plays in a new
// folder, tells nobody and takes everything down.
type Options struct {
	// Crossfade is the binary. Empty: it is built from this module's source.
	Crossfade string
	// Dir is the run's folder, empty or missing. Empty: a new one. It is removed
	// after a play that passed, unless Keep is set.
	Dir string
	// Keep leaves the servers running, whatever became of the play.
	Keep bool
	// Out is given what happens, line by line. nil: nobody.
	Out io.Writer
	// Terminal says that Out is one.
	Terminal bool
}

// Result is what became of a play.
type Result struct {
	Scenario  string     `json:"scenario"`
	Passed    bool       `json:"passed"`
	Failure   string     `json:"failure,omitempty"` // the first thing that went wrong
	Dir       string     `json:"dir"`               // of the run; gone after a play that passed without Keep
	Old       int        `json:"old"`               // major versions
	New       int        `json:"new"`
	Commands  []Command  `json:"commands"`
	Crossings []Crossing `json:"crossings"`
	Proofs    []Proof    `json:"proofs"`
	Seconds   float64    `json:"seconds"`
}

// Command is one run of crossfade.
type Command struct {
	Command string  `json:"command"`
	Exit    int     `json:"exit"`
	Seconds float64 `json:"seconds"`
}

// Crossing is a cutover or a rollback as its clients and crossfade measured it.
type Crossing struct {
	Command  string            `json:"command"`
	From     int               `json:"from"` // major versions
	To       int               `json:"to"`
	Outage   float64           `json:"outage_seconds"` // the longest time between two acknowledged writes of one database
	Database string            `json:"database"`       // which
	Blocked  *float64          `json:"blocked_seconds"`
	FenceLSN map[string]string `json:"fence_lsn"`
	Refused  *int64            `json:"refused_writes"`
	Canaries int               `json:"canaries"`
	Steps    []StepTime        `json:"steps"`

	began, ended time.Time
}

// play is one performance.
type play struct {
	*screen
	stage    *Stage
	users    *Users
	options  Options
	result   *Result
	titles   map[string]string // of steps, by plan and step
	want     shape
	switcher *switcher
	open     []int  // crossings whose writers still write
	serves   string // the side that was proven last
	acts     int
}

// Play boots a scenario, does what its acts say, judges, and takes everything
// down. The result is there whenever the stage was; the error is the first
// thing that went wrong, be it that something could not be done or that
// something is not true.
func Play(ctx context.Context, s *Scenario, o Options) (result *Result, err error) {
	began := time.Now()
	if o.Out == nil {
		o.Out = io.Discard
	}
	p := &play{screen: &screen{out: o.Out, terminal: o.Terminal}, options: o, titles: map[string]string{}}
	if o.Dir == "" {
		if o.Dir, err = os.MkdirTemp("", "crossfade-"+s.Name+"-"); err != nil {
			return nil, err
		}
	}
	p.printf("%s: %s\n\n", s.Name, s.Title)
	p.say("machine", machine())
	if p.stage, err = Boot(ctx, s, o.Dir, o.Keep, p.say); err != nil {
		return nil, err
	}
	p.users = NewUsers(p.stage)
	p.result = &Result{Scenario: s.Name, Dir: o.Dir, Old: p.stage.Old.Major, New: p.stage.New.Major}
	err = p.perform(ctx)
	if _, serr := p.users.Stop(); serr != nil {
		err = errors.Join(err, serr)
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	p.result.Seconds = time.Since(began).Seconds()
	p.result.Passed = err == nil
	if err != nil {
		p.result.Failure = err.Error()
	}
	p.summary(err)
	return p.result, errors.Join(err, p.down(ctx, err))
}

// down takes the stage down. What crossfade printed stays after a failure.
func (p *play) down(ctx context.Context, failed error) error {
	if p.options.Keep {
		p.printf("\nThe servers run on: lab down %s ends them. All of this run is in %s\n", p.stage.Scenario.Name, p.stage.Dir)
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downTime)
	defer cancel()
	if failed == nil {
		return p.stage.Down(ctx)
	}
	p.printf("\n%s\nWhat crossfade printed is in %s\n", p.stage.logs(30), filepath.Join(p.stage.Dir, "crossfade"))
	return p.stage.Lab.Down(ctx)
}

// perform does the acts.
func (p *play) perform(ctx context.Context) error {
	if p.options.Crossfade == "" {
		path, err := Build(ctx, filepath.Join(p.stage.Dir, "bin")) // beside what it prints, in crossfade
		if err != nil {
			return err
		}
		p.options.Crossfade = path
	}
	var err error
	if slices.ContainsFunc(p.stage.Scenario.Acts, func(a Act) bool { return a.Prove != "" || a.Split != nil }) {
		if p.want, err = p.stage.shape(ctx); err != nil {
			return fmt.Errorf("look at old before anything is done: %w", err)
		}
	}
	if len(p.stage.Scenario.Load) > 0 {
		if err := p.work(ctx); err != nil {
			return err
		}
		p.say("load", p.users.Describe())
	}
	if p.stage.Scenario.Old.Switched {
		p.switcher = switching(ctx, p.stage)
		defer p.switcher.Stop()
	}
	for i, a := range p.stage.Scenario.Acts {
		switch {
		case a.Run != "":
			err = p.run(ctx, a)
		case a.Prove != "":
			err = p.prove(ctx, a.Prove)
			if err == nil && i < len(p.stage.Scenario.Acts)-1 {
				err = p.work(ctx)
			}
		case a.Split != nil:
			err = p.proveSplit(ctx, a.Split)
			if err == nil && i < len(p.stage.Scenario.Acts)-1 {
				err = p.work(ctx)
			}
		case a.Left != "":
			err = p.left(ctx, a.Left)
		case a.Manager != "":
			err = p.managed(ctx, a.Manager)
		case a.Failover != "":
			err = p.failover(ctx, a.Failover)
		case a.Stop != "":
			p.printf("\nstop %s\n", a.Stop)
			if err = p.stage.node(a.Stop).Stop(ctx, lab.Fast); err == nil {
				err = p.flow(ctx)
			}
		case a.Start != "":
			p.printf("\nstart %s\n", a.Start)
			if err = p.stage.node(a.Start).Boot(ctx); err == nil {
				err = p.flow(ctx)
			}
		case a.SQL != "":
			err = p.sql(ctx, a)
		case a.Promote != "":
			err = p.promote(ctx, a.Promote)
		case a.Status != "":
			err = p.status(ctx, a.Status)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// flowRows is how many rows must be acknowledged before the load counts as
// flowing.
const flowRows = 200

// flowTime is how long that may take.
const flowTime = 30 * time.Second

// work lets the users work and waits until their writes get through.
func (p *play) work(ctx context.Context) error {
	if err := p.users.Start(ctx); err != nil {
		return err
	}
	return p.flow(ctx)
}

func (p *play) flow(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, flowTime, fmt.Errorf("no %d rows within %s", flowRows, flowTime))
	defer cancel()
	return p.users.Flow(ctx, flowRows)
}

// crossings are the commands that move the writes, and where they move them.
var crossings = map[string]string{"cutover": sideNew, "rollback": sideOld}

// run runs crossfade.
func (p *play) run(ctx context.Context, a Act) error {
	words := strings.Fields(a.Run)
	p.printf("\n%s\n", "crossfade "+strings.Join(words, " "))
	p.acts++
	base := filepath.Join(p.stage.Dir, "crossfade", fmt.Sprintf("%02d-%s", p.acts, words[0]))
	c := Crossing{Command: words[0], began: time.Now()}
	t := &tellerOf{play: p, crossing: &c, cut: a.Cut}
	inv, err := crossfade(ctx, p.options.Crossfade, p.stage.Runbook, base, words, t.line, t.said)
	if inv != nil {
		p.result.Commands = append(p.result.Commands, Command{inv.String(), inv.exit, inv.seconds})
	}
	if err != nil {
		return err
	}
	if inv.exit != a.Exit {
		return errors.New(inv.why())
	}
	if err := inv.says(a.Says); err != nil {
		return err
	}
	t.end(inv)
	to, crosses := crossings[words[0]]
	if !crosses || inv.exit != 0 {
		return nil
	}
	if err := p.flow(ctx); err != nil {
		return fmt.Errorf("after %s: %w", inv, err)
	}
	c.ended = time.Now()
	c.From, c.To = p.stage.other(to).Major, p.stage.side(to).Major
	gap, database := p.users.Gap(c.began)
	c.Outage, c.Database = gap.Length.Seconds(), database
	p.result.Crossings = append(p.result.Crossings, c)
	p.open = append(p.open, len(p.result.Crossings)-1)
	if c.Blocked != nil {
		p.printf("  writes were blocked for %s; the longest that a client waited for one: %s\n", took(inSeconds(*c.Blocked)), took(gap.Length))
	}
	return nil
}

// tellerOf turns crossfade's lines into lines for a person.
type tellerOf struct {
	play     *play
	crossing *Crossing
	blocks   int
	warns    int
	notes    int
	steps    map[string]int // by plan
	tables   int
	last     string // that was said
	cut      *Cut   // not yet made
}

func (t *tellerOf) line(l line) {
	p := t.play
	switch l.Type {
	case "finding":
		switch {
		case l.Level == "block" && !l.Accepted:
			t.blocks++
			t.finding("BLOCK", l)
		case l.Level == "note" || l.Accepted:
			t.notes++
		default:
			t.warns++
			t.finding("warning", l)
		}
	case "step":
		p.titles[l.Plan+" "+l.ID] = l.Title
		if t.steps == nil {
			t.steps = map[string]int{}
		}
		t.steps[l.Plan]++
	case "forecast":
		t.forecast(l)
	case "table":
		t.tables++
	case "status":
		t.status(l)
	case "event":
		t.event(l)
	case "cutover":
		t.crossing.FenceLSN, t.crossing.Blocked, t.crossing.Steps = l.FenceLSN, l.Blocked, l.Steps
		t.crossing.Refused, t.crossing.Canaries = l.Refused, l.Canaries
	}
}

// forecast tells the figures of a plan that a reader of a demo can hold against
// what comes.
func (t *tellerOf) forecast(l line) {
	if l.Value == nil || l.Object != nil {
		return
	}
	switch {
	case l.Unit == "seconds":
		t.play.printf("  forecast: %s: %s\n", strings.ToLower(l.Title[:1])+l.Title[1:], took(inSeconds(*l.Value)))
	case l.Unit == "bytes":
		t.play.printf("  forecast: %s: %s bytes\n", l.Title, number(int64(*l.Value)))
	}
}

// status is the gist of what crossfade status says.
func (t *tellerOf) status(l line) {
	states, standbys := map[string]int64{}, []string{}
	var lag int64
	for _, k := range l.Links {
		states[k.State]++
		if k.Lag != nil {
			lag = max(lag, *k.Lag)
		}
	}
	says := fmt.Sprintf("phase %s, %s takes writes", l.Phase, l.Writable)
	for _, state := range slices.Sorted(maps.Keys(states)) {
		says += fmt.Sprintf("; %s %s", plural(states[state], "link"), state)
	}
	if len(l.Links) > 0 {
		says += fmt.Sprintf(", at most %s bytes behind", number(lag))
	}
	for _, s := range l.Standbys {
		standbys = append(standbys, fmt.Sprintf("%s of %s %s", s.Name, s.Cluster, s.State))
	}
	if len(standbys) > 0 {
		says += "; " + strings.Join(standbys, ", ")
	}
	t.play.printf("  %s\n", says)
	if l.Next != "" {
		t.play.printf("  next: %s\n", l.Next)
	}
}

// clock is the time of day that crossfade's lines of progress begin with.
var clock = regexp.MustCompile(`^\d\d:\d\d:\d\d\.\d{3} +`)

// said tells what crossfade says to who watches, each thing once.
func (t *tellerOf) said(text string) {
	text = strings.TrimRight(clock.ReplaceAllString(text, ""), " ")
	failure := strings.HasPrefix(text, "crossfade: ") || strings.HasPrefix(text, "hint: ") // told with the exit code
	if text != "" && text != t.last && !failure {
		t.play.printf("    %s\n", cut(text, 120))
		t.last = text
	}
}

// finding tells what check has found; plan says the same again.
func (t *tellerOf) finding(word string, l line) {
	if t.crossing.Command != "plan" {
		t.play.printf("  %s %s: %s\n", word, l.ID, cut(firstLine(l.Says), 110))
	}
}

func (t *tellerOf) event(l line) {
	p, title := t.play, t.play.titles[l.Plan+" "+l.Step]
	if l.Cluster != "" {
		l.Step = l.Cluster + " " + l.Step
	}
	var d time.Duration
	if l.Seconds != nil {
		d = inSeconds(*l.Seconds)
	}
	says := ""
	if l.Error != nil {
		says = firstLine(*l.Error)
	}
	switch l.Kind {
	case "begin":
		p.begin(l.Step, title)
		if t.cut != nil && t.cut.At == l.Step {
			p.cutLine(*t.cut)
			t.cut = nil
		}
	case "end":
		p.step(l.Step, title, took(d))
	case "fail":
		p.printf("  %-*s failed after %s: %s\n", idColumns, l.Step, took(d), says)
	case "undone":
		p.step(l.Step, "undone: "+title, took(d))
	}
}

// end tells what the whole command came to.
func (t *tellerOf) end(inv *invocation) {
	var words []string
	if n := t.blocks + t.warns + t.notes; n > 0 || inv.words[0] == "check" {
		words = append(words, fmt.Sprintf("%s, %s, %s accepted or noted", plural(int64(t.blocks), "blocking finding"), plural(int64(t.warns), "warning"), number(int64(t.notes))))
	}
	for _, plan := range []string{"prepare", "cutover", "rollback", "finish", "abort"} {
		if n := t.steps[plan]; n > 0 {
			words = append(words, fmt.Sprintf("%s: %s", plan, plural(int64(n), "step")))
		}
	}
	if t.tables > 0 {
		words = append(words, plural(int64(t.tables), "table")+" compared")
	}
	says := "done"
	if inv.exit != 0 {
		says = fmt.Sprintf("exit %d, as it must be", inv.exit)
	}
	t.play.printf("  %s in %s\n", strings.Join(append(words, says), "; "), took(inSeconds(inv.seconds)))
}

// prove stops the load and looks at everything.
func (p *play) prove(ctx context.Context, side string) error {
	serves := p.stage.side(side)
	p.printf("\nproof, with the load stopped: PostgreSQL %d (%s) serves\n", serves.Major, serves.Name)
	last, err := p.users.Stop()
	if err != nil {
		return err
	}
	p.measure(last)
	p.result.Proofs = append(p.result.Proofs, Proof{Serves: side, Major: serves.Major})
	proof := &p.result.Proofs[len(p.result.Proofs)-1]
	claim := func(c Claim) {
		proof.Claims = append(proof.Claims, c)
		p.printf("  %-*s %-6s %s\n", claimColumns, c.What, verdict(c.True), c.Says)
	}
	p.outages(claim)
	p.serves, p.users.serves = side, side
	(&prover{stage: p.stage, users: p.users, want: p.want, side: side, claim: claim, crossfade: p.options.Crossfade}).prove(ctx)
	if p.switcher != nil {
		claim(Claim{"synchronous while one streams", p.switcher.says(), true})
	}
	if !proof.Passed() {
		return fmt.Errorf("not everything is true while PostgreSQL %d serves", serves.Major)
	}
	return nil
}

const claimColumns = 30

func verdict(yes bool) string {
	if yes {
		return "true"
	}
	return "FALSE"
}

// measure takes the outage from what the writers wrote down in the end.
func (p *play) measure(last map[string]lab.Report) {
	for _, i := range p.open {
		c := &p.result.Crossings[i]
		var worst time.Duration
		for database, r := range last {
			if g := r.GapBetween(c.began, c.ended); g.Length > worst {
				worst, c.Database = g.Length, database
			}
		}
		c.Outage = worst.Seconds()
	}
}

// left looks at what crossfade has left on the servers.
func (p *play) left(ctx context.Context, may string) error {
	serves := cmp.Or(p.serves, sideOld)
	says, err := p.stage.left(ctx, serves, may)
	if err != nil {
		return fmt.Errorf("crossfade has left what it must not: %w", err)
	}
	p.stage.finished = true
	as, err := (&prover{stage: p.stage, want: p.want, side: serves}).schema(ctx)
	if err != nil {
		return err
	}
	p.printf("  leaves: %s; %s\n", says, as)
	return nil
}
