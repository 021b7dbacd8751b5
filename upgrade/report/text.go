package report

import (
	"fmt"
	"io"
	"strings"
	"time"

	"crossfade/upgrade/pg"
)

// Text writes s for a person: first who takes writes now, last the command to
// type next. What is empty or not known is left out, but for who takes writes.
func (s Status) Text(w io.Writer) error {
	p := newPage(w)
	if len(s.Clusters) == 0 {
		p.printf("%s\n", s.headline())
	}
	for _, c := range s.Clusters {
		one := Status{Writable: c.Writable, Fence: c.Fence}
		p.printf("cluster %s: %s (phase %s)\n", c.Cluster, one.headline(), orUnknown(string(c.Phase)))
	}
	p.printf("upgrade %s, phase %s, %s\n", s.Upgrade, orUnknown(string(s.Phase)), s.At.UTC().Format("2006-01-02 15:04:05 UTC"))
	for _, q := range s.Silent {
		p.printf("no answer from %s: %s\n", q.On, oneLine(q.Says))
	}
	for _, n := range s.Notes {
		p.printf("note: %s\n", oneLine(n))
	}
	s.linksText(p)
	s.receiversText(p)
	s.gatesText(p)
	if s.WALKeptBytes != nil {
		p.printf("\nWAL kept for the slots: %s\n", Size(*s.WALKeptBytes))
	}
	if s.Step != nil {
		p.printf("\nin progress: %s\n", s.Step.text(s.At))
	}
	if next := s.NextText(); next != "" {
		p.printf("\n%s", next)
	}
	return p.err
}

// NextText is the command to type next, for a person, with what else may be
// done where the upgrade is open; "" where there is none.
func (s Status) NextText() string {
	if s.Next == "" {
		return ""
	}
	says := "next: " + oneLine(s.Next) + "\n"
	if s.Phase == PhaseOpen {
		says += "  crossfade rollback   moves the writes back to the old cluster; nothing written on the new one is lost\n" +
			"  crossfade finish     ends the possibility of a rollback, for good: only when you are sure\n"
	}
	return says
}

func (s Status) headline() string {
	switch s.writable() {
	case WritableOld:
		return "old takes writes" + fenceText("new", s.Fence.New)
	case WritableNew:
		return "new takes writes" + fenceText("old", s.Fence.Old)
	case WritableNone:
		return "NOBODY takes writes: one side is closed, the other is not open yet"
	case WritableBoth:
		return "BOTH old and new take writes: rows are being lost to the other side, stop the application"
	}
	return "it is not known who takes writes"
}

// fenceText reports the fence of the side that does not take writes.
func fenceText(side string, f FenceState) string {
	switch f {
	case FenceClosed:
		return "; " + side + " refuses them"
	case FenceArmed:
		return "; the fence of " + side + " is armed and lets them through"
	}
	return ""
}

func (s Status) linksText(p *page) {
	if len(s.Links) == 0 {
		return
	}
	p.printf("\nlinks\n")
	rows := [][]string{{"  database", "set", "direction", "state", "sent_lsn", "confirmed_lsn", "lag", "behind"}}
	if len(s.Clusters) > 0 {
		rows[0] = append(rows[0], "cluster")
	}
	for _, l := range s.Links {
		lag, behind := unknown, unknown
		if l.LagBytes != nil {
			lag = Size(*l.LagBytes)
		}
		if l.LagSeconds != nil {
			behind = tookSeconds(l.LagSeconds)
		}
		rows = append(rows, []string{
			"  " + l.Database, l.Set, orUnknown(l.Direction), orUnknown(l.State), lsnCell(l.Sent), lsnCell(l.Confirmed), lag, behind,
		})
		if len(s.Clusters) > 0 {
			rows[len(rows)-1] = append(rows[len(rows)-1], l.Cluster)
		}
	}
	p.table(rows)
	for _, l := range s.Links {
		if l.Error != "" {
			p.printf("  %s/%s: %s\n", l.Database, l.Set, oneLine(l.Error))
		}
	}
}

func (s Status) gatesText(p *page) {
	if len(s.Gates) == 0 {
		return
	}
	p.printf("\ngates\n")
	rows := make([][]string, 0, len(s.Gates))
	for _, g := range s.Gates {
		ok := "  ok"
		if !g.OK {
			ok = "  CLOSED"
		}
		id := g.ID
		if g.Cluster != "" {
			id = g.Cluster + " " + id
		}
		rows = append(rows, []string{ok, id, oneLine(g.Says)})
	}
	p.table(rows)
}

func (w *Work) text(now time.Time) string {
	var b strings.Builder
	b.WriteString(w.Plan + " " + w.ID)
	if w.Since != nil {
		fmt.Fprintf(&b, ", since %s (%s)", w.Since.UTC().Format("15:04:05 UTC"), now.Sub(*w.Since).Round(time.Second))
	}
	if w.Done != nil {
		b.WriteString(": " + Progress(*w.Done, w.Total, w.Unit))
	}
	if w.ETASeconds != nil {
		b.WriteString(", done in " + aboutSeconds(*w.ETASeconds))
	}
	return b.String()
}

// Progress is how far a step is: 43 % (12 GB of 28 GB). A nil total is not
// known; a total is an estimate, and never shown as reached before it is.
func Progress(done int64, total *int64, unit string) string {
	if total == nil || *total <= 0 {
		return Quantity(done, unit)
	}
	bare := unit
	if unit != "bytes" {
		bare = ""
	}
	return fmt.Sprintf("%d %% (%s of %s)", min(done*100 / *total, 100), Quantity(done, bare), Quantity(*total, unit))
}

func orUnknown(s string) string {
	if s == "" {
		return unknown
	}
	return s
}

func lsnCell(l *pg.LSN) string {
	if l == nil {
		return unknown
	}
	return l.String()
}

// oneLine keeps a sentence of a server inside its row.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
