package check

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/pg"
)

var activityChecks = []Check{
	{ID: "prepared-transactions", Title: "No transaction is prepared", Levels: blockWarn, Acceptable: true, Judge: judgePrepared},
	{ID: "long-transactions", Title: "No transaction has been open for long", Levels: warnNote, Acceptable: true, Judge: judgeLong},
	{ID: "locks-held", Title: "Nobody holds a lock on a table that the upgrade needs", Levels: onlyWarn, Acceptable: true, Judge: judgeLocks},
	{ID: "xid-age", Title: "No vacuum against wraparound is due on old", Levels: blockWarn, Acceptable: true, Judge: judgeXidAge},
	{ID: "session-state", Title: "Nobody relies on advisory locks", Levels: onlyNote, Acceptable: true, Judge: judgeAdvisory},
}

// judgePrepared: a slot waits for each, and none can be carried over.
func judgePrepared(f *Facts) []Finding {
	var out []Finding
	for _, s := range f.sides() {
		level, would := Block, "slots are not made before it ends, and the cutover's gate waits for it"
		if s.Side == OnNew {
			level, would = Warn, "the cutover's gate waits until none is left on new, because the slots for the way back do"
		}
		for _, p := range s.Prepared {
			out = append(out, Finding{
				Level: level, On: s.Side, Database: p.Database, Object: p.GID,
				Says: fmt.Sprintf("transaction %s was prepared by role %s %s ago: %s", p.GID, schema.Name(p.Owner), p.Age.Round(time.Second), would),
				Fix:  lines("its transaction manager should end it; if that has forgotten it, in its database:", "COMMIT PREPARED "+pg.Literal(p.GID)+", or ROLLBACK PREPARED "+pg.Literal(p.GID)),
			})
		}
	}
	return out
}

// How old a transaction may be: one that writes keeps slots from being made,
// others hold up arming only.
const (
	longWrite = time.Minute
	longRead  = 15 * time.Minute
)

func judgeLong(f *Facts) []Finding {
	if !f.Old.ok() {
		return nil
	}
	var out []Finding
	for _, t := range f.Old.Transactions {
		level, would := Note, "arming the fence waits for it, and rows that died since stay"
		switch {
		case t.Writes && t.Age >= longWrite:
			level, would = Warn, "it writes: slots are not made before it ends, and no barrier is tried while such a one runs"
		case t.Age < longRead:
			continue
		}
		out = append(out, Finding{
			Level: level, On: OnOld, Database: t.Database, Object: fmt.Sprint(t.PID),
			Says: fmt.Sprintf("a transaction of role %s (pid %d, %s, %s) is open since %s; %s. Its last statement: %s",
				schema.Name(t.Role), t.PID, t.Application, t.State, t.Age.Round(time.Second), would, pg.Brief(t.Query)),
			Fix: lines("let it end, or end it:", fmt.Sprintf("SELECT pg_terminate_backend(%d);", t.PID)),
		})
	}
	return out
}

// Lock is a lock on a user table that somebody else has held for 10 s or more.
type Lock struct {
	PID               int32
	Database          string
	Relation          uint32
	Mode              string
	Role, Application string
	Backend           string // backend_type
	Query             string
	Age               time.Duration // of its transaction
}

// judgeLocks: CREATE PUBLICATION wants SHARE UPDATE EXCLUSIVE, the fence's
// triggers and the barrier more than that.
func judgeLocks(f *Facts) []Finding {
	if !f.Old.ok() {
		return nil
	}
	tables := map[string]map[uint32]*schema.Table{}
	for _, d := range f.Databases {
		if d.Inventory != nil {
			tables[d.Name] = d.byOID()
		}
	}
	var out []Finding
	for i := 0; i < len(f.Old.Locks); {
		l := f.Old.Locks[i]
		var names []string
		for ; i < len(f.Old.Locks) && f.Old.Locks[i].PID == l.PID; i++ {
			if t := tables[f.Old.Locks[i].Database][f.Old.Locks[i].Relation]; t != nil {
				names = append(names, t.String())
			}
		}
		if len(names) == 0 {
			continue // indexes, or another database's
		}
		slices.Sort(names)
		who, end := fmt.Sprintf("role %s (pid %d, %s)", schema.Name(l.Role), l.PID, l.Application), fmt.Sprintf("SELECT pg_terminate_backend(%d);", l.PID)
		if strings.HasPrefix(l.Backend, "autovacuum") {
			who, end = fmt.Sprintf("an autovacuum worker (pid %d)", l.PID), ""
		}
		fix := lines("let it end, or end it:", end)
		if end == "" {
			fix = "let it end: one against wraparound begins again when it is ended"
		}
		out = append(out, Finding{
			Level: Warn, On: OnOld, Database: l.Database, Object: fmt.Sprint(l.PID),
			Says: fmt.Sprintf("%s holds a %s on %s since %s: publishing these tables, arming the fence and the cutover's barrier wait for it, a moment at a time. Its statement: %s",
				who, strings.TrimSuffix(l.Mode, "Lock")+" lock", some(slices.Compact(names), "table", "tables"), l.Age.Round(time.Second), pg.Brief(l.Query)),
			Fix: fix,
		})
	}
	return out
}

