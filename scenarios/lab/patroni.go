package lab

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// PatroniAdmin is the user whose password Patroni's REST API demands, where it demands one.
const PatroniAdmin = "admin"

// Patroni puts a primary and its standbys under Patroni, and a third vote beside them: their store is Patroni's own raft.
// The servers are stopped, and Patroni starts them again. It returns when all of them run and stream. password is what
// requests that change something must know; "": nothing.
func (l *Lab) Patroni(ctx context.Context, primary *Cluster, standbys []*Cluster, vote, password string) (*Manager, error) {
	python, err := l.Store.Program(ctx, "patroni")
	if err != nil {
		return nil, err
	}
	m := &Manager{Kind: "patroni", cluster: append([]*Cluster{primary}, standbys...)}
	var addrs []string
	for _, name := range append(clusterNames(m.cluster), vote) {
		d, err := l.daemon("patroni-" + name)
		if err != nil {
			return nil, err
		}
		port, err := takePort(ctx, l.Dir, 0)
		if err != nil {
			return nil, err
		}
		d.python(python)
		addrs = append(addrs, fmt.Sprintf("%s:%d", loopback, port))
		m.nodes, m.names = append(m.nodes, d), append(m.names, name)
	}
	for i, d := range m.nodes {
		var c *Cluster
		if i < len(m.cluster) {
			c = m.cluster[i]
			port, err := takePort(ctx, l.Dir, 0)
			if err != nil {
				return nil, err
			}
			m.API = append(m.API, fmt.Sprintf("http://%s:%d", loopback, port))
		}
		if err := d.patroni(c, addrs, i, m.API, password); err != nil {
			return nil, err
		}
	}
	for i := len(m.cluster) - 1; i >= 0; i-- {
		if err := m.cluster[i].Stop(ctx, Fast); err != nil {
			return nil, err
		}
	}
	m.Ask = append(m.nodes[0].script("patronictl"), "-c", m.nodes[0].yaml(), "list")
	m.held = func(ctx context.Context) (bool, error) {
		out, err := run(ctx, m.nodes[0].command(ctx, m.Ask...))
		return strings.Contains(out, "Maintenance mode: on"), err
	}
	for _, d := range []*Daemon{m.nodes[len(m.nodes)-1], m.nodes[0]} {
		if err := d.Boot(ctx); err != nil {
			return nil, err
		}
	}
	for i, c := range m.cluster {
		if err := m.nodes[i].Boot(ctx); err != nil {
			return nil, err
		}
		if err := c.Wait(ctx); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, m.Log())
		}
		ready := "SELECT NOT pg_is_in_recovery()"
		if i > 0 {
			ready = "SELECT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')"
		}
		if err := c.Until(ctx, "", ready); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, m.Log())
		}
	}
	return m, nil
}

func clusterNames(all []*Cluster) []string {
	var names []string
	for _, c := range all {
		names = append(names, c.Name)
	}
	return names
}

// python makes the daemon one that runs in the Python that came with Patroni; program is that of usr/bin.
func (d *Daemon) python(program string) {
	root := filepath.Dir(filepath.Dir(program))
	d.args = []string{program}
	d.env = []string{
		"PYTHONHOME=" + root, "PYTHONPATH=" + filepath.Join(root, "lib/python3/dist-packages"), "PYTHONNOUSERSITE=1",
		"PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1", "LC_ALL=C.UTF-8", "LANG=C.UTF-8",
	}
}

// script is the argv of a program of Patroni's.
func (d *Daemon) script(name string) []string {
	return []string{d.args[0], filepath.Join(filepath.Dir(d.args[0]), name)}
}

func (d *Daemon) yaml() string { return filepath.Join(d.Home, "patroni.yml") }

// patroni writes the configuration of one node, c, or of the third vote, nil. addrs are the addresses of raft, its own
// the one at i. The node's API is the last of api.
func (d *Daemon) patroni(c *Cluster, addrs []string, i int, api []string, password string) error {
	var others []string
	for j, a := range addrs {
		if j != i {
			others = append(others, "'"+a+"'")
		}
	}
	text := fmt.Sprintf("raft: {data_dir: '%s', self_addr: '%s', partner_addrs: [%s]}\n", filepath.Join(d.Home, "raft"), addrs[i], strings.Join(others, ", "))
	program := "patroni_raft_controller"
	if c != nil {
		program = "patroni"
		authentication := ""
		if password != "" {
			authentication = fmt.Sprintf(", authentication: {username: %s, password: '%s'}", PatroniAdmin, password)
		}
		listen := strings.TrimPrefix(api[len(api)-1], "http://")
		text += fmt.Sprintf(`scope: heavy
name: %[1]s
restapi: {listen: '%[2]s', connect_address: '%[2]s'%[9]s}
bootstrap:
  dcs:
    ttl: 20
    loop_wait: 1
    retry_timeout: 3
    postgresql:
      use_pg_rewind: false
      parameters: {wal_level: logical, max_wal_senders: 20, max_replication_slots: 20, max_worker_processes: 20}
postgresql:
  listen: '%[3]s:%[4]d'
  connect_address: '%[3]s:%[4]d'
  data_dir: '%[5]s'
  bin_dir: '%[6]s'
  pgpass: '%[7]s'
  authentication: {superuser: {username: %[8]s}, replication: {username: %[8]s}}
`, c.Name, listen, c.Address(), c.Port, c.DataDir, c.Bin, filepath.Join(d.Home, "pgpass"), c.Superuser, authentication)
	}
	d.args = append(d.script(program), d.yaml())
	return d.lab.owner.write(d.yaml(), text, 0o644)
}
