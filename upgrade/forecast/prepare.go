package forecast

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// family is the first part of a step's ID, rest what is after it.
func (k StepKey) family() (family, rest string) {
	family, rest, _ = strings.Cut(k.ID, "/")
	return family, rest
}

// otherSteps forecasts the steps of prepare that have no figure of their own.
func (f Facts) otherSteps(out *Forecast, w work) {
	slow := pace(f.ProbeNew)
	for _, s := range f.Steps {
		family, rest := s.family()
		if s.Plan != "prepare" {
			continue
		}
		if each, ok := perEffect[family]; ok {
			seconds := float64(s.Effects) * (each.Seconds()*slow + f.TripNew.Seconds())
			if family == "globals" {
				seconds += float64(len(f.Databases)) * createDatabase.Seconds() * slow
			}
			out.step(s.Plan, s.ID, seconds)
			continue
		}
		i := slices.IndexFunc(f.Databases, func(d DatabaseFacts) bool { return d.Name == rest })
		if i < 0 {
			continue
		}
		db, d := f.Databases[i], w.databases[i]
		tables := float64(db.Tables)
		switch family {
		case "publications", "publications-back":
			out.step(s.Plan, s.ID, tables*publishTable.Seconds()*slow+0.002)
		case "trial":
			each := perEffect["schema"].Seconds()*slow + f.TripNew.Seconds()
			out.step(s.Plan, s.ID, float64(s.Effects)*each+(createDatabase.Seconds()+tables*compareTable.Seconds()+0.15)*slow)
		case "compare":
			out.step(s.Plan, s.ID, tables*compareTable.Seconds()*slow+0.15*slow)
		case "subscriptions":
			out.step(s.Plan, s.ID, tables*subscribeTable.Seconds()*slow+float64(len(db.Sets))*0.01*slow)
		case "analyze":
			out.step(s.Plan, s.ID, f.analyzing(db, slow))
		case "verify":
			f.verifyFigure(out, s.StepKey, db, d, w)
		}
	}
}

// analyzed is how many rows of a table the last stage of ANALYZE looks at.
const analyzed = 30000

func (f Facts) analyzing(db DatabaseFacts, slow float64) float64 {
	values, tables := 0.0, 0
	for _, s := range db.Sets {
		for _, t := range s.Tables {
			values += float64(min(max(t.Rows, 0), analyzed))
			tables++
		}
	}
	if tables > 0 {
		values *= float64(db.Columns) / float64(tables)
	}
	return (float64(tables)*analyzeTable.Seconds() + values*analyzeValue.Seconds()) * slow / float64(max(1, min(f.Jobs, tables)))
}

func (f Facts) verifyFigure(out *Forecast, key StepKey, db DatabaseFacts, d databaseWork, w work) {
	if !f.Verify {
		return
	}
	jobs := float64(max(f.Jobs, 1))
	again := 0.0
	if db.Changed > 0 {
		again = d.moving * (movingLooks - 1)
	}
	one := (d.read+again)*comparePerRead*max(1, f.against()) + float64(d.tables)*verifyTable.Seconds()*pace(f.ProbeNew)
	g := Figure{
		ID: "verify", Object: db.Name, Title: "Compare every row of " + db.Name, Value: one / jobs, Unit: Seconds, Known: w.rate > 0 || d.bytes == 0,
		Formula: "hashing / copy.jobs",
		Terms: []Term{
			{Name: "hashing", Value: one, Unit: Seconds, How: Assumed, Says: fmt.Sprintf("(reading + moving) × %.1f, both sides at once", comparePerRead)},
			{Name: "reading", Value: d.read, Unit: Seconds, How: Measured},
			{Name: "moving", Value: again, Unit: Seconds, How: Assumed, Says: fmt.Sprintf("tables whose rows are updated or deleted meanwhile are looked at %d times", movingLooks)},
			{Name: "copy.jobs", Value: jobs, Unit: Count, How: Runbook},
		},
		Steps: []StepKey{key},
	}
	if f.Cores > 0 {
		g.Value = max(g.Value, 2*one/float64(f.Cores))
		g.Formula = "the longer of: hashing / copy.jobs; 2 × hashing / processors"
		g.Terms = append(g.Terms, Term{Name: "processors", Value: float64(f.Cores), Unit: Count, How: Counted, Says: "old, new and the tool share them"})
	}
	out.add(g)
	if g.Known {
		out.step(key.Plan, key.ID, g.Value)
	}
}