// mostAge is the age of transaction ids from which on PostgreSQL vacuums
// without regard for anything else (vacuum_failsafe_age).
const mostAge = 1_600_000_000

// judgeXidAge: the copy's snapshot and the slots hold vacuum back, and a vacuum
// against wraparound does not make way for who waits for its table.
func judgeXidAge(f *Facts) []Finding {
	if !f.Old.ok() {
		return nil
	}
	due := map[string]int64{
		"transaction ids": f.Old.number("autovacuum_freeze_max_age"), "multixact ids": f.Old.number("autovacuum_multixact_freeze_max_age"),
	}
	t := &Table{Columns: []string{"database", "what", "age", "vacuumed from"}}
	var oldest int64
	for _, c := range f.Old.Databases {
		for what, age := range map[string]int64{"transaction ids": c.Age, "multixact ids": c.MultiAge} {
			if due[what] > 0 && age > due[what] {
				t.Rows = append(t.Rows, []string{c.Name, what, fmt.Sprint(age), fmt.Sprint(due[what])})
				oldest = max(oldest, age)
			}
		}
	}
	if len(t.Rows) == 0 {
		return nil
	}
	slices.SortFunc(t.Rows, slices.Compare)
	level := Warn
	if oldest > mostAge {
		level = Block
	}
	says := "a vacuum against wraparound is due: it does not make way for who waits for its table, and the upgrade's slots and snapshot keep it from getting far"
	if holder := f.Old.holder(); holder != "" {
		says += ". What holds it back now is " + holder
	}
	return []Finding{{
		Level: level, On: OnOld, Object: "age", Says: says, Table: t,
		Fix: "let vacuum finish before prepare: end what holds it back, then VACUUM (FREEZE) in each of these databases",
	}}
}

// holder names who keeps the oldest rows on a server from being removed.
func (s *Server) holder() string {
	who, most := "", int64(1000) // what everybody does for a moment is nobody's fault
	claim := func(age int64, format string, args ...any) {
		if age > most {
			who, most = fmt.Sprintf(format, args...), age
		}
	}
	for _, x := range s.Slots {
		claim(x.XminAge, "slot %s", x.Name)
	}
	for _, p := range s.Prepared {
		claim(p.XminAge, "prepared transaction %s", p.GID)
	}
	for _, t := range s.Transactions {
		claim(t.XminAge, "the transaction of pid %d (role %s)", t.PID, schema.Name(t.Role))
	}
	for _, w := range s.Senders {
		claim(w.XminAge, "standby %s (hot_standby_feedback)", w.Application)
	}
	return who
}

// Advisory are the advisory locks that sessions of one kind hold.
type Advisory struct {
	Database, Role, Application string
	Count                       int64
}

// judgeAdvisory: what a session holds ends with it, and every session of old
// ends at the cutover.
func judgeAdvisory(f *Facts) []Finding {
	if !f.Old.ok() {
		return nil
	}
	var out []Finding
	for _, d := range f.Databases {
		var who []string
		var n int64
		for _, a := range f.Old.Advisory {
			if a.Database == d.Name {
				who = append(who, fmt.Sprintf("%s (%s)", schema.Name(a.Role), a.Application))
				n += a.Count
			}
		}
		if n == 0 {
			continue
		}
		out = append(out, Finding{
			Level: Note, On: OnOld, Database: d.Name, Object: d.Name,
			Says: fmt.Sprintf("%s held by %s: what a session holds ends with it at the cutover, and a lock that is taken on new says nothing of old", count(n, "advisory lock"), some(slices.Compact(who), "role", "roles")),
			Fix:  "let who elects a leader or guards a job by them take them anew when it connects again, and stop such jobs in hooks: before_cutover",
		})
	}
	return out
}
