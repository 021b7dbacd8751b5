// Package members is what belongs to both clusters beside their primaries: the
// standbys that the runbook names, and what fails old over.
package members

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"crossfade/cutover"
	"crossfade/upgrade/check"
	"crossfade/upgrade/clusters"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/ground"
	"crossfade/upgrade/link"
	"crossfade/upgrade/manager"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/runbook"
	"crossfade/upgrade/survey"
)

// Members are those of both clusters.
type Members struct {
	c      *clusters.Clusters
	ground *ground.Ground

	mu      sync.Mutex
	found   []manager.Manager // of old; nil: nobody has looked yet
	foundOn *pg.Server        // which one they were found on
}

// New are the members of c.
func New(c *clusters.Clusters, g *ground.Ground) *Members { return &Members{c: c, ground: g} }

// A manager of old is paused from the cutover's beginning until old serves
// again, or until finish and abort: a standby of old that it promoted while the
// cutover stands on what old's primary has would take what the cutover knows
// with it. Before, it may do its work: a failover costs the copy, and clients
// have their service. What it would take from the upgrade is its slots; Patroni
// is set to leave them alone before they are made.

// heldTimeout is how long a manager may take to hear of what it has been told.
const heldTimeout = time.Minute

// managers are those that run on old, found once for each server that it is.
func (ms *Members) managers(ctx context.Context) ([]manager.Manager, error) {
	ms.mu.Lock()
	found, known := ms.found, ms.found != nil && ms.foundOn == ms.c.Old
	ms.mu.Unlock()
	if known {
		return found, nil
	}
	o := manager.Options{Primary: ms.c.Old, Sessions: &ms.c.Sessions, Patroni: ms.c.Book.Old.Manager.Patroni}
	for _, sb := range ms.c.Book.Old.Standbys {
		server, err := ms.c.Server(sb.Name, sb.Conninfo, "")
		if err != nil {
			return nil, err
		}
		o.Standbys = append(o.Standbys, server)
	}
	found, err := manager.Find(ctx, o)
	if err != nil {
		return nil, err
	}
	ms.mu.Lock()
	defer ms.mu.Unlock()
	ms.found, ms.foundOn = append([]manager.Manager{}, found...), ms.c.Old
	return ms.found, nil
}

// CheckStandbys are the standbys of the runbook, as check asks them: those of old
// without one that was promoted and is old's primary now.
func (ms *Members) CheckStandbys(ctx context.Context) (old, fresh []check.Standby, err error) {
	for _, sb := range ms.c.Book.Old.Standbys {
		server, err := ms.c.Server(sb.Name, sb.Conninfo, "")
		if err != nil {
			return nil, nil, err
		}
		if ms.c.IsPrimary(ctx, server, "standby "+sb.Name+" of old") {
			continue // promoted: it is old.primary now
		}
		old = append(old, check.Standby{Name: sb.Name, Server: server, Data: sb.Data})
	}
	for _, sb := range ms.c.Book.New[0].Standbys {
		server, err := ms.c.Server(sb.Name, sb.Conninfo, "")
		if err != nil {
			return nil, nil, err
		}
		up := sb.Upstream
		if up == runbook.UpstreamPrimary {
			up = ""
		}
		fresh = append(fresh, check.Standby{Name: sb.Name, Server: server, Upstream: up, Slot: sb.Slot, After: sb.After})
	}
	return old, fresh, nil
}

// CheckManagers tells check what the managers of old say.
func (ms *Members) CheckManagers(ctx context.Context) ([]check.Manager, error) {
	found, err := ms.managers(ctx)
	if err != nil {
		return nil, err
	}
	var all []check.Manager
	for _, m := range found {
		c := check.Manager{Name: m.Name()}
		st, err := m.Look(ctx)
		c.Err, c.Home, c.Synchronous = err, st.Home, st.Synchronous
		for _, n := range st.Nodes {
			c.Nodes = append(c.Nodes, check.ManagerNode{Name: n.Name, Role: n.Role, Runs: n.Runs, Held: n.Held, Err: n.Err})
		}
		all = append(all, c)
	}
	return all, nil
}

// heldKey is where row 0 remembers the nodes that this upgrade has paused.
func heldKey(m manager.Manager) string { return "manager/" + m.Name() }

