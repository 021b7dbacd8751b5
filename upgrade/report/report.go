// Package report is what the tool has to say, as data: where an upgrade
// stands, what was found, what a plan does, what happened, what was proven.
//
// Every type renders as one JSON line (Encode), and those that a person reads
// at a terminal as text. Nothing here asks a server or decides anything: the
// values are filled in elsewhere. In JSON every known field is always there;
// what is not known is null. Times are RFC 3339 in UTC, positions are LSNs as
// PostgreSQL prints them, durations are seconds.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"crossfade/upgrade/pg"
)

// Line is one JSON object on a line of its own, "type" first. Only the types
// of this package are lines.
type Line interface{ line() any }

// Encode writes l as one line, with its line break, in a single Write.
func Encode(w io.Writer, l Line) error {
	e := json.NewEncoder(w)
	// SQL is full of < and >: a person reads it in these lines too.
	e.SetEscapeHTML(false)
	if err := e.Encode(l.line()); err != nil {
		return fmt.Errorf("write a JSON line: %w", err)
	}
	return nil
}

// kind is the first field of every line.
type kind struct {
	Type string `json:"type"`
}

// stamp is a time in a line. Microseconds are what PostgreSQL keeps.
type stamp time.Time

func (s stamp) MarshalText() ([]byte, error) {
	return []byte(time.Time(s).UTC().Format("2006-01-02T15:04:05.999999Z07:00")), nil
}

func stampOf(t *time.Time) *stamp {
	if t == nil || t.IsZero() {
		return nil
	}
	s := stamp(*t)
	return &s
}

// text is a string in a line where "" means that there is none.
func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func lsnText(l *pg.LSN) *string {
	if l == nil {
		return nil
	}
	return new(l.String())
}

// seconds is a duration in a line; 0 and less mean that it is not known.
func seconds(d time.Duration) *float64 {
	if d <= 0 {
		return nil
	}
	return new(d.Seconds())
}

// list is s, never nil: an empty list is known to be empty.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// Seconds is a duration in seconds; nil stays nil.
func Seconds(d *time.Duration) *float64 {
	if d == nil {
		return nil
	}
	f := d.Seconds()
	return &f
}