// slotSteps are the steps during which old keeps WAL for a database that
// nobody applies yet: from its slots to its subscriptions.
var slotSteps = []string{"copy", "constraints", "identity", "fence", "publications-back", "compare", "subscriptions"}

// kept is for how long that is.
func (f Facts) kept(out *Forecast, db string) float64 {
	seconds := 0.0
	for _, family := range slotSteps {
		for key, took := range out.Steps {
			if key.Plan == "prepare" && (key.ID == family+"/"+db || key.ID == family+"/new/"+db) {
				seconds += took.Seconds()
			}
		}
	}
	return seconds
}

// walFigures are old's WAL: its rate, what is kept at most, and how long it
// takes to catch up.
func (f Facts) walFigures(out *Forecast, w work) {
	rate, known := 0.0, f.Window > 0
	if known {
		rate = float64(f.WAL) / f.Window.Seconds()
	}
	watched := Term{Name: "watched", Value: f.Window.Seconds(), Unit: Seconds, How: Measured}
	g := Figure{
		ID: "wal-rate", Title: "WAL that old writes", Value: rate, Unit: Rate, Known: known, Formula: "written / watched",
		Terms: []Term{{Name: "written", Value: float64(f.WAL), Unit: Bytes, How: Measured}, watched},
	}
	if known && f.Window < shortWindow {
		g.Says = "a short look: --sample 30s watches for longer, and the hour of the day matters"
	}
	out.add(g)
	longest, of := 0.0, ""
	copied := true
	for _, db := range f.Databases {
		if s := f.kept(out, db.Name); s > longest {
			longest, of = s, db.Name
		}
		if c := out.Figure("copy", db.Name); c != nil && !c.Known {
			copied = false
		}
	}
	k := Figure{
		ID: "wal-kept", Title: "WAL that old keeps for the slots, at its peak", Value: rate * longest, Unit: Bytes, Known: known && copied,
		Formula: "rate × kept for",
		Terms: []Term{
			{Name: "rate", Value: rate, Unit: Rate, How: Forecasted},
			{Name: "kept for", Value: longest, Unit: Seconds, How: Forecasted, Says: "from the slots to the subscriptions of " + of},
			{Name: "catchup.max_wal", Value: float64(f.MaxWAL), Unit: Bytes, How: Runbook, Says: "the run gives its slots up before that"},
		},
	}
	if f.MaxWAL > 0 && k.Known && k.Value > float64(f.MaxWAL) {
		k.Exceeds = true
		k.Says = "more than catchup.max_wal: the run would give its slots up before it is done; raise it if the disk of old has the room, copy with more jobs, or at a quieter time"
	}
	out.add(k)
	for _, db := range f.Databases {
		f.catchupFigure(out, db)
	}
}

// shortWindow is a look at old that says little of its WAL.
const shortWindow = 10 * time.Second

// catchupFigure: one worker a set applies what was written since its slot was
// made, while more is written.
func (f Facts) catchupFigure(out *Forecast, db DatabaseFacts) {
	since := f.kept(out, db.Name)
	slow := pace(f.ProbeNew)
	var all int64
	for _, s := range db.Sets {
		for _, t := range s.Tables {
			all += t.changes()
		}
	}
	g := Figure{
		ID: "catch-up", Object: db.Name, Title: "Catch up with " + db.Name, Unit: Seconds, Known: f.Window > 0,
		Formula: "changes × kept for × apply / (1 − changes × apply), of the slowest set",
		Steps:   []StepKey{{"prepare", "catchup/" + db.Name}},
	}
	busiest, never := -1.0, false
	for _, s := range db.Sets {
		var mine, scans float64
		cost := 0.0
		for _, t := range s.Tables {
			mine += float64(t.changes())
			cost += float64(t.Inserts) * applyChange.Seconds()
			each := applyChange.Seconds()
			if t.Scanned {
				each += float64(max(t.Rows, 0)) / 2 * applyScan.Seconds()
				scans += float64(t.Updates + t.Deletes)
			}
			cost += float64(t.Updates+t.Deletes) * each
		}
		if mine == 0 || f.Window <= 0 {
			continue
		}
		a, c := float64(db.Changed)/f.Window.Seconds()*mine/float64(max(all, 1)), cost/mine*slow
		busy := a * c
		if busy <= busiest {
			continue
		}
		busiest = busy
		never = busy >= 1
		if !never {
			g.Value = a * since * c / (1 - busy)
		}
		apply := Term{Name: "apply", Value: c, Unit: Seconds, How: Assumed, Says: fmt.Sprintf("a change, at this speed of new (usually %s)", text(applyChange))}
		if scans > 0 {
			apply.Says += "; tables without a key are read for each UPDATE and DELETE"
		}
		g.Terms = []Term{
			{Name: "changes", Value: a, Unit: Changes, How: Measured, Says: "of set " + s.Name + ": those of the whole database, shared out by its tables' statistics"},
			{Name: "kept for", Value: since, Unit: Seconds, How: Forecasted},
			apply,
		}
	}
	if busiest < 0 {
		g.Formula = "one canary, because nothing was written while old was watched"
	}
	g.Value += (f.TripOld + f.TripNew).Seconds() + 0.01*slow // the canary that proves it
	g.Never = never
	if never {
		g.Value = 0
		g.Exceeds = true
		g.Says = "never: old writes faster than one worker a set applies; more sets apply side by side, and a key for tables without one saves reading them"
	}
	out.add(g)
	if g.Known && !never {
		out.step("prepare", "catchup/"+db.Name, g.Value)
	}
}

