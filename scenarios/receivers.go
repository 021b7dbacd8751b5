package scenarios

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"crossfade/scenarios/lab"
)

// listedStatus is what crossfade status --json says of who receives from whom.
type listedStatus struct {
	Upgrade  string
	Links    []listedLink
	Standbys []listedStandby
}

type listedLink struct {
	Database, Set, Cluster, Direction string
	Receiver                          *listedReceiver
}

type listedStandby struct {
	Cluster, Name string
	Upstream      *string
	listedReceiver
}

// listedReceiver is a row of pg_stat_replication, as status or as the server has it.
type listedReceiver struct {
	State, SyncState        *string
	SyncPriority            *int
	Sent, Write, Flush, Rep *string
}

func (r *listedReceiver) UnmarshalJSON(b []byte) error {
	var l struct {
		State        *string `json:"state"`
		SyncState    *string `json:"sync_state"`
		SyncPriority *int    `json:"sync_priority"`
		Sent         *string `json:"sent_lsn"`
		Write        *string `json:"write_lsn"`
		Flush        *string `json:"flush_lsn"`
		Replay       *string `json:"replay_lsn"`
	}
	err := json.Unmarshal(b, &l)
	*r = listedReceiver{l.State, l.SyncState, l.SyncPriority, l.Sent, l.Write, l.Flush, l.Replay}
	return err
}

func (s *listedStandby) UnmarshalJSON(b []byte) error {
	var l struct {
		Cluster, Name string
		Upstream      *string
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return err
	}
	s.Cluster, s.Name, s.Upstream = l.Cluster, l.Name, l.Upstream
	return json.Unmarshal(b, &s.listedReceiver)
}

// asking is how often the servers and status are compared until they agree: a
// receiver may come, go or change between two looks.
const asking = 10

// status holds what crossfade status tells against pg_stat_replication of every
// server of both sides, read before and after it.
func (p *prover) status(ctx context.Context) (string, error) {
	if p.crossfade == "" {
		return "", nil
	}
	var says string
	var err error
	for range asking {
		if says, err = p.statusOnce(ctx); err == nil {
			return says, nil
		}
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-time.After(300 * time.Millisecond):
		}
	}
	return "", err
}

func (p *prover) statusOnce(ctx context.Context) (string, error) {
	before, err := p.receivers(ctx)
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, p.crossfade, "status", "--json", "-f", p.stage.Runbook).Output()
	if err != nil {
		return "", fmt.Errorf("crossfade status: %w", err)
	}
	var st listedStatus
	if err := json.Unmarshal(out, &st); err != nil {
		return "", fmt.Errorf("crossfade status: %w", err)
	}
	after, err := p.receivers(ctx)
	if err != nil {
		return "", err
	}
	listed := map[string]listedReceiver{}
	for _, s := range st.Standbys {
		if s.State == nil {
			continue
		}
		side := sideNew
		if s.Cluster == sideOld {
			side = sideOld
		}
		listed[side+"/"+*s.Upstream+" to "+s.Name] = s.listedReceiver
	}
	for _, l := range st.Links {
		if l.Receiver == nil {
			continue
		}
		from, prefix := sideOld, "cf_"
		if l.Direction == "back" {
			from, prefix = sideNew, "cb_"
		}
		listed[from+"/primary to "+prefix+st.Upgrade+"_"+l.Database+"_"+l.Set] = *l.Receiver
	}
	return fmt.Sprintf("%s, physical and logical, as pg_stat_replication shows them", plural(int64(len(after)), "receiver")), agree(listed, before, after)
}

// receivers are the rows of pg_stat_replication of all running servers.
func (p *prover) receivers(ctx context.Context) (map[string]listedReceiver, error) {
	all := map[string]listedReceiver{}
	read := func(c *lab.Cluster, from string) error {
		rows, err := c.Query(ctx, "", `SELECT application_name, state, sync_state, sync_priority, coalesce(sent_lsn::text, ''), coalesce(write_lsn::text, ''), coalesce(flush_lsn::text, ''), coalesce(replay_lsn::text, '')
			FROM pg_stat_replication WHERE state <> 'backup'`)
		for _, r := range rows {
			var priority int
			if _, perr := fmt.Sscan(r[3], &priority); perr != nil {
				return perr
			}
			all[from+" to "+r[0]] = listedReceiver{&r[1], &r[2], &priority, filled(r[4]), filled(r[5]), filled(r[6]), filled(r[7])}
		}
		return err
	}
	for _, side := range []string{sideOld, sideNew} {
		if err := read(p.stage.side(side), side+"/primary"); err != nil {
			return nil, err
		}
		for _, n := range p.stage.Standbys[side] {
			if n.Cluster.Running() {
				if err := read(n.Cluster, side+"/"+n.Name); err != nil {
					return nil, err
				}
			}
		}
	}
	return all, nil
}

