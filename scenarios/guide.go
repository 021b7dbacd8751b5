package scenarios

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// Guide is what a person needs who drives crossfade by hand: every connection
// string, the runbook's path and the commands to type. binary is crossfade's
// path, self how this program is called; load says that the users work already.
func (st *Stage) Guide(binary, self string, load bool) string {
	var b strings.Builder
	row := func(what, value string) { fmt.Fprintf(&b, "  %-22s %s\n", what, value) }
	b.WriteString("connection strings\n")
	row(fmt.Sprintf("%s (old, %d)", st.Old.Name, st.Old.Major), st.Old.Conninfo(st.Scenario.Databases[0].Name))
	for _, n := range st.Standbys[sideOld] {
		row("  standby "+n.Name, n.Cluster.Conninfo(st.Scenario.Databases[0].Name))
	}
	row(fmt.Sprintf("%s (new, %d)", st.New.Name, st.New.Major), st.New.Conninfo(""))
	for _, n := range st.Standbys[sideNew] {
		row("  standby "+n.Name+", later", n.Cluster.Conninfo(""))
	}
	for _, d := range st.Scenario.Databases {
		row("clients of "+d.Name, st.Client(d.Name))
	}
	for _, p := range st.Poolers {
		row(p.Name+"'s console", p.Admin)
	}
	if ask := st.managerGuide(); ask != "" {
		row(st.Manager.Kind, ask)
	}
	fmt.Fprintf(&b, "\nrunbook\n  %s\n", st.Runbook)
	fmt.Fprintf(&b, "\nserver logs\n  %s\n", filepath.Join(st.Dir, "lab", "*", "log", "server.log"))
	b.WriteString("\ntype, one after the other\n")
	fmt.Fprintf(&b, "  export CROSSFADE_RUNBOOK=%s\n", st.Runbook)
	fmt.Fprintf(&b, "  alias crossfade=%s psql=%s\n", binary, filepath.Join(st.New.Bin, "psql"))
	for _, c := range []string{"check", "plan", "prepare", "status", "cutover", "status", "rollback", "finish"} {
		fmt.Fprintf(&b, "  crossfade %s\n", c)
	}
	fmt.Fprintf(&b, "\nin another window\n")
	if load {
		fmt.Fprintf(&b, "  tail -f %s\n", filepath.Join(st.Dir, "load.log"))
	} else {
		fmt.Fprintf(&b, "  %s load %s\n", self, st.Scenario.Name)
	}
	fmt.Fprintf(&b, "\nin the end\n  %s down %s\n", self, st.Scenario.Name)
	return b.String()
}

// Judge says what became of all rows that were acknowledged to the users, on the side
// where clients are led to. The users must have been stopped.
func (u *Users) Judge(ctx context.Context) (string, error) {
	st := u.stage
	side := sideOld
	rows, err := query(ctx, st.Client(st.Scenario.Databases[0].Name), "SELECT inet_server_port()")
	if err != nil {
		return "", err
	}
	if rows[0][0] == fmt.Sprint(st.New.Port) {
		side = sideNew
	}
	p := &prover{stage: st, users: u, side: side}
	said, err := p.rows(ctx)
	seen, serr := p.errors(ctx)
	return said + "\nerrors seen by clients: " + seen, errors.Join(err, serr)
}
