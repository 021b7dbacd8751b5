package forecast

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Of makes the forecast. Pure.
func Of(f Facts) Forecast {
	out := Forecast{Steps: map[StepKey]time.Duration{}}
	w := workOf(f)
	f.copyFigures(&out, w)
	f.otherSteps(&out, w)
	f.walFigures(&out, w)
	f.standbyFigures(&out, w)
	f.prepareFigure(&out)
	f.cutoverFigures(&out)
	return out
}

// work is what there is to do, in seconds of one session.
type work struct {
	rate      float64 // bytes a second, reading; 0: not known
	read      int64   // bytes that were read for it
	took      time.Duration
	databases []databaseWork
}

type databaseWork struct {
	read, load, index float64 // of all tables
	moving            float64 // reading those with UPDATEs and DELETEs
	longest           float64 // of one table: its rows as they are copied side by side, then its indexes
	longestName       string
	tables            int
	bytes, indexBytes int64
	sortedBytes       int64 // of the indexes whose keys were sorted
}

// pace is how much slower than usual a server is.
func pace(probe time.Duration) float64 {
	if probe <= 0 {
		return 1
	}
	return probe.Seconds() / usualProbe.Seconds()
}

// against is how much slower new is than old.
func (f Facts) against() float64 {
	if f.ProbeOld <= 0 || f.ProbeNew <= 0 {
		return 1
	}
	return f.ProbeNew.Seconds() / f.ProbeOld.Seconds()
}

func workOf(f Facts) work {
	var w work
	var sorted, built float64
	f.each(func(t TableFacts) {
		if t.Read != nil {
			w.read += t.Read.Bytes
			w.took += t.Read.Took
		}
		for _, s := range t.Sorts {
			sorted += float64(s.Bytes)
			built += f.sorting(t, s)
		}
	})
	if w.took > 0 {
		w.rate = float64(w.read) / w.took.Seconds()
	}
	build := pace(f.ProbeNew) / unsampledBuildRate // seconds a byte
	if sorted > 0 {
		build = built / sorted
	}
	for _, db := range f.Databases {
		var d databaseWork
		for _, s := range db.Sets {
			for _, t := range s.Tables {
				d.add(f, t, w.rate, build)
			}
		}
		w.databases = append(w.databases, d)
	}
	return w
}

// add adds one table.
func (d *databaseWork) add(f Facts, t TableFacts, rate, build float64) {
	if t.Read != nil && t.Read.Took > 0 && t.Read.Bytes > 0 {
		rate = float64(t.Read.Bytes) / t.Read.Took.Seconds()
	}
	fixed := copyTable.Seconds() * pace(f.ProbeNew)
	read, index := 0.0, 0.0
	if rate > 0 {
		read = float64(t.Bytes) / rate
	}
	load := read*loadPerRead*f.against() + fixed
	rest := t.IndexBytes
	for _, s := range t.Sorts {
		index += f.sorting(t, s)
		rest -= s.Bytes
		d.sortedBytes += s.Bytes
	}
	index += float64(max(rest, 0)) * build
	chunks := 1.0
	if f.Chunk > 0 {
		chunks = math.Ceil(float64(t.Bytes) / float64(f.Chunk))
	}
	path := max(read, load)/max(1, min(chunks, float64(f.Jobs))) + index
	if path > d.longest {
		d.longest, d.longestName = path, t.Name
	}
	d.read, d.load, d.index = d.read+read, d.load+load, d.index+index
	if t.Updates+t.Deletes > 0 {
		d.moving += read
	}
	d.bytes, d.indexBytes = d.bytes+t.Bytes, d.indexBytes+t.IndexBytes
	d.tables++
}

// sorting is how long the index of a sample takes to build on new.
func (f Facts) sorting(t TableFacts, s Sorting) float64 {
	written := float64(s.Bytes) / buildRate * pace(f.ProbeNew)
	if s.Rows < 2 || t.Rows < s.Rows {
		return s.Took.Seconds()*f.against() + written
	}
	deeper := math.Log2(float64(t.Rows)) / math.Log2(float64(s.Rows))
	return s.Took.Seconds()*float64(t.Rows)/float64(s.Rows)*deeper*f.against() + written
}

func (f Facts) each(see func(TableFacts)) {
	for _, db := range f.Databases {
		for _, s := range db.Sets {
			for _, t := range s.Tables {
				see(t)
			}
		}
	}
}

// copySeconds is how long a database's rows and indexes take, and the
// processors' share of it, 0 where they are not shared or not known.
func (f Facts) copySeconds(d databaseWork) (seconds, shared float64) {
	jobs, indexJobs := float64(max(f.Jobs, 1)), float64(max(f.IndexJobs, 1))
	seconds = max(max(d.read, d.load)/jobs, d.index/indexJobs, d.longest)
	if f.Cores > 0 {
		shared = (d.read + d.load + d.read*pipePerRead + d.index) / float64(f.Cores)
	}
	if f.CopyLimit > 0 {
		seconds = max(seconds, float64(d.bytes)/float64(f.CopyLimit))
	}
	return max(seconds, shared), shared
}

