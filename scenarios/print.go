package scenarios

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// screen is where a play is reported. It never fails a play: who does not read it
// misses it.
type screen struct {
	mu       sync.Mutex
	out      io.Writer
	terminal bool
	what     string // of the line before: not repeated
	live     bool   // the last line is one that the next takes the place of
}

const (
	whatColumns = 10
	idColumns   = 28
	saysColumns = 60
)

func (s *screen) printf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	_, _ = fmt.Fprintf(s.out, format, args...)
}

// clear takes the live line away. The caller has the lock.
func (s *screen) clear() {
	if s.live {
		_, _ = io.WriteString(s.out, "\r\x1b[K")
		s.live = false
	}
}

// say tells one sentence about what is named at the line's start.
func (s *screen) say(what, says string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	head := what
	if what == s.what {
		head = ""
	}
	s.what = what
	for i, line := range strings.Split(strings.TrimRight(says, "\n"), "\n") {
		if i > 0 {
			head = ""
		}
		_, _ = fmt.Fprintf(s.out, "%-*s %s\n", whatColumns, head, line)
	}
}

// begin shows a step in work on a terminal; elsewhere its end alone is reported.
func (s *screen) begin(id, title string) {
	if !s.terminal {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	_, _ = fmt.Fprintf(s.out, "  %-*s %s …", idColumns, id, cut(title, saysColumns-2))
	s.live = true
}

// step tells a step that has ended.
func (s *screen) step(id, title, end string) {
	s.printf("  %-*s %s %9s\n", idColumns, id, pad(cut(title, saysColumns), saysColumns), end)
}

func pad(s string, columns int) string {
	return s + strings.Repeat(" ", max(0, columns-utf8.RuneCountInString(s)))
}

func cut(s string, columns int) string {
	r := []rune(s)
	if len(r) <= columns {
		return s
	}
	return string(r[:columns-1]) + "…"
}

// took is a measured duration: milliseconds below ten seconds, then seconds.
func took(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	case d < 10*time.Second:
		return number(d.Milliseconds()) + " ms"
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

func inSeconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// number is n with a comma between thousands.
func number(n int64) string {
	s := strconv.FormatInt(n, 10)
	digits := len(s)
	if n < 0 {
		digits--
	}
	for at := len(s) - 3; digits > 3; at, digits = at-3, digits-3 {
		s = s[:at] + "," + s[at:]
	}
	return s
}

func plural(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return number(n) + " " + what + "s"
}
