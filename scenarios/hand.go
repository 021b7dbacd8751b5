package scenarios

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"crossfade/scenarios/lab"
)

// sql does something by hand. Databases of new that is being filled are
// read-only by default, which whoever writes there by hand overrules.
func (p *play) sql(ctx context.Context, a Act) error {
	c, database := p.stage.Old, a.In
	if a.On == sideNew {
		c = p.stage.New
	}
	if database == "" {
		database = p.stage.Scenario.Databases[0].Name
	}
	p.printf("\nby hand, in %s on %s: %s\n", database, c.Name, a.SQL)
	sql := a.SQL
	if a.On == sideNew {
		sql = "BEGIN READ WRITE; " + sql + "; COMMIT"
	}
	return c.Exec(ctx, database, sql)
}

// promote ends old's primary as a crash does, and lets a standby take its place.
// Everything that was acknowledged has reached it: what an asynchronous standby
// lacks is lost with the primary, whoever upgrades.
func (p *play) promote(ctx context.Context, name string) error {
	var to *lab.Cluster
	for _, n := range p.stage.Standbys[sideOld] {
		if n.Name == name {
			to = n.Cluster
		}
	}
	p.printf("\n%s dies, and %s is promoted\n", p.stage.Old.Name, name)
	if _, err := p.users.Stop(); err != nil {
		return err
	}
	if err := p.stage.Old.CaughtUp(ctx, to); err != nil {
		return err
	}
	if err := p.stage.Old.Kill(ctx); err != nil {
		return err
	}
	if err := to.Promote(ctx); err != nil {
		return err
	}
	p.stage.Old = to
	return p.work(ctx)
}

// seenWithin is how long status may take to see what has happened.
const seenWithin = 10 * time.Second

// status wants crossfade status to say something.
func (p *play) status(ctx context.Context, words string) error {
	began := time.Now()
	for {
		said, err := p.said(ctx)
		if err != nil {
			return err
		}
		for _, line := range said {
			if strings.Contains(line, words) {
				p.printf("\nstatus says after %s: %s\n", took(time.Since(began)), cut(line, 160))
				return nil
			}
		}
		if time.Since(began) > seenWithin {
			return fmt.Errorf("status does not say %q within %s: %s", words, seenWithin, strings.Join(said, "; "))
		}
	}
}

// said is what status says of closed gates, links, silent servers, and in notes.
func (p *play) said(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, p.options.Crossfade, "status", "--json", "-f", p.stage.Runbook).Output()
	if err != nil && len(out) == 0 {
		return nil, fmt.Errorf("crossfade status: %w", err)
	}
	var all []string
	for text := range strings.Lines(string(out)) {
		var s struct {
			Type  string
			Gates []struct {
				ID, Says string
				OK       bool
			}
			Links []struct {
				Set, State string
				Error      *string
			}
			Silent []struct{ On, Says string }
			Notes  []string
		}
		if err := json.Unmarshal([]byte(text), &s); err != nil || s.Type != "status" {
			continue
		}
		for _, g := range s.Gates {
			if !g.OK {
				all = append(all, "gate "+g.ID+": "+g.Says)
			}
		}
		for _, l := range s.Links {
			if l.Error != nil {
				all = append(all, "link "+l.Set+" "+l.State+": "+*l.Error)
			}
		}
		for _, q := range s.Silent {
			all = append(all, q.On+" does not answer: "+q.Says)
		}
		all = append(all, s.Notes...)
	}
	return all, nil
}

// cutLine cuts a line now, and heals it in time.
func (p *play) cutLine(c Cut) {
	line := lineOf(c.Between)
	p.printf("    %s is cut, for %s\n", strings.Replace(line, "-", " to ", 1), c.For)
	for _, proxy := range p.stage.proxies[line] {
		proxy.Cut()
		time.AfterFunc(c.For, proxy.Heal)
	}
}
