package upgrade

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"crossfade/cutover"
	"crossfade/cutover/traffic"
	"crossfade/schema"
	"crossfade/upgrade/check"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/runbook"
	"crossfade/upgrade/standby"

	"github.com/jackc/pgx/v5"
)

// gates are those that follow from the runbook, beside the built-in ones.
func (u *Upgrade) gates(s *survey, dir cutover.Direction) []cutover.Gate {
	gates := []cutover.Gate{{ID: "trust", Look: func(ctx context.Context) (bool, string, error) { return u.trustGate(ctx, s) }}}
	if dir == cutover.Forward {
		gates = append(gates, cutover.Gate{ID: "standbys-opening", Look: func(ctx context.Context) (bool, string, error) { return u.standbysGate(ctx, s) }})
	}
	if names := u.successors(); dir == cutover.Back && len(names) > 0 {
		gates = append(gates, cutover.Gate{ID: "standbys-opening", Look: func(ctx context.Context) (bool, string, error) { return u.withoutTaken(ctx, names) }})
	}
	gates = append(gates, cutover.Gate{ID: "contents", Look: func(ctx context.Context) (bool, string, error) { return u.contentsGate(ctx, s) }})
	return append(gates, cutover.Gate{ID: "schema", Costly: true, Look: func(ctx context.Context) (bool, string, error) { return u.schemaGate(ctx, s) }})
}

// schemaGate wants equal catalogs on both sides, and on new every role, setting
// and database that old has.
func (u *Upgrade) schemaGate(ctx context.Context, s *survey) (bool, string, error) {
	for _, db := range s.databases {
		diff, err := u.differences(ctx, db)
		if err != nil {
			return false, "", err
		}
		if bad := schema.Unexpected(diff); len(bad) > 0 {
			says := fmt.Sprintf("the catalogs of %s differ: %s; crossfade prepare takes along what it can; otherwise make the same change on both sides (%s)", db.name, differ(bad), u.byHand(s))
			if passing(bad) {
				return false, says, nil
			}
			// A crossing refuses DDL on the closing side while it waits.
			return false, "", &cutover.ErrShut{Says: says, Do: "crossfade prepare"}
		}
	}
	missing, err := u.lackedGlobals(ctx, s)
	if err != nil {
		return false, "", err
	}
	if len(missing) > 0 {
		return false, "", &cutover.ErrShut{Says: fmt.Sprintf("%s lacks, or has differently, %s: run crossfade prepare, which takes it along", s.applying().Name, some(missing)), Do: "crossfade prepare"}
	}
	return true, "the catalogs are equal", nil
}

// passing reports whether differences may go by themselves: an index that is
// built CONCURRENTLY is on one side only, under a name of its own or not valid,
// until the build has ended.
func passing(bad []schema.Difference) bool {
	for _, d := range bad {
		if d.Kind == "index" && (d.Property == "valid" || concurrently.MatchString(d.Object)) {
			return true
		}
	}
	return false
}

// concurrently are the names of the indexes that REINDEX CONCURRENTLY makes.
var concurrently = regexp.MustCompile(`_cc(new|old)[0-9]*"?$`)

// differ are differences in a sentence: of a table that is on one side only,
// nothing of what belongs to it.
func differ(bad []schema.Difference) string {
	whole := map[string]bool{}
	for _, d := range bad {
		if d.Kind == "table" && d.Property == "" {
			whole[d.Object] = true
		}
	}
	var says []string
	for _, d := range bad {
		if d.Kind != "table" && slices.ContainsFunc(slices.Collect(maps.Keys(whole)), func(t string) bool { return strings.Contains(d.Object, t) }) {
			continue
		}
		says = append(says, d.Says)
	}
	return some(says)
}

// standbysGate wants every standby of new that the runbook demands to stream.
func (u *Upgrade) standbysGate(ctx context.Context, s *survey) (bool, string, error) {
	_, built := u.taken(ctx, s)
	for _, sb := range u.rb.New[0].Standbys {
		if sb.After && !built[sb.Name] {
			continue // it follows after open
		}
		up, err := u.upstream(sb)
		if err != nil {
			return false, "", err
		}
		streams := false
		err = u.sessions.Do(ctx, up, func(conn *pgx.Conn) error {
			return conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE application_name = $1 AND state = 'streaming')", sb.Name).Scan(&streams)
		})
		if err != nil {
			return false, "", &pg.Error{Doing: "ask whether " + sb.Name + " streams", On: up.String(), Err: err}
		}
		if !streams && !u.accepted(cutover.StandbyMissing, sb.Name) {
			return false, "standby " + sb.Name + " of new does not stream: run crossfade prepare, which rebuilds it", nil
		}
	}
	return true, "the standbys stream", nil
}

