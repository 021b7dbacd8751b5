package monkey

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// When is a moment of a command: so long after the event that says that a step
// begins, or, without a step, after the command was typed.
type When struct {
	Step  string
	After time.Duration
}

func (w When) String() string {
	switch {
	case w.Step == "":
		return fmt.Sprintf("after %s", w.After)
	case w.After == 0:
		return "at " + w.Step
	}
	return fmt.Sprintf("at %s+%s", w.Step, w.After)
}

// Fault is one thing that breaks. For is how long; 0 is until the command of
// the round has ended, and says nothing where a fault is over at once.
type Fault struct {
	Target, Kind string
	When         When
	For          time.Duration
}

func (f Fault) String() string {
	s := f.Target + " " + f.Kind + " " + f.When.String()
	switch {
	case f.instant():
		return s
	case f.For == 0:
		return s + " until it ended"
	}
	return s + " for " + f.For.String()
}

// Typed is a command that the other machine types meanwhile.
type Typed struct {
	Machine, Command string
	When             When
}

// Round is one line of the script: a machine types a command, things break, and
// when all of it has ended and nothing is broken any more, Settles types the
// command again until it has nothing left to do.
type Round struct {
	Machine, Command string
	Faults           []Fault
	Other            *Typed
	Settles          string
}

func (r Round) String() string {
	parts := []string{r.Machine + " " + r.Command}
	for _, f := range r.Faults {
		parts = append(parts, f.String())
	}
	if o := r.Other; o != nil {
		parts = append(parts, o.Machine+" types "+o.Command+" "+o.When.String())
	}
	return strings.Join(append(parts, "then "+r.Settles), " | ")
}

// Parse reads what String writes.
func Parse(line string) (Round, error) {
	var r Round
	for i, part := range strings.Split(line, "|") {
		words := strings.Fields(part)
		bad := fmt.Errorf("%q is no part of a round", strings.TrimSpace(part))
		switch {
		case len(words) < 2:
			return r, bad
		case i == 0 && len(words) == 2:
			r.Machine, r.Command, r.Settles = words[0], words[1], words[0]
		case words[0] == "then" && len(words) == 2:
			r.Settles = words[1]
		case words[1] == "types" && len(words) == 5:
			when, err := parseWhen(words[3:])
			if err != nil {
				return r, fmt.Errorf("%w: %w", bad, err)
			}
			r.Other = &Typed{words[0], words[2], when}
		case len(words) >= 4:
			when, err := parseWhen(words[2:])
			f := Fault{Target: words[0], Kind: words[1], When: when}
			if err == nil && len(words) == 6 && words[4] == "for" {
				f.For, err = time.ParseDuration(words[5])
			}
			if err != nil {
				return r, fmt.Errorf("%w: %w", bad, err)
			}
			if !slices.ContainsFunc(breakable, func(b breaks) bool { return b.target == f.Target && slices.Contains(b.kinds, f.Kind) }) {
				return r, fmt.Errorf("%w: %s cannot be %s", bad, f.Target, f.Kind)
			}
			r.Faults = append(r.Faults, f)
		default:
			return r, bad
		}
	}
	for _, m := range []string{r.Machine, r.Settles} {
		if !slices.Contains(machines, m) {
			return r, fmt.Errorf("%q: %q is none of the machines %v", line, m, machines)
		}
	}
	return r, nil
}

func parseWhen(words []string) (When, error) {
	if words[0] == "after" {
		d, err := time.ParseDuration(words[1])
		return When{After: d}, err
	}
	step, after, later := strings.Cut(words[1], "+")
	w := When{Step: step}
	if words[0] != "at" {
		return w, fmt.Errorf("%q is neither at nor after", words[0])
	}
	var err error
	if later {
		w.After, err = time.ParseDuration(after)
	}
	return w, err
}

// machines are where commands are typed; each has a folder and a journal of its
// own.
var machines = []string{"a", "b"}

// breaks says what can happen to a part, and how often it is drawn.
type breaks struct {
	target string
	kinds  []string
	weight int
}

var breakable = []breaks{
	{"tool", []string{"killed", "frozen", "lost", "interrupted"}, 8},
	{"old", servers, 4},
	{"new", servers, 4},
	{"pool1", poolers, 3},
	{"pool2", poolers, 4},
	{"metal", []string{"stopped", "frozen"}, 1},
	{"tool-old", []string{"cut"}, 1},
	{"tool-new", []string{"cut"}, 1},
	{"old-new", []string{"cut"}, 2},
	{"journal", []string{"full", "unwritable"}, 2},
}

var (
	servers = []string{"crashed", "killed", "headless", "bereft", "restarted", "frozen"}
	poolers = []string{"killed", "frozen", "restarted"}
)

