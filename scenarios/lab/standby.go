package lab

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// StandbyOptions says how a standby differs from the plain one: asynchronous, with a slot, calling itself by its name.
type StandbyOptions struct {
	// Dir and Port as in Options.
	Dir  string
	Port int
	// ApplicationName is what it calls itself to its upstream. Empty: its name.
	ApplicationName string
	// NoApplicationName leaves it out of primary_conninfo; PostgreSQL then takes cluster_name.
	NoApplicationName bool
	// Slot is the physical slot on the upstream. Empty: its name, with _ for what slots may not be named.
	Slot string
	// NoSlot streams without a slot.
	NoSlot bool
	// Delay is its recovery_min_apply_delay; 0: none.
	Delay time.Duration
	// Settings go into its postgresql.conf over those copied from the upstream.
	Settings map[string]string
	// Host is where it runs. nil: this machine; then its upstream must be here too.
	Host *Host
	// Install to run it with. nil: the upstream's.
	Install *Install
}

var notInSlot = regexp.MustCompile(`[^a-z0-9_]`)

// Standby makes a standby of c with pg_basebackup and starts it; c may be a standby itself, which makes a cascade. It
// returns when the standby takes reads and c shows it streaming.
func (c *Cluster) Standby(ctx context.Context, name string, o StandbyOptions) (*Cluster, error) {
	s, err := c.standby(ctx, name, o)
	if err != nil {
		return nil, fmt.Errorf("standby %s of %s: %w", name, c.Name, err)
	}
	return s, nil
}

func (c *Cluster) standby(ctx context.Context, name string, o StandbyOptions) (*Cluster, error) {
	i := o.Install
	if i == nil {
		i = &Install{Major: c.Major, Bin: c.Bin}
	}
	s, err := c.lab.newCluster(ctx, name, i, o.Dir, o.Port, c.Superuser, o.Host)
	if err != nil {
		return nil, err
	}
	as := o.ApplicationName
	if as == "" {
		as = name
	}
	from := c.Conninfo("")
	if !o.NoApplicationName {
		from = c.Conninfo("", "application_name="+quoteValue(as))
	}
	args := []string{"-D", s.DataDir, "-d", from, "-R", "-X", "stream", "-c", "fast", "--no-sync"}
	slot := o.Slot
	if slot == "" {
		slot = notInSlot.ReplaceAllString(strings.ToLower(name), "_")
	}
	if !o.NoSlot {
		// One that an earlier standby of this name left would stop pg_basebackup from making it.
		if err := c.Exec(ctx, "", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '"+slot+"' AND NOT active"); err != nil {
			return nil, err
		}
		args = append(args, "-C", "-S", slot)
	}
	if _, err := c.lab.Run(ctx, filepath.Join(i.Bin, "pg_basebackup"), args...); err != nil {
		return nil, err
	}
	settings := s.Settings()
	if o.Delay > 0 {
		settings["recovery_min_apply_delay"] = fmt.Sprintf("%dms", o.Delay.Milliseconds())
	}
	maps.Copy(settings, o.Settings)
	if err := s.configure(settings); err != nil {
		return nil, err
	}
	if err := s.Boot(ctx); err != nil {
		return nil, err
	}
	pid := "SELECT pid FROM pg_stat_wal_receiver WHERE status = 'streaming'"
	if err := s.Until(ctx, "", "SELECT EXISTS ("+pid+")"); err != nil {
		return nil, err
	}
	return s, nil
}

// Reserve finds a place where somebody else is to build a server, as crossfade builds standbys: a port that nobody else
// gets, and a DataDir that does not exist in a folder that the servers' user may write. The server is this lab's from
// then on: the Cluster that is returned can be looked at, killed and booted once it is there, and Down ends it. nil
// install: that of the lab's Store for major.
func (l *Lab) Reserve(ctx context.Context, name string, major int, i *Install) (*Cluster, error) {
	if i == nil {
		var err error
		if i, err = l.Store.Find(ctx, major); err != nil {
			return nil, err
		}
	}
	c, err := l.newCluster(ctx, name, i, "", 0, "postgres", nil)
	if err != nil {
		return nil, fmt.Errorf("reserve %s: %w", name, err)
	}
	return c, nil
}

// ConfigOutside makes a folder with a postgresql.conf and a pg_hba.conf for a reserved place, as distributions keep them
// outside the data directory, and returns it. Boot then starts the server with it, and so do StartCommand and Restart.
func (c *Cluster) ConfigOutside(settings map[string]string) (string, error) {
	dir := filepath.Join(c.Home, "etc")
	if err := c.lab.owner.mkdir(dir, 0o755); err != nil {
		return "", err
	}
	all := ordinary(false)
	maps.Copy(all, c.Settings())
	all["log_directory"] = filepath.Join(c.Home, "log")
	all["data_directory"] = c.DataDir
	all["hba_file"] = filepath.Join(dir, "pg_hba.conf")
	all["ident_file"] = filepath.Join(dir, "pg_ident.conf")
	maps.Copy(all, settings)
	for name, text := range map[string]string{
		"postgresql.conf": settingLines(all), "pg_hba.conf": hbaOfLab + "\n", "pg_ident.conf": "",
	} {
		if err := c.lab.owner.write(filepath.Join(dir, name), text, 0o644); err != nil {
			return "", err
		}
	}
	c.thing.Config = dir
	return dir, c.lab.replace(c.thing)
}

// StartCommand is the argv that starts this server, StopCommand the one that stops it, for a runbook: pg_ctl, to be run
// by the owner of the data.
func (c *Cluster) StartCommand() []string {
	argv := []string{filepath.Join(c.Bin, "pg_ctl"), "start", "-w", "-D", c.DataDir, "-l", filepath.Join(c.Home, "start.log")}
	if c.thing.Config != "" {
		argv = append(argv, "-o", "-c config_file="+filepath.Join(c.thing.Config, "postgresql.conf"))
	}
	return argv
}

// StopCommand is the other end of StartCommand.
func (c *Cluster) StopCommand() []string {
	return []string{filepath.Join(c.Bin, "pg_ctl"), "stop", "-w", "-m", "fast", "-D", c.DataDir}
}
