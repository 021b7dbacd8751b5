package report

import (
	"io"
	"strings"
	"time"
)

// Rehearsal is what a rehearsal of the cutover has measured, and what it did to
// the application.
type Rehearsal struct {
	Cluster string // whose cutover it was, where there are several new ones
	// WithTraffic: clients were held back in the poolers, too.
	WithTraffic bool
	// BlockedSeconds is from the first PAUSE or lock to the end of the last step
	// that was rehearsed; 0: it did not get there. A cutover closes and opens
	// after that.
	BlockedSeconds float64
	// LongestWaitSeconds is the longest that a client waited for a lock, or in a
	// pooler that was paused; nil: not known.
	LongestWaitSeconds *float64
	// RefusedWrites are the statements that the fence refused; less than 0: not known.
	RefusedWrites int64
	// Tries is how many attempts to have all locks it took.
	Tries    int
	Steps    []CutoverStep
	Canaries int
	// Left are the tables that were too busy to take the open fence off.
	Left []string
}

type rehearsalLine struct {
	kind
	Cluster     string            `json:"cluster,omitempty"`
	WithTraffic bool              `json:"with_traffic"`
	Blocked     *float64          `json:"blocked_seconds"`
	Wait        *float64          `json:"longest_wait_seconds"`
	Refused     *int64            `json:"refused_writes"`
	Tries       int               `json:"tries"`
	Steps       []cutoverStepLine `json:"steps"`
	Canaries    int               `json:"canaries"`
	Left        []string          `json:"left"`
}

func (r Rehearsal) line() any {
	l := rehearsalLine{
		kind: kind{"rehearsal"}, Cluster: r.Cluster, WithTraffic: r.WithTraffic, Wait: r.LongestWaitSeconds, Tries: r.Tries, Canaries: r.Canaries, Left: list(r.Left),
		Steps: list(each(r.Steps, func(s CutoverStep) cutoverStepLine { return cutoverStepLine(s) })),
	}
	if r.BlockedSeconds > 0 {
		l.Blocked = new(r.BlockedSeconds)
	}
	if r.RefusedWrites >= 0 {
		l.Refused = new(r.RefusedWrites)
	}
	return l
}

// Text writes r for a person.
func (r Rehearsal) Text(w io.Writer) error {
	p := newPage(w)
	p.printf("rehearsed and undone; old takes writes as before\n\n")
	rows := [][]string{{"step", "took", "before"}}
	for _, s := range r.Steps {
		rows = append(rows, []string{s.ID, tookSeconds(&s.Seconds), tookSeconds(s.ForecastSeconds)})
	}
	p.table(rows)
	p.printf("\n")
	if r.BlockedSeconds > 0 {
		p.printf("writers were blocked for %s; the cutover closes old and opens new after that\n", Took(time.Duration(r.BlockedSeconds*float64(time.Second))))
	}
	p.printf("longest wait of a writer: %s\n", tookSeconds(r.LongestWaitSeconds))
	switch {
	case r.RefusedWrites == 0:
		p.printf("refused statements: none\n")
	case r.RefusedWrites > 0:
		p.printf("refused statements: %d\n", r.RefusedWrites)
	}
	if r.Tries > 1 {
		p.printf("the locks were had at try %d\n", r.Tries)
	}
	p.printf("canaries seen on the other side: %d\n", r.Canaries)
	if len(r.Left) > 0 {
		p.printf("too busy to take the open fence off, which lets everything through; the next command does: %s\n", strings.Join(r.Left, ", "))
	}
	return p.err
}
