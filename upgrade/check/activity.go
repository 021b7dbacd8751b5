package check

import (
	"fmt"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/pg"
)

var activityChecks = []Check{
	{ID: "prepared-transactions", Title: "No transaction is prepared", Acceptable: true, Judge: judgePrepared},
	{ID: "long-transactions", Title: "No transaction has been open for long", Acceptable: true, Judge: judgeLong},
}

// judgePrepared: a slot waits for each, and none can be carried over.
func judgePrepared(f *Facts) []Finding {
	if !f.Old.ok() {
		return nil
	}
	var out []Finding
	for _, p := range f.Old.Prepared {
		out = append(out, Finding{
			Level: Block, On: OnOld, Database: p.Database, Object: p.GID,
			Says: fmt.Sprintf("transaction %s was prepared by role %s %s ago: slots are not made before it ends, and the cutover's gate waits for it", p.GID, schema.Name(p.Owner), p.Age.Round(time.Second)),
			Fix:  lines("its transaction manager should end it; if that has forgotten it, in its database:", "COMMIT PREPARED "+pg.Literal(p.GID)+", or ROLLBACK PREPARED "+pg.Literal(p.GID)),
		})
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
