package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"crossfade/upgrade/pg"
)

// Cutover is what a finished cutover or rollback has measured.
type Cutover struct {
	Cluster string // that was opened or closed, where there are several new ones
	// FenceLSN is, for each database, the position on the closing side after
	// which no write committed; nil: not known.
	FenceLSN map[string]pg.LSN
	// BlockedSeconds is from the first PAUSE or lock to the last RESUME; 0: not
	// known, because an earlier process began it.
	BlockedSeconds float64
	Steps          []CutoverStep
	// RefusedWrites are the writes that the fence has refused; less than 0: not known.
	RefusedWrites int64
	// Canaries is how many canaries were written on one side and seen on the other.
	Canaries int
}

// CutoverStep is one step with its forecast beside it.
type CutoverStep struct {
	ID              string
	Seconds         float64
	ForecastSeconds *float64 // nil: there was none
}

type cutoverLine struct {
	kind
	Cluster  string            `json:"cluster,omitempty"`
	FenceLSN map[string]string `json:"fence_lsn"`
	Blocked  *float64          `json:"blocked_seconds"`
	Steps    []cutoverStepLine `json:"steps"`
	Refused  *int64            `json:"refused_writes"`
	Canaries int               `json:"canaries"`
}

type cutoverStepLine struct {
	ID              string   `json:"id"`
	Seconds         float64  `json:"seconds"`
	ForecastSeconds *float64 `json:"forecast_seconds"`
}

func (c Cutover) line() any {
	l := cutoverLine{
		kind: kind{"cutover"}, Cluster: c.Cluster, Canaries: c.Canaries,
		Steps: list(each(c.Steps, func(s CutoverStep) cutoverStepLine { return cutoverStepLine(s) })),
	}
	if c.FenceLSN != nil {
		l.FenceLSN = map[string]string{}
		for db, at := range c.FenceLSN {
			l.FenceLSN[db] = at.String()
		}
	}
	if c.BlockedSeconds > 0 {
		l.Blocked = new(c.BlockedSeconds)
	}
	if c.RefusedWrites >= 0 {
		l.Refused = new(c.RefusedWrites)
	}
	return l
}

// Text writes c for a person. opened is the side that takes writes now: old or new.
func (c Cutover) Text(w io.Writer, opened string) error {
	p := newPage(w)
	p.printf("%s takes writes now", opened)
	if c.BlockedSeconds > 0 {
		p.printf("; they were blocked for %s", Took(time.Duration(c.BlockedSeconds*float64(time.Second))))
	}
	p.printf("\n")
	for _, db := range slices.Sorted(maps.Keys(c.FenceLSN)) {
		p.printf("fence LSN of %s: %s\n", oneLine(db), c.FenceLSN[db])
	}
	if len(c.Steps) > 0 {
		p.printf("\n")
		rows := [][]string{{"step", "took", "forecast"}}
		for _, s := range c.Steps {
			rows = append(rows, []string{s.ID, tookSeconds(&s.Seconds), tookSeconds(s.ForecastSeconds)})
		}
		p.table(rows)
		p.printf("\n")
	}
	p.printf("canaries seen on the other side: %d\n", c.Canaries)
	if c.RefusedWrites >= 0 {
		p.printf("writes that the fence refused: %d\n", c.RefusedWrites)
	}
	return p.err
}

func tookSeconds(s *float64) string {
	if s == nil {
		return unknown
	}
	return Took(time.Duration(*s * float64(time.Second)))
}

// Took is a measured duration as a person compares it: milliseconds below ten
// seconds, then seconds, then minutes.
func Took(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	case d < 10*time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}
