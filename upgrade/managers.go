package upgrade

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"crossfade/cutover"
	"crossfade/upgrade/check"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/manager"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/survey"
)

// A manager of old is paused from the cutover's beginning until old serves
// again, or until finish and abort: a standby of old that it promoted while the
// cutover stands on what old's primary has would take what the cutover knows
// with it. Before, it may do its work: a failover costs the copy, and clients
// have their service. What it would take from the upgrade is its slots; Patroni
// is set to leave them alone before they are made.

// heldTimeout is how long a manager may take to hear of what it has been told.
const heldTimeout = time.Minute

// managers are those that run on old, found once for each server that it is.
func (u *Upgrade) managers(ctx context.Context) ([]manager.Manager, error) {
	u.mu.Lock()
	found, known := u.found, u.found != nil && u.foundOn == u.c.Old
	u.mu.Unlock()
	if known {
		return found, nil
	}
	o := manager.Options{Primary: u.c.Old, Sessions: &u.c.Sessions, Patroni: u.rb.Old.Manager.Patroni}
	for _, sb := range u.rb.Old.Standbys {
		server, err := pg.Parse(sb.Name, sb.Conninfo, "")
		if err != nil {
			return nil, &exit.Error{Code: exit.Usage, Says: err.Error(), Err: err}
		}
		o.Standbys = append(o.Standbys, server.As(u.c.App))
	}
	found, err := manager.Find(ctx, o)
	if err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.found, u.foundOn = append([]manager.Manager{}, found...), u.c.Old
	return u.found, nil
}

