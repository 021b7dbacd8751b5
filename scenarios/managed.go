package scenarios

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"crossfade/scenarios/lab"
)

// The managers that a scenario may put old under.
const (
	repmgr  = "repmgr"
	patroni = "patroni"
)

// install is what old runs: repmgr needs one that has its extension.
func (s *Scenario) install(ctx context.Context, store *lab.Store) (*lab.Install, error) {
	if s.Old.Manager == repmgr {
		return store.With(ctx, s.Old.Major, repmgr)
	}
	return store.Find(ctx, s.Old.Major)
}

// settings are those of old, with what its manager needs.
func (s *Scenario) settings() map[string]string {
	all := map[string]string{}
	if s.Old.Manager == repmgr {
		all = lab.RepmgrSettings()
	}
	for name, value := range s.Old.Settings {
		all[name] = value
	}
	return all
}

// manage puts old under its manager, once its standbys stream.
func (st *Stage) manage(ctx context.Context, old *lab.Install) error {
	var standbys []*lab.Cluster
	for _, n := range st.Standbys[sideOld] {
		standbys = append(standbys, n.Cluster)
	}
	var err error
	switch o := st.Scenario.Old; o.Manager {
	case repmgr:
		var witness *lab.Cluster
		if o.Witness != "" {
			if witness, err = st.Lab.Start(ctx, lab.Options{Name: o.Witness, Install: old, Settings: lab.RepmgrSettings()}); err != nil {
				return err
			}
		}
		st.Manager, err = st.Lab.Repmgr(ctx, st.Old, standbys, witness)
	case patroni:
		st.Manager, err = st.Lab.Patroni(ctx, st.Old, standbys, o.Witness, "")
	}
	return err
}

// managed wants the manager to say of itself that it is active or paused.
func (p *play) managed(ctx context.Context, want string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, flowTime, fmt.Errorf("%s is not %s within %s", p.stage.Manager.Kind, want, flowTime))
	defer cancel()
	paused, err := p.stage.Manager.Paused(ctx)
	if err != nil {
		return err
	}
	if paused != (want == "paused") {
		return fmt.Errorf("%s must be %s now, and says that paused is %t", p.stage.Manager.Kind, want, paused)
	}
	p.printf("  %s says: %s on every node\n", p.stage.Manager.Kind, want)
	return nil
}

// promoteTime is how long a manager may take to promote a standby. Patroni
// waits for as long as its leader's key lives, 20 s.
const promoteTime = time.Minute

// failover ends old's primary for good, waits until the manager has promoted a
// standby of it, and wants that one to refuse writes, a superuser's too: the
// manager brings old back, and not as a cluster that takes writes.
func (p *play) failover(ctx context.Context, name string) error {
	p.printf("\nthe primary of old dies, and %s promotes %s\n", p.stage.Manager.Kind, name)
	var heir *lab.Cluster
	for _, n := range p.stage.Standbys[sideOld] {
		if n.Name == name {
			heir = n.Cluster
		}
	}
	if err := p.stage.Manager.Lose(ctx, p.stage.Old); err != nil {
		return err
	}
	limit, cancel := context.WithTimeoutCause(ctx, promoteTime, fmt.Errorf("%s does not promote %s within %s", p.stage.Manager.Kind, name, promoteTime))
	defer cancel()
	if err := heir.Until(limit, "", "SELECT NOT pg_is_in_recovery()"); err != nil {
		return fmt.Errorf("%w\n%s", err, p.stage.Manager.Log())
	}
	for _, d := range p.stage.Scenario.Databases {
		if state := sqlState(heir.Exec(ctx, d.Name, insists)); state != "25006" {
			return fmt.Errorf("an INSERT into %s on %s, which %s has promoted, ended with SQLSTATE %q, and must end with 25006", d.Name, name, p.stage.Manager.Kind, state)
		}
	}
	p.printf("  %s refuses every write, a superuser's too\n", name)
	return nil
}

// checkManager finds what is wrong of a scenario's manager.
func (s *Scenario) checkManager() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	o := s.Old
	switch {
	case o.Manager != "" && o.Manager != repmgr && o.Manager != patroni:
		wrong("old.manager: %s; it is %s or %s", o.Manager, repmgr, patroni)
	case o.Manager == "" && o.Witness != "", o.Manager == patroni && o.Witness == "":
		wrong("old.witness is for a manager, and Patroni needs one for its third vote")
	}
	for i, a := range s.Acts {
		switch {
		case a.Manager != "" && a.Manager != "active" && a.Manager != "paused":
			wrong("acts: number %d: manager: %s; it is active or paused", i+1, a.Manager)
		case (a.Manager != "" || a.Failover != "") && o.Manager == "":
			wrong("acts: number %d: there is no manager", i+1)
		}
		if a.Failover == "" {
			continue
		}
		known := false
		for _, sb := range o.Standbys {
			known = known || sb.Name == a.Failover
		}
		if !known {
			wrong("acts: failover: old has no standby %s", a.Failover)
		}
	}
	return errors.Join(errs...)
}

// managerGuide is how a person asks the manager.
func (st *Stage) managerGuide() string {
	if st.Manager == nil {
		return ""
	}
	return strings.Join(st.Manager.Ask, " ")
}