// held are the nodes of a manager that this upgrade has paused, as old
// remembers now.
func (ms *Members) held(ctx context.Context, s *survey.Survey, m manager.Manager) ([]string, error) {
	mem, err := ms.ground.Memory(ctx, s)
	if err != nil {
		return nil, err
	}
	return heldNodes(mem.Before, m)
}

func heldNodes(before map[string]string, m manager.Manager) ([]string, error) {
	text := before[heldKey(m)]
	if text == "" {
		return nil, nil
	}
	var nodes []string
	if err := json.Unmarshal([]byte(text), &nodes); err != nil {
		return nil, fmt.Errorf("what is remembered of %s: %w", m.Name(), err)
	}
	return nodes, nil
}

func (ms *Members) rememberHeld(ctx context.Context, s *survey.Survey, m manager.Manager, nodes []string) error {
	b, err := json.Marshal(nodes)
	if err != nil {
		return err
	}
	return ms.ground.Remember(ctx, s, func(mem *cutover.Memory) {
		if nodes == nil {
			delete(mem.Before, heldKey(m))
			return
		}
		mem.Before[heldKey(m)] = string(b)
	})
}

// SpareSteps make managers leave the slots of this upgrade alone, before they
// are made.
func (ms *Members) SpareSteps(ctx context.Context, s *survey.Survey) ([]flow.Step, error) {
	found, err := ms.managers(ctx)
	if err != nil {
		return nil, err
	}
	var slots []string
	for _, db := range s.Databases {
		for _, l := range db.Links {
			slots = append(slots, l.Name)
		}
	}
	var steps []flow.Step
	for _, m := range found {
		p, ok := m.(*manager.Patroni)
		if !ok {
			continue
		}
		step := flow.Step{
			ID: "manager/slots", Title: "Have Patroni ignore the slots of this upgrade",
			Done: func(ctx context.Context) (bool, error) { return p.Spares(ctx, slots) },
		}
		e, err := p.Spare(ctx, slots)
		if err != nil {
			if ms.c.Book.Accepts(check.ReplicationManager, p.Name()) {
				continue // the operator has seen to it
			}
			return nil, err
		}
		step.Does = []flow.Effect{e}
		step.Do = func(ctx context.Context, _ *flow.Turn) error {
			if err := p.Do(ctx, e); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(ctx, heldTimeout, fmt.Errorf("not within %s", heldTimeout))
			defer cancel()
			return p.AwaitSpared(ctx, slots)
		}
		steps = append(steps, step)
	}
	return steps, nil
}

// forgetSlotsStep takes the slots of this upgrade out of what Patroni leaves
// alone.
func (ms *Members) forgetSlotsStep(ctx context.Context, p *manager.Patroni) flow.Step {
	forget := func(ctx context.Context) ([]flow.Effect, error) {
		return p.Forget(ctx, link.ForwardPrefix+ms.c.Book.Upgrade+"_", link.BackPrefix+ms.c.Book.Upgrade+"_")
	}
	does, _ := forget(ctx) // the step tells that it does not answer
	return flow.Step{
		ID: "manager/slots/back", Title: "Let Patroni forget the slots of this upgrade", Does: does, Done: flow.Never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			does, err := forget(ctx)
			if err != nil && ms.c.Book.Accepts(check.ReplicationManager, p.Name()) {
				t.Note("ignore_slots of Patroni still names the slots of this upgrade (%v)", err)
				return nil
			}
			for _, e := range does {
				if err := p.Do(ctx, e); err != nil {
					return err
				}
			}
			return err
		},
	}
}

// ManagerNotes name the managers that the upgrade has paused.
func (ms *Members) ManagerNotes(ctx context.Context, s *survey.Survey) []string {
	z := s.Zero()
	if s.OldErr != nil || z == nil {
		return nil
	}
	found, err := ms.managers(ctx)
	if err != nil {
		return []string{err.Error()}
	}
	var notes []string
	for _, m := range found {
		nodes, err := heldNodes(z.Before, m)
		if err != nil {
			notes = append(notes, err.Error())
		} else if len(nodes) > 0 {
			notes = append(notes, fmt.Sprintf("%s is kept from failing old over, until old serves again or the upgrade is finished", m.Name()))
		}
	}
	return notes
}