// checkManagers tells check what the managers of old say.
func (u *Upgrade) checkManagers(ctx context.Context) ([]check.Manager, error) {
	found, err := u.managers(ctx)
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
func (u *Upgrade) held(ctx context.Context, s *survey.Survey, m manager.Manager) ([]string, error) {
	mem, err := u.ground.Memory(ctx, s)
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

func (u *Upgrade) rememberHeld(ctx context.Context, s *survey.Survey, m manager.Manager, nodes []string) error {
	b, err := json.Marshal(nodes)
	if err != nil {
		return err
	}
	return u.ground.Remember(ctx, s, func(mem *cutover.Memory) {
		if nodes == nil {
			delete(mem.Before, heldKey(m))
			return
		}
		mem.Before[heldKey(m)] = string(b)
	})
}

// spareSteps make managers leave the slots of this upgrade alone, before they
// are made.
func (u *Upgrade) spareSteps(ctx context.Context, s *survey.Survey) ([]flow.Step, error) {
	found, err := u.managers(ctx)
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
			if u.rb.Accepts(check.ReplicationManager, p.Name()) {
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

// holdSteps hold the managers of old still, and let them go again where the
// cutover is undone.
func (u *Upgrade) holdSteps(ctx context.Context, s *survey.Survey) ([]flow.Step, error) {
	if s.OldErr != nil {
		return nil, nil // after open: they are held
	}
	found, err := u.managers(ctx)
	if err != nil {
		return nil, err
	}
	var steps []flow.Step
	for _, m := range found {
		// One that does not answer stops the step, and no plan: after open there
		// is only forward.
		st, err := m.Look(ctx)
		if err != nil && u.rb.Accepts(check.ReplicationManager, m.Name()) {
			continue // the operator has seen to it
		}
		does := m.Hold(st)
		steps = append(steps, flow.Step{
			ID: "manager/pause", Title: "Keep " + m.Name() + " from failing old over", Does: does, Timeout: heldTimeout + 10*time.Second, UndoTimeout: heldTimeout,
			Done: func(ctx context.Context) (bool, error) {
				now, err := m.Look(ctx)
				return err == nil && now.Held(), err
			},
			Do:   func(ctx context.Context, t *flow.Turn) error { return u.holdStill(ctx, t, s, m, does) },
			Undo: func(ctx context.Context, t *flow.Turn) error { return u.letGo(ctx, t, s, m) },
		})
	}
	return steps, nil
}

// holdStill holds a manager. Which nodes it holds is remembered first: what
// somebody else has paused stays so in the end.
func (u *Upgrade) holdStill(ctx context.Context, t *flow.Turn, s *survey.Survey, m manager.Manager, does []flow.Effect) error {
	refuse := func(says string) error {
		return &cutover.ErrGate{Closed: []cutover.GateState{{ID: "manager", Says: says}}}
	}
	st, err := m.Look(ctx)
	if err != nil {
		return refuse(err.Error())
	}
	if silent := st.Silent(); len(silent) > 0 {
		says := fmt.Sprintf("%s cannot be kept from acting on %s (%v)", m.Name(), manager.Names(silent), silent[0].Err)
		if !u.rb.Accepts(check.ReplicationManager, m.Name()) {
			return refuse(says)
		}
		t.Note("%s; accepted by the runbook", says)
	}
	nodes, err := u.held(ctx, s, m)
	if err != nil {
		return err
	}
	for _, n := range st.Acting() {
		if !slices.Contains(nodes, n.Name) {
			nodes = append(nodes, n.Name)
		}
	}
	if err := u.rememberHeld(ctx, s, m, nodes); err != nil {
		return err
	}
	for _, e := range does {
		if err := m.Do(ctx, e); err != nil && !u.rb.Accepts(check.ReplicationManager, m.Name()) {
			return refuse(err.Error())
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, heldTimeout, fmt.Errorf("not within %s", heldTimeout))
	defer cancel()
	if err := manager.AwaitHeld(ctx, m); err != nil {
		return refuse(err.Error())
	}
	return nil
}

// letGo lets a manager act again on the nodes that this upgrade holds, and
// forgets that it did.
func (u *Upgrade) letGo(ctx context.Context, t *flow.Turn, s *survey.Survey, m manager.Manager) error {
	nodes, err := u.held(ctx, s, m)
	if err != nil || nodes == nil {
		return err
	}
	st, err := m.Look(ctx)
	if err != nil && u.rb.Accepts(check.ReplicationManager, m.Name()) {
		t.Note("%s is still kept from failing old over: resume it by hand (%v)", m.Name(), err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("let %s fail old over again: %w (accept: [%s:%s] leaves it to you)", m.Name(), err, check.ReplicationManager, m.Name())
	}
	for _, e := range m.Release(st, nodes) {
		if err := m.Do(ctx, e); err != nil {
			t.Note("%s is still kept from acting: resume it there by hand (%v)", e.On, err)
		}
	}
	return u.rememberHeld(ctx, s, m, nil)
}

// letGoSteps end the hold when old serves again, or is given up. last: the
// upgrade is over, and a manager need not know its slots any more.
func (u *Upgrade) letGoSteps(ctx context.Context, s *survey.Survey, last bool) ([]flow.Step, error) {
	if s.OldErr != nil {
		return nil, nil // nothing there can be told
	}
	found, err := u.managers(ctx)
	if err != nil {
		return nil, err
	}
	var steps []flow.Step
	for _, m := range found {
		st, _ := m.Look(ctx) // the step tells that it does not answer
		steps = append(steps, flow.Step{
			ID: "manager/resume", Title: "Let " + m.Name() + " fail old over again", Does: m.Release(st, nil), Late: !last, Timeout: heldTimeout,
			Done: func(ctx context.Context) (bool, error) {
				nodes, err := u.held(ctx, s, m)
				return err == nil && nodes == nil, err
			},
			Do: func(ctx context.Context, t *flow.Turn) error { return u.letGo(ctx, t, s, m) },
		})
		if p, ok := m.(*manager.Patroni); ok && last {
			steps = append(steps, u.forgetSlotsStep(ctx, p))
		}
	}
	return steps, nil
}

// forgetSlotsStep takes the slots of this upgrade out of what Patroni leaves
// alone.
func (u *Upgrade) forgetSlotsStep(ctx context.Context, p *manager.Patroni) flow.Step {
	forget := func(ctx context.Context) ([]flow.Effect, error) {
		return p.Forget(ctx, link.ForwardPrefix+u.rb.Upgrade+"_", link.BackPrefix+u.rb.Upgrade+"_")
	}
	does, _ := forget(ctx) // the step tells that it does not answer
	return flow.Step{
		ID: "manager/slots/back", Title: "Let Patroni forget the slots of this upgrade", Does: does, Done: flow.Never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			does, err := forget(ctx)
			if err != nil && u.rb.Accepts(check.ReplicationManager, p.Name()) {
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

// managerGates want managers to be within the upgrade's reach until it holds
// them, and to hold still from there on.
func (u *Upgrade) managerGates(ctx context.Context, s *survey.Survey) []cutover.Gate {
	if s.OldErr != nil {
		return nil
	}
	found, err := u.managers(ctx)
	if err != nil {
		return []cutover.Gate{{ID: "manager", Look: func(context.Context) (bool, string, error) { return false, "", err }}}
	}
	var gates []cutover.Gate
	for _, m := range found {
		gates = append(gates, cutover.Gate{ID: "manager", Costly: true, Look: func(ctx context.Context) (bool, string, error) { return u.managerGate(ctx, s, m) }})
	}
	return gates
}

func (u *Upgrade) managerGate(ctx context.Context, s *survey.Survey, m manager.Manager) (bool, string, error) {
	answered := u.rb.Accepts(check.ReplicationManager, m.Name())
	st, err := m.Look(ctx)
	if err != nil {
		return answered, err.Error(), nil
	}
	nodes, err := u.held(ctx, s, m)
	if err != nil {
		return false, "", err
	}
	switch silent, acting := st.Silent(), st.Acting(); {
	case len(silent) > 0 && !answered:
		return false, fmt.Sprintf("%s cannot be asked on %s: %v", m.Name(), manager.Names(silent), silent[0].Err), nil
	case len(acting) > 0 && len(nodes) > 0:
		return false, fmt.Sprintf("somebody has resumed %s on %s: end that, and run it again", m.Name(), manager.Names(acting)), nil
	case len(acting) > 0:
		return true, m.Name() + " fails old over by itself; the cutover holds it still", nil
	}
	return true, m.Name() + " holds still on every node", nil
}

// managerNotes name the managers that the upgrade has paused.
func (u *Upgrade) managerNotes(ctx context.Context, s *survey.Survey) []string {
	z := s.Zero()
	if s.OldErr != nil || z == nil {
		return nil
	}
	found, err := u.managers(ctx)
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