// copyFigures are the rate of reading, and the copy of every database.
func (f Facts) copyFigures(out *Forecast, w work) {
	rate := Figure{
		ID: "copy-rate", Title: "Rate at which old is read", Value: w.rate, Unit: Rate, Known: w.rate > 0,
		Formula: "read / took",
		Terms: []Term{
			{Name: "read", Value: float64(w.read), Unit: Bytes, How: Measured, Says: "of the biggest tables, in the format that the copy uses, through one session"},
			{Name: "took", Value: w.took.Seconds(), Unit: Seconds, How: Measured},
		},
	}
	if !rate.Known {
		rate.Says = "nothing could be read" + f.why()
	}
	out.add(rate)
	for i, db := range f.Databases {
		d := w.databases[i]
		seconds, shared := f.copySeconds(d)
		g := Figure{
			ID: "copy", Object: db.Name, Title: "Copy the rows of " + db.Name + " and build their indexes", Value: seconds, Unit: Seconds, Known: w.rate > 0 || d.bytes == 0,
			Formula: "the longest of: the longer of reading and loading / copy.jobs; indexes / copy.index_jobs; longest table",
			Terms: []Term{
				{Name: "rows", Value: float64(d.bytes), Unit: Bytes, How: Counted, Says: fmt.Sprintf("in %d tables", d.tables)},
				{Name: "reading", Value: d.read, Unit: Seconds, How: Measured, Says: "rows / rate, of each table that was sampled its own"},
				{
					Name: "loading", Value: d.load, Unit: Seconds, How: Assumed,
					Says: fmt.Sprintf("reading × %.1f × %.2f (new's speed against old's, by the probe) + %s a table", loadPerRead, f.against(), text(copyTable)),
				},
				{Name: "indexes", Value: d.index, Unit: Seconds, How: Forecasted},
				{Name: "longest table", Value: d.longest, Unit: Seconds, How: Forecasted, Says: d.longestName},
				{Name: "copy.jobs", Value: float64(f.Jobs), Unit: Count, How: Runbook},
				{Name: "copy.index_jobs", Value: float64(f.IndexJobs), Unit: Count, How: Runbook},
			},
			Steps: []StepKey{{"prepare", "copy/" + db.Name}},
		}
		if f.Cores > 0 {
			g.Formula += "; all of it / processors"
			g.Terms = append(g.Terms, Term{
				Name: "processors", Value: float64(f.Cores), Unit: Count, How: Counted,
				Says: fmt.Sprintf("old, new and the tool share them; with the tool's own work (reading × %.1f) that is %.1f s", pipePerRead, shared),
			})
		}
		if f.CopyLimit > 0 {
			g.Formula += "; rows / copy.limit"
			g.Terms = append(g.Terms, Term{Name: "copy.limit", Value: float64(f.CopyLimit), Unit: Rate, How: Runbook, Says: "off the old primary"})
		}
		if !g.Known {
			g.Says = "nothing could be read" + f.why()
		}
		out.add(g)
		if g.Known {
			out.step("prepare", "copy/"+db.Name, seconds)
		}
		f.indexFigure(out, db, d)
	}
}

func (f Facts) indexFigure(out *Forecast, db DatabaseFacts, d databaseWork) {
	if d.indexBytes == 0 {
		return
	}
	jobs := float64(max(f.IndexJobs, 1))
	g := Figure{
		ID: "indexes", Object: db.Name, Title: "Build the indexes of " + db.Name + ", beside the copy", Value: d.index / jobs, Unit: Seconds, Known: true,
		Formula: "(sorting of each + written / build rate) / copy.index_jobs",
		Terms: []Term{
			{Name: "written", Value: float64(d.indexBytes), Unit: Bytes, How: Counted},
			{
				Name: "sorting", Value: max(d.index-float64(d.indexBytes)/buildRate*pace(f.ProbeNew), 0), Unit: Seconds, How: Measured,
				Says: "rows / sampled rows × log(rows) / log(sampled rows) × new's speed against old's",
			},
			{Name: "sampled", Value: float64(d.sortedBytes), Unit: Bytes, How: Counted, Says: "of these indexes keys were sorted on old; the others are taken for as fast"},
			{Name: "build rate", Value: buildRate / pace(f.ProbeNew), Unit: Rate, How: Assumed},
			{Name: "copy.index_jobs", Value: jobs, Unit: Count, How: Runbook},
		},
	}
	if d.sortedBytes == 0 {
		g.Formula = "written / build rate / copy.index_jobs"
		g.Terms = []Term{g.Terms[0], {Name: "build rate", Value: unsampledBuildRate / pace(f.ProbeNew), Unit: Rate, How: Assumed, Says: "no keys were sampled"}, g.Terms[4]}
	}
	out.add(g)
}

// why is what could not be measured, for the end of a sentence.
func (f Facts) why() string {
	if len(f.Missing) == 0 {
		return ""
	}
	return ": " + strings.Join(f.Missing, "; ")
}
