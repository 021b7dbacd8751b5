package members

import (
	"context"
	"fmt"
	"slices"
	"time"

	"crossfade/cutover"
	"crossfade/upgrade/check"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/manager"
	"crossfade/upgrade/survey"
)

// HoldSteps hold the managers of old still, and let them go again where the
// cutover is undone.
func (ms *Members) HoldSteps(ctx context.Context, s *survey.Survey) ([]flow.Step, error) {
	if s.OldErr != nil {
		return nil, nil // after open: they are held
	}
	found, err := ms.managers(ctx)
	if err != nil {
		return nil, err
	}
	var steps []flow.Step
	for _, m := range found {
		// One that does not answer stops the step, and no plan: after open there
		// is only forward.
		st, err := m.Look(ctx)
		if err != nil && ms.c.Book.Accepts(check.ReplicationManager, m.Name()) {
			continue // the operator has seen to it
		}
		does := m.Hold(st)
		steps = append(steps, flow.Step{
			ID: "manager/pause", Title: "Keep " + m.Name() + " from failing old over", Does: does, Timeout: heldTimeout + 10*time.Second, UndoTimeout: heldTimeout,
			Done: func(ctx context.Context) (bool, error) {
				now, err := m.Look(ctx)
				return err == nil && now.Held(), err
			},
			Do:   func(ctx context.Context, t *flow.Turn) error { return ms.holdStill(ctx, t, s, m, does) },
			Undo: func(ctx context.Context, t *flow.Turn) error { return ms.letGo(ctx, t, s, m) },
		})
	}
	return steps, nil
}

// holdStill holds a manager. Which nodes it holds is remembered first: what
// somebody else has paused stays so in the end.
func (ms *Members) holdStill(ctx context.Context, t *flow.Turn, s *survey.Survey, m manager.Manager, does []flow.Effect) error {
	refuse := func(says string) error {
		return &cutover.ErrGate{Closed: []cutover.GateState{{ID: "manager", Says: says}}}
	}
	st, err := m.Look(ctx)
	if err != nil {
		return refuse(err.Error())
	}
	if silent := st.Silent(); len(silent) > 0 {
		says := fmt.Sprintf("%s cannot be kept from acting on %s (%v)", m.Name(), manager.Names(silent), silent[0].Err)
		if !ms.c.Book.Accepts(check.ReplicationManager, m.Name()) {
			return refuse(says)
		}
		t.Note("%s; accepted by the runbook", says)
	}
	nodes, err := ms.held(ctx, s, m)
	if err != nil {
		return err
	}
	for _, n := range st.Acting() {
		if !slices.Contains(nodes, n.Name) {
			nodes = append(nodes, n.Name)
		}
	}
	if err := ms.rememberHeld(ctx, s, m, nodes); err != nil {
		return err
	}
	for _, e := range does {
		if err := m.Do(ctx, e); err != nil && !ms.c.Book.Accepts(check.ReplicationManager, m.Name()) {
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
func (ms *Members) letGo(ctx context.Context, t *flow.Turn, s *survey.Survey, m manager.Manager) error {
	nodes, err := ms.held(ctx, s, m)
	if err != nil || nodes == nil {
		return err
	}
	st, err := m.Look(ctx)
	if err != nil && ms.c.Book.Accepts(check.ReplicationManager, m.Name()) {
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
	return ms.rememberHeld(ctx, s, m, nil)
}

// LetGoSteps end the hold when old serves again, or is given up. last: the
// upgrade is over, and a manager need not know its slots any more.
func (ms *Members) LetGoSteps(ctx context.Context, s *survey.Survey, last bool) ([]flow.Step, error) {
	if s.OldErr != nil {
		return nil, nil // nothing there can be told
	}
	found, err := ms.managers(ctx)
	if err != nil {
		return nil, err
	}
	var steps []flow.Step
	for _, m := range found {
		st, _ := m.Look(ctx) // the step tells that it does not answer
		steps = append(steps, flow.Step{
			ID: "manager/resume", Title: "Let " + m.Name() + " fail old over again", Does: m.Release(st, nil), Late: !last, Timeout: heldTimeout,
			Done: func(ctx context.Context) (bool, error) {
				nodes, err := ms.held(ctx, s, m)
				return err == nil && nodes == nil, err
			},
			Do: func(ctx context.Context, t *flow.Turn) error { return ms.letGo(ctx, t, s, m) },
		})
		if p, ok := m.(*manager.Patroni); ok && last {
			steps = append(steps, ms.forgetSlotsStep(ctx, p))
		}
	}
	return steps, nil
}

// ManagerGates want managers to be within the upgrade's reach until it holds
// them, and to hold still from there on.
func (ms *Members) ManagerGates(ctx context.Context, s *survey.Survey) []cutover.Gate {
	if s.OldErr != nil {
		return nil
	}
	found, err := ms.managers(ctx)
	if err != nil {
		return []cutover.Gate{{ID: "manager", Look: func(context.Context) (bool, string, error) { return false, "", err }}}
	}
	var gates []cutover.Gate
	for _, m := range found {
		gates = append(gates, cutover.Gate{ID: "manager", Costly: true, Look: func(ctx context.Context) (bool, string, error) { return ms.managerGate(ctx, s, m) }})
	}
	return gates
}

func (ms *Members) managerGate(ctx context.Context, s *survey.Survey, m manager.Manager) (bool, string, error) {
	answered := ms.c.Book.Accepts(check.ReplicationManager, m.Name())
	st, err := m.Look(ctx)
	if err != nil {
		return answered, err.Error(), nil
	}
	nodes, err := ms.held(ctx, s, m)
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