func filled(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// agree wants the same receivers, each with the server's state, and positions
// that lie between those that the server showed before and after.
func agree(listed, before, after map[string]listedReceiver) error {
	var errs []error
	for name, t := range listed {
		b, ok := before[name]
		a, still := after[name]
		switch {
		case !ok || !still:
			errs = append(errs, fmt.Errorf("status shows %s, and no server does", name))
		case deref(t.State) != deref(a.State) || deref(t.SyncState) != deref(a.SyncState) || t.SyncPriority == nil || *t.SyncPriority != *a.SyncPriority:
			errs = append(errs, fmt.Errorf("%s is %s, %s to status, and %s, %s to the server", name, deref(t.State), deref(t.SyncState), deref(a.State), deref(a.SyncState)))
		default:
			for _, l := range [][3]*string{{b.Sent, t.Sent, a.Sent}, {b.Write, t.Write, a.Write}, {b.Flush, t.Flush, a.Flush}, {b.Rep, t.Rep, a.Rep}} {
				if position(l[1]) < position(l[0]) || position(l[1]) > position(l[2]) {
					errs = append(errs, fmt.Errorf("%s: status shows %s, and the server %s and then %s", name, deref(l[1]), deref(l[0]), deref(l[2])))
				}
			}
		}
	}
	for name := range after {
		if _, ok := listed[name]; !ok {
			errs = append(errs, fmt.Errorf("status does not show %s", name))
		}
	}
	return errors.Join(errs...)
}

func deref(s *string) string {
	if s == nil {
		return "nothing"
	}
	return *s
}

// position is an LSN as a number; 0 is none.
func position(lsn *string) uint64 {
	var high, low uint64
	if lsn == nil {
		return 0
	}
	if _, err := fmt.Sscanf(strings.ToUpper(*lsn), "%X/%X", &high, &low); err != nil {
		return 0
	}
	return high<<32 | low
}

// waits is the longest that anybody waited for a commit, whatever was done meanwhile.
func (p *prover) waits(context.Context) (string, error) {
	var worst lab.Gap
	database := ""
	for name, t := range p.users.acknowledged {
		if t.worst.Length > worst.Length {
			worst, database = t.worst, name
		}
	}
	if database == "" {
		return "", nil
	}
	says := fmt.Sprintf("%s in %s, since the load began or went on", took(worst.Length), database)
	if limit := p.stage.Scenario.Expect.Outage; worst.Length > limit {
		return "", fmt.Errorf("%s; at most %s is right", says, limit)
	}
	return says, nil
}

// reads are those of the standbys.
func (p *prover) reads(context.Context) (string, error) {
	var all lab.ReadReport
	for _, t := range p.users.acknowledged {
		all.Queries, all.Back = all.Queries+t.replica.Queries, all.Back+t.replica.Back
		all.Failures = append(all.Failures, t.replica.Failures...)
	}
	switch {
	case all.Queries == 0 && len(all.Failures) == 0:
		return "", nil
	case len(all.Failures) > 0:
		return "", fmt.Errorf("readers of the standbys saw %s", someFailures(all.Failures))
	case all.Back > 0:
		return "", fmt.Errorf("%s of %s of the standbys were older than the one before", plural(all.Back, "answer"), number(all.Queries))
	}
	return plural(all.Queries, "answer") + ", none failed, none older than the one before", nil
}

// see asks what the scenario asks while side serves.
func (p *prover) see(ctx context.Context) {
	for _, v := range p.stage.Scenario.Expect.See {
		if v.Serves != "" && v.Serves != p.side {
			continue
		}
		c := p.stage.node(v.On)
		limited, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("it does not become true"))
		err := c.Until(limited, v.Database, v.SQL)
		cancel()
		if err != nil {
			p.claim(Claim{v.What, fmt.Sprintf("%s: %s: %v", c.Name, v.SQL, err), false})
			continue
		}
		p.claim(Claim{v.What, "seen on " + c.Name, true})
	}
}