// ownBytes is what an empty cluster's directory has.
const ownBytes = 40 << 20

// standbyFigures: each standby of new is a base backup of all of it.
func (f Facts) standbyFigures(out *Forecast, w work) {
	var bytes float64 = ownBytes
	for _, d := range w.databases {
		bytes += float64(d.bytes + d.indexBytes)
	}
	for _, name := range f.Standbys {
		g := Figure{
			ID: "standby", Object: name, Title: "Build standby " + name, Unit: Seconds, Known: w.rate > 0,
			Formula: "size / rate × backup + start",
			Terms: []Term{
				{Name: "size", Value: bytes, Unit: Bytes, How: Counted, Says: "rows and indexes of all databases, and what an empty cluster has"},
				{Name: "rate", Value: w.rate, Unit: Rate, How: Measured, Says: "of reading old"},
				{Name: "backup", Value: backupPerRead * f.against(), Unit: Multiple, How: Assumed, Says: "copied, flushed and verified, against reading through COPY"},
				{Name: "start", Value: pace(f.ProbeNew), Unit: Seconds, How: Assumed},
			},
			Steps: []StepKey{{"prepare", "standby/" + name + "/copy"}, {"prepare", "standby/" + name + "/start"}, {"prepare", "standby/" + name + "/streaming"}},
		}
		if g.Known {
			copying := bytes / w.rate * backupPerRead * f.against()
			g.Value = copying + pace(f.ProbeNew)
			out.step("prepare", "standby/"+name+"/copy", copying+0.5*pace(f.ProbeNew))
			out.step("prepare", "standby/"+name+"/start", 0.5*pace(f.ProbeNew))
		} else {
			g.Says = "nothing could be read" + f.why()
		}
		out.add(g)
	}
}

// prepareFigure is all of prepare.
func (f Facts) prepareFigure(out *Forecast) {
	g := Figure{ID: "prepare", Title: "All of prepare, without an outage", Unit: Seconds, Known: true, Formula: "the sum of its steps"}
	untold := 0
	for _, s := range f.Steps {
		if s.Plan != "prepare" {
			continue
		}
		took, ok := out.Steps[s.StepKey]
		if !ok && s.Effects > 0 {
			untold++
		}
		g.Value += took.Seconds()
		g.Steps = append(g.Steps, s.StepKey)
	}
	if len(g.Steps) == 0 {
		return
	}
	g.Terms = []Term{{Name: "steps", Value: float64(len(g.Steps)), Unit: Count, How: Counted}}
	for _, h := range out.Figures {
		if h.Unit == Seconds && h.Known && h.ID != "indexes" && !h.Never {
			g.Terms = append(g.Terms, Term{Name: strings.TrimSpace(h.ID + " " + h.Object), Value: h.Value, Unit: Seconds, How: Forecasted})
		}
		if h.Never {
			g.Says = "but it will never catch up"
		}
	}
	switch {
	case g.Says != "" || untold == 0:
	case untold == 1:
		g.Says = "1 step has no forecast and is not in it"
	default:
		g.Says = fmt.Sprintf("%d steps have no forecast and are not in it", untold)
	}
	out.add(g)
}