// withoutTaken wants commits on old to wait for nobody who is not there: new's
// standbys may have taken the place of some that they waited for.
func (u *Upgrade) withoutTaken(ctx context.Context, names []string) (ok bool, says string, err error) {
	gone := strings.Join(names, ", ")
	err = u.sessions.Do(ctx, u.old, func(conn *pgx.Conn) error {
		value, _, err := standby.Synchronous(ctx, conn)
		if err != nil {
			return err
		}
		quorum, err := standby.ParseQuorum(value)
		if err != nil {
			return err
		}
		states, err := standby.States(ctx, conn, "old")
		if err != nil {
			return err
		}
		states = slices.DeleteFunc(states, func(s standby.State) bool { return s.Logical })
		if n := quorum.Lacks(states); n > 0 {
			says = fmt.Sprintf("commits on old would wait: synchronous_standby_names is %s there, and %d more of them would have to stream. new's standbys take the places of %s; change the setting on old, or start more of its standbys", value, n, gone)
			return nil
		}
		ok, says = true, "old opens without the standbys whose places new's take: "+gone
		return nil
	})
	if err != nil {
		return false, "", &pg.Error{Doing: "ask what commits wait for", On: u.old.String(), Err: err}
	}
	return ok, says, nil
}

// upstream is the server that a standby of new receives from.
func (u *Upgrade) upstream(sb runbook.Standby) (*pg.Server, error) {
	for _, other := range u.rb.New[0].Standbys {
		if other.Name == sb.Upstream {
			server, err := pg.Parse(other.Name, other.Conninfo, other.Bin)
			if err != nil {
				return nil, err
			}
			return server.As(u.app), nil
		}
	}
	return u.new, nil
}

// crossingPlan is a cutover or rollback as it would run from here.
func (u *Upgrade) crossingPlan(ctx context.Context, s *survey, name string) (flow.Plan, error) {
	dir := cutover.Forward
	if name == "rollback" {
		dir = cutover.Back
	}
	c, err := u.config(ctx, s, dir)
	if err != nil {
		return flow.Plan{}, err
	}
	x := cutover.New(c)
	defer x.Close()
	return x.Plan, nil
}

// switches are what sends clients, as the runbook has it; to is the side that
// they will be sent to.
func (u *Upgrade) switches(to string) (traffic.Group, error) {
	around := traffic.Around{
		App: u.app, MaxBlocked: u.rb.Cutover.MaxBlocked, Apart: u.pooledApart(), Moved: u.moves(), Env: u.hookEnv,
		Accepted: func(p traffic.Problem) bool { return u.accepted(p.ID, p.Object) },
	}
	var g traffic.Group
	for _, t := range u.rb.Cutover.Traffic {
		s, err := t.Entry.Switch(around)
		if err != nil {
			return nil, &ExitError{Code: ExitUsage, Says: err.Error(), Err: err}
		}
		g = append(g, s)
	}
	return g, nil
}

// trafficFindings are what blocks sending clients to new.
func (u *Upgrade) trafficFindings(ctx context.Context) ([]check.Finding, error) {
	switches, err := u.switches("new")
	if err != nil {
		return nil, err
	}
	var found []check.Finding
	for _, sw := range switches {
		j, ok := sw.(traffic.Judge)
		if !ok {
			continue
		}
		problems, err := j.Problems(ctx, u.new)
		if err != nil {
			problems = []traffic.Problem{j.Unreachable(err)}
		}
		for _, p := range problems {
			if p.State == "3D000" || p.State == "42704" {
				continue // prepare makes databases and roles; the server itself answered
			}
			f := check.Finding{ID: p.ID, Level: check.Block, On: p.On, Object: p.Object, Says: p.Says, Fix: p.Fix, Acceptable: p.Acceptable}
			f.Accepted = p.Acceptable && u.accepted(p.ID, p.Object)
			found = append(found, f)
		}
	}
	return found, nil
}

var errNoExecutable = errors.New("the program's own file was not found")

// guard makes the child that resumes traffic when this process is gone.
func (u *Upgrade) guard(switches traffic.Group) func(context.Context, time.Duration) (cutover.Guard, error) {
	return func(ctx context.Context, deadline time.Duration) (cutover.Guard, error) {
		exe, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errNoExecutable, err)
		}
		spec, err := switches.Spec(deadline)
		if err != nil {
			return nil, err
		}
		return traffic.StartGuard(ctx, exe, spec)
	}
}
