package lab

import (
	"context"
	"encoding/csv"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// pollAgain is between two looks at a manager, whose own programs take their time.
const pollAgain = 300 * time.Millisecond

// RepmgrSettings is what a server must be set to that repmgr is to manage.
func RepmgrSettings() map[string]string {
	return map[string]string{"shared_preload_libraries": "repmgr"}
}

const repmgrDatabase = "repmgr"

// Repmgr puts servers under repmgr: the primary, its standbys, and a witness, which is a primary of its own that only
// votes; nil: none. All of them run an installation with repmgr (Store.With) and RepmgrSettings. It returns when a
// repmgrd runs on each.
func (l *Lab) Repmgr(ctx context.Context, primary *Cluster, standbys []*Cluster, witness *Cluster) (*Manager, error) {
	m := &Manager{Kind: "repmgr", cluster: append([]*Cluster{primary}, standbys...)}
	all := append([]*Cluster{}, m.cluster...)
	if witness != nil {
		all = append(all, witness)
	}
	for _, c := range []*Cluster{primary, witness} {
		if c == nil {
			continue
		}
		if err := c.Exec(ctx, "", "CREATE ROLE repmgr SUPERUSER LOGIN", "CREATE DATABASE "+repmgrDatabase+" OWNER repmgr"); err != nil {
			return nil, err
		}
	}
	for i, c := range all {
		d, err := l.daemon("repmgr-" + c.Name)
		if err != nil {
			return nil, err
		}
		m.nodes, m.names = append(m.nodes, d), append(m.names, c.Name)
		if err := d.repmgr(c, i+1); err != nil {
			return nil, err
		}
		if i > 0 && c != witness {
			if err := primary.CaughtUp(ctx, c); err != nil { // it must know of the one before it
				return nil, err
			}
		}
		register := []string{"standby", "register", "--upstream-node-id=1"}
		switch c {
		case primary:
			register = []string{"primary", "register"}
		case witness:
			register = []string{"witness", "register", "-h", primary.Address(), "-p", fmt.Sprint(primary.Port), "-U", "repmgr", "-d", repmgrDatabase}
		}
		args := append([]string{filepath.Join(c.Bin, "repmgr"), "-f", d.conf()}, register...)
		if _, err := run(ctx, d.command(ctx, args...)); err != nil {
			return nil, fmt.Errorf("register %s: %w", c.Name, err)
		}
	}
	for i, c := range all {
		if err := m.nodes[i].Boot(ctx); err != nil {
			return nil, err
		}
		if err := c.Until(ctx, repmgrDatabase, "SELECT repmgr.repmgrd_is_running()"); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, m.Log())
		}
	}
	m.Ask = []string{filepath.Join(primary.Bin, "repmgr"), "-f", m.nodes[0].conf(), "service", "status"}
	m.held = m.repmgrHeld
	return m, nil
}

func (d *Daemon) conf() string { return filepath.Join(d.Home, "repmgr.conf") }

// repmgr writes the configuration of one node. It fails over within some five seconds.
func (d *Daemon) repmgr(c *Cluster, id int) error {
	program := filepath.Join(c.Bin, "repmgr")
	d.args = []string{filepath.Join(c.Bin, "repmgrd"), "-f", d.conf(), "--daemonize=false", "--no-pid-file"}
	text := fmt.Sprintf(`node_id=%d
node_name='%s'
conninfo='host=%s port=%d user=repmgr dbname=%s connect_timeout=2'
data_directory='%s'
pg_bindir='%s'
failover=automatic
promote_command='%[8]s standby promote -f %[9]s'
follow_command='%[8]s standby follow -f %[9]s --upstream-node-id=%%n'
reconnect_attempts=3
reconnect_interval=1
monitor_interval_secs=1
primary_visibility_consensus=true
`, id, c.Name, c.Address(), c.Port, repmgrDatabase, c.DataDir, c.Bin, program, d.conf())
	return d.lab.owner.write(d.conf(), text, 0o644)
}

// repmgrHeld asks repmgr's own program: column 6 of each line says whether the node is paused.
func (m *Manager) repmgrHeld(ctx context.Context) (bool, error) {
	out, err := run(ctx, m.nodes[0].command(ctx, append(m.Ask, "--csv")...))
	if out == "" && err != nil {
		return false, err
	}
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil {
		return false, err
	}
	if len(rows) != len(m.nodes) {
		return false, fmt.Errorf("repmgr knows %d nodes, and there are %d: %s", len(rows), len(m.nodes), out)
	}
	held := 0
	for _, r := range rows {
		if len(r) < 7 {
			return false, fmt.Errorf("repmgr service status --csv: %q", out)
		}
		if r[6] == "1" {
			held++
		}
	}
	if held != 0 && held != len(rows) {
		return false, fmt.Errorf("repmgr is paused on some of its nodes only: %s", out)
	}
	return held > 0, nil
}
