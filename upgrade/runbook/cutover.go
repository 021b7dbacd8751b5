package runbook

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

var cutoverKeys = []keysUnder{
	{"cutover", []string{
		"window", "max_blocked", "lock_timeout", "patience", "kill_after",
		"approve", "back", "sequences", "traffic",
	}},
	{"window", []string{"zone", "days", "from", "to"}},
	{"sequences", []string{"margin"}},
}

var hooksKeys = []keysUnder{{"hooks", []string{"before_cutover", "after_open"}}}

func (r *reader) cutover(top *yamlMap, c *Cutover) {
	n := top.value("cutover")
	if n == nil {
		return
	}
	m := r.mapping(n, "cutover", "cutover")
	if w := m.value("window"); w != nil {
		c.Window = r.window(w)
	}
	before := len(r.mistakes)
	c.MaxBlocked = m.duration("max_blocked", c.MaxBlocked, time.Millisecond, "5s")
	c.LockTimeout = m.duration("lock_timeout", c.LockTimeout, time.Millisecond, "400ms")
	if len(r.mistakes) == before {
		r.times(m, c)
	}
	c.Patience = m.duration("patience", c.Patience, 0, "10m")
	c.KillAfter = m.duration("kill_after", c.KillAfter, 0, "30s")
	c.Back = m.truth("back", c.Back)
	r.approve(m, c)
	if s := m.value("sequences"); s != nil {
		c.SequenceMargin = r.mapping(s, "sequences", "sequences").integer("margin", c.SequenceMargin, 0)
	}
	for _, t := range m.items("traffic", "[{pgbouncer: …}]") {
		if entry := r.traffic(t); entry.Entry != nil {
			c.Traffic = append(c.Traffic, entry)
		}
	}
}

// times checks the times of a cutover against each other, where both were
// written: a default gives way (lock_timeout is cut to what is left).
func (r *reader) times(m *yamlMap, c *Cutover) {
	if m.value("max_blocked") == nil {
		return
	}
	if n := m.value("lock_timeout"); n != nil && c.LockTimeout > c.MaxBlocked {
		r.mistake(n, "lock_timeout: %s is longer than max_blocked, %s; one try for the locks is a part of an attempt",
			span(c.LockTimeout), span(c.MaxBlocked))
	}
	if w := c.Window; w.Zone != nil && w.To-w.From < c.MaxBlocked {
		r.mistake(m.value("window"), "window: it lasts %s, less than max_blocked, %s; no attempt fits in",
			span(w.To-w.From), span(c.MaxBlocked))
	}
}

var (
	weekdays  = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"} // as time.Weekday counts
	clockForm = regexp.MustCompile(`^(?:([01][0-9]|2[0-3]):([0-5][0-9])|24:00)$`)
)

// window reads when a cutover may begin. One with a mistake in it is no
// window: nothing more is said of it.
func (r *reader) window(n *yaml.Node) Window {
	const midnight = 24 * time.Hour
	before := len(r.mistakes)
	m := r.mapping(n, "window", "window")
	m.require("zone", "the time zone of from and to by its IANA name, like zone: Europe/Brussels")
	w := Window{At: r.at(n), To: midnight}
	if name, ok := m.text("zone", "Europe/Brussels"); ok {
		zone, err := time.LoadLocation(name)
		if err != nil || name == "Local" { // Local differs from machine to machine
			r.mistake(m.value("zone"), "zone: %s is no time zone; it is an IANA name, like Europe/Brussels or UTC", show(name))
		}
		w.Zone = zone
	}
	w.Days = r.days(m)
	clock := func(key string, otherwise time.Duration) time.Duration {
		s, ok := m.word(key, clockForm, `hours and minutes of two digits each, like "02:00"`)
		switch {
		case !ok:
			return otherwise
		case s == "24:00":
			return midnight
		}
		t, _ := time.Parse("15:04", s) // clockForm matches nothing else
		return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute
	}
	readable := len(r.mistakes)
	w.From, w.To = clock("from", 0), clock("to", midnight)
	if len(r.mistakes) == readable && w.To <= w.From {
		at := m.value("to")
		if at == nil { // from: "24:00"
			at = m.value("from")
		}
		when := "before"
		if w.To == w.From {
			when = "when"
		}
		r.mistake(at, "to: the window ends %s it starts; to is later than from on the same day (24:00 is midnight, and no window goes across it)", when)
	}
	if m != nil && m.value("days") == nil && m.value("from") == nil && m.value("to") == nil && len(m.empty) == 0 {
		r.mistake(n, "window: neither days nor from and to; leave the window out for any time")
	}
	if len(r.mistakes) > before {
		return Window{}
	}
	return w
}

func (r *reader) days(m *yamlMap) []time.Weekday {
	var days []time.Weekday
	for _, n := range m.some("days", "[sat, sun]") {
		s, ok := r.scalar(n, "days", "sat")
		if !ok {
			continue
		}
		d := slices.Index(weekdays, s)
		switch {
		case d < 0:
			hint := "it is one of mon, tue, wed, thu, fri, sat, sun"
			for _, day := range weekdays {
				if strings.HasPrefix(strings.ToLower(s), day) {
					hint = "did you mean " + day + "?"
				}
			}
			r.mistake(n, "days: %s is no weekday; %s", show(s), hint)
		case slices.Contains(days, time.Weekday(d)):
			r.mistake(n, "days: %s is given twice; once is right", s)
		default:
			days = append(days, time.Weekday(d))
		}
	}
	return days
}

func (r *reader) approve(m *yamlMap, c *Cutover) {
	const right = "prompt, auto or file:<path>"
	s, ok := m.text("approve", "prompt")
	if !ok {
		return
	}
	n := m.value("approve")
	r.approval = n
	path, file := strings.CutPrefix(s, "file:")
	switch {
	case file:
		c.Approve, c.ApproveFile = ApproveByFile, r.beside(n, "approve", path)
	case s == string(ApprovePrompt) || s == string(ApproveAuto):
		c.Approve = Approve(s)
	default:
		r.mistake(n, "approve: %s is none of its values; it is %s", show(s), right)
	}
}

func (r *reader) hooks(top *yamlMap, h *Hooks) {
	n := top.value("hooks")
	if n == nil {
		return
	}
	m := r.mapping(n, "hooks", "hooks")
	if v := m.value("before_cutover"); v != nil {
		h.BeforeCutover = r.hook(v, "before_cutover", 30*time.Second)
	}
	if v := m.value("after_open"); v != nil {
		h.AfterOpen = r.hook(v, "after_open", 30*time.Second)
	}
}