// instant says whether it is over at once: nothing has to be put back.
func (f Fault) instant() bool {
	return f.Target == "tool" && f.Kind != "frozen" || f.Kind == "bereft" || f.Kind == "restarted"
}

// stepsOfCrossing are the steps of cutover and rollback, those after close
// more often: there the design is put to the test.
var stepsOfCrossing = []string{
	"arm", "gate", "traffic/prepare", "back/make", "traffic/pause", "barrier", "canary", "drain", "sequences", "forward/stop", "back/prove",
	"durable", "close", "close", "close/kept", "open", "open", "traffic/point", "traffic/point", "traffic/resume", "read-only", "read-only",
	"back/follow", "forward/drop", "leaks", "disarm", "done",
}

var stepsOf = map[string][]string{
	"cutover": stepsOfCrossing, "rollback": stepsOfCrossing,
	"rehearse": stepsOfCrossing[:11],
	"prepare":  {"check", "catchup/shop", "analyze/shop", "compare/shop", "ready"},
	"abort":    {"forward/drop", "back/drop", "unfence/new", "unfence/old", "ground/drop/old"},
	"finish":   {"forward/drop", "back/drop", "unfence/new", "ground/drop/new", "ground/drop/old"},
}

// script draws rounds from a seed: the same seed gives the same rounds, however
// many are taken. It knows on which side clients should be by now, and nothing
// of the servers.
type script struct {
	r     *rand.Rand
	onNew bool
}

func newScript(seed uint64) *script { return &script{r: rand.New(rand.NewPCG(seed, 13))} }

// next draws a round.
func (s *script) next() Round {
	r := Round{Machine: s.machine(), Command: s.command()}
	faults := s.weighted(3, 12, 5)
	for range faults {
		r.Faults = append(r.Faults, s.fault(r.Command))
	}
	if s.r.IntN(10) < 3 {
		r.Other = &Typed{Machine: other(r.Machine), Command: s.meanwhile(r.Command), When: s.when(r.Command)}
	}
	r.Settles = s.machine()
	switch r.Command {
	case "cutover":
		s.onNew = true
	case "rollback":
		s.onNew = false
	}
	return r
}

// last is the round that ends the upgrade.
func (s *script) last() Round {
	r := Round{Machine: s.machine(), Command: "finish", Settles: s.machine()}
	if s.r.IntN(2) == 0 {
		r.Faults = []Fault{{Target: "tool", Kind: "killed", When: s.when("finish")}}
	}
	return r
}

func (s *script) command() string {
	if s.onNew {
		return []string{"rollback", "prepare", "verify"}[s.weighted(18, 1, 1)]
	}
	return []string{"cutover", "rehearse", "prepare", "verify", "abort"}[s.weighted(16, 1, 1, 1, 1)]
}

// meanwhile is what the other machine types.
func (s *script) meanwhile(command string) string {
	return []string{command, "status", "verify", "prepare", "cutover", "rollback", "rehearse", "abort"}[s.weighted(6, 4, 1, 1, 1, 1, 1, 1)]
}

func (s *script) fault(command string) Fault {
	var weights []int
	for _, b := range breakable {
		weights = append(weights, b.weight)
	}
	b := breakable[s.weighted(weights...)]
	f := Fault{Target: b.target, Kind: b.kinds[s.r.IntN(len(b.kinds))], When: s.when(command)}
	if s.r.IntN(3) > 0 {
		f.For = time.Duration(200+s.r.IntN(4800)) * time.Millisecond
	}
	if f.Target == "tool" && f.Kind == "frozen" && f.For == 0 { // it would never end
		f.For = time.Duration(2+s.r.IntN(5)) * time.Second
	}
	if f.instant() {
		f.For = 0
	}
	if f.Kind == "unwritable" { // a file that is open is written on
		f.When = When{}
	}
	return f
}

func (s *script) when(command string) When {
	steps := stepsOf[command]
	if len(steps) == 0 || s.r.IntN(8) == 0 {
		return When{After: time.Duration(s.r.IntN(1500)) * time.Millisecond}
	}
	w := When{Step: steps[s.r.IntN(len(steps))]}
	if s.r.IntN(3) == 0 {
		w.After = time.Duration(1+s.r.IntN(80)) * time.Millisecond
	}
	return w
}

func (s *script) machine() string { return machines[s.r.IntN(len(machines))] }

func other(machine string) string {
	if machine == machines[0] {
		return machines[1]
	}
	return machines[0]
}

// weighted draws an index, each as often as its weight says.
func (s *script) weighted(weights ...int) int {
	sum := 0
	for _, w := range weights {
		sum += w
	}
	n := s.r.IntN(sum)
	for i, w := range weights {
		if n -= w; n < 0 {
			return i
		}
	}
	panic("weights do not add up")
}
