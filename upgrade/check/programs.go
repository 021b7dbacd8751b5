package check

import "fmt"

var programChecks = []Check{
	{ID: "client-programs", Title: "pg_dump and pg_restore of new's major are at hand", Levels: blockNote, Judge: judgePrograms},
	{ID: "attribute-version", Title: "pg_dump knows the column options of old", Levels: onlyNote, Acceptable: true, Judge: judgeAttver},
}

func judgePrograms(f *Facts) []Finding {
	if !f.New.ok() {
		return nil
	}
	var out []Finding
	for _, p := range f.Programs {
		switch {
		case p.Err != nil:
			out = append(out, Finding{Level: Block, On: OnNew, Object: p.Name, Says: fmt.Sprintf("the schema cannot be carried over: %v", p.Err), Fix: f.installClient(p.Name)})
		case p.Version/10000 != f.New.Major():
			out = append(out, Finding{
				Level: Block, On: OnNew, Object: p.Name,
				Says: fmt.Sprintf("%s is of PostgreSQL %s, and new is %s: the schema is dumped with new's major, which knows both", p.Path, release(p.Version), f.New.release()),
				Fix:  f.installClient(p.Name),
			})
		case p.Version < f.New.Version:
			out = append(out, Finding{
				Level: Note, On: OnNew, Object: p.Name,
				Says: fmt.Sprintf("%s is %s, older than the new server (%s)", p.Path, release(p.Version), f.New.release()),
				Fix:  fmt.Sprintf("install the client programs of PostgreSQL %s on this machine", f.New.release()),
			})
		}
	}
	return out
}

func (f *Facts) installClient(program string) string {
	return fmt.Sprintf("install %s of PostgreSQL %d on this machine (Debian: postgresql-client-%d), or give its folder as new's bin: in the runbook",
		program, f.New.Major(), f.New.Major())
}

// attverMinors are the first minors that hide pg_attver in a dump.
var attverMinors = map[int]int{14: 25, 15: 20, 16: 16, 17: 12, 18: 7}

func judgeAttver(f *Facts) []Finding {
	if !f.New.ok() {
		return nil
	}
	var dump Program
	for _, p := range f.Programs {
		if p.Name == "pg_dump" && p.Err == nil {
			dump = p
		}
	}
	fixed, known := attverMinors[dump.Version/10000]
	if dump.Version == 0 || !known || dump.Version%10000 >= fixed {
		return nil
	}
	var out []Finding
	for _, d := range f.Databases {
		for _, t := range d.things("attver") {
			out = append(out, Finding{
				Level: Note, On: OnOld, Database: d.Name,
				Says: fmt.Sprintf("%d columns carry pg_attver, which old's minor stores and pg_dump %s does not know: it writes statements that no server accepts. prepare takes exactly these out",
					t.N, release(dump.Version)),
			})
		}
	}
	return out
}
