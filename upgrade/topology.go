package upgrade

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"crossfade/cutover/traffic"
	"crossfade/upgrade/check"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"
	"crossfade/upgrade/runbook"
	"crossfade/upgrade/standby"

	"github.com/jackc/pgx/v5"
)

// topology tells both clusters as they stand, and the standbys of new as the
// runbook has them. What does not answer is reported as such.
func (u *Upgrade) topology(ctx context.Context, s *survey) (old, fresh report.Cluster) {
	old, fresh = u.cluster(ctx, s, "old"), u.cluster(ctx, s, "new")
	fresh.Name = u.rb.New[0].Cluster
	var listed []*relay
	for _, sb := range u.rb.Old.Standbys {
		listed = append(listed, u.relay(ctx, sb.Name, sb.Conninfo, &report.Node{Name: sb.Name}))
	}
	u.streams(ctx, u.old, s.oldErr, &old, listed)
	listed = nil
	for _, sb := range u.rb.New[0].Standbys {
		n := &report.Node{Name: sb.Name, AppName: sb.Name, Planned: true, Delay: sb.ApplyDelay}
		if sb.Upstream != runbook.UpstreamPrimary {
			n.Upstream = sb.Upstream
		}
		listed = append(listed, u.relay(ctx, sb.Name, sb.Conninfo, n))
	}
	u.streams(ctx, u.new, s.newErr, &fresh, listed)
	if names := u.rb.New[0].SynchronousStandbyNames; names != nil {
		fresh.Synchronous = *names
	} else if len(u.rb.New[0].Standbys) > 0 {
		fresh.Synchronous = first(fresh.Synchronous, old.Synchronous)
	}
	return old, fresh
}

// cluster tells a primary.
func (u *Upgrade) cluster(ctx context.Context, s *survey, side string) report.Cluster {
	server, err := u.side(side), s.silent(side)
	c := report.Cluster{Name: side, Address: server.Address()}
	host, _ := server.Host()
	c.Site = site(host)
	if err == nil {
		v := s.side(side).Version
		c.Version = fmt.Sprintf("%d.%d", v/10000, v%10000)
		err = u.sessions.Do(ctx, server, func(conn *pgx.Conn) (err error) {
			if c.Synchronous, _, err = standby.Synchronous(ctx, conn); err != nil {
				return err
			}
			// The session's own is pinned: what the files say, or the program.
			return conn.QueryRow(ctx, `
				SELECT coalesce((SELECT setting FROM pg_file_settings WHERE name = 'synchronous_commit' AND applied ORDER BY seqno DESC LIMIT 1),
				                (SELECT boot_val FROM pg_settings WHERE name = 'synchronous_commit'))`).Scan(&c.Level)
		})
	}
	if err != nil {
		c.Silent = err.Error()
	}
	return c
}

// relay is a standby of the runbook that may have others following it.
type relay struct {
	*report.Node
	server   *pg.Server // nil: its conninfo is wrong
	upstream string     // whom it receives from, as it says: host:port
	attached bool
}

// relayTimeout limits asking a standby that may be gone.
const relayTimeout = 3 * time.Second

// relay asks a standby whom it receives from and what it calls itself.
func (u *Upgrade) relay(ctx context.Context, name, conninfo string, n *report.Node) *relay {
	r := &relay{Node: n}
	server, err := pg.Parse(name, conninfo, "")
	if err != nil {
		return r
	}
	n.Address = server.Address()
	host, _ := server.Host()
	n.Site = site(host)
	// A standby of new may be called as one of old: kept sessions go by name.
	apart := server.As(u.app)
	apart.Name = "standby " + name + " of old"
	if n.Planned {
		apart.Name = "standby " + name + " of new"
		// It is looked for following its upstream alone: nothing runs there yet.
		r.server = apart
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, relayTimeout)
	defer cancel()
	err = u.sessions.Do(ctx, apart, func(conn *pgx.Conn) error {
		var info, sender, cluster string
		var port, delay int
		err := conn.QueryRow(ctx, `
			SELECT coalesce(r.conninfo, ''), coalesce(r.sender_host, ''), coalesce(r.sender_port, 0), current_setting('cluster_name'),
			       (SELECT setting::int FROM pg_settings WHERE name = 'recovery_min_apply_delay')
			FROM (SELECT) x LEFT JOIN pg_stat_wal_receiver r ON true`).Scan(&info, &sender, &port, &cluster, &delay)
		if err != nil {
			return err
		}
		if info != "" {
			n.AppName = check.ReceiverName(info, cluster)
		}
		n.Delay = time.Duration(delay) * time.Millisecond
		r.upstream = fmt.Sprintf("%s:%d", sender, port)
		return nil
	})
	if err == nil {
		r.server = apart
	}
	return r
}

// streams fills in who receives from whom: from the primary first, then from
// each standby that answers.
func (u *Upgrade) streams(ctx context.Context, primary *pg.Server, silent error, c *report.Cluster, listed []*relay) {
	if silent == nil {
		c.Nodes = append(c.Nodes, u.receivers(ctx, primary, "", listed)...)
	}
	for _, r := range listed {
		if r.server != nil && (!r.Planned || r.attached) {
			c.Nodes = append(c.Nodes, u.receivers(ctx, r.server, r.Name, listed)...)
		}
	}
	for _, r := range listed {
		c.Nodes = append(c.Nodes, *r.Node)
	}
	slices.SortStableFunc(c.Nodes, func(a, b report.Node) int { return strings.Compare(a.Name, b.Name) })
}

// receivers attaches the standbys of the runbook that server sends to, and
// returns those that the runbook does not know.
func (u *Upgrade) receivers(ctx context.Context, server *pg.Server, upstream string, listed []*relay) []report.Node {
	var states []standby.State
	err := u.sessions.Do(ctx, server, func(conn *pgx.Conn) (err error) {
		states, err = standby.States(ctx, conn, server.Name)
		return err
	})
	if err != nil {
		return nil // the drawing shows it without those following it; status tells why
	}
	host, port := server.Host()
	address := fmt.Sprintf("%s:%d", host, port)
	var unlisted []report.Node
	for _, st := range states {
		if st.Logical || st.State == "backup" {
			continue
		}
		calls := func(r *relay) bool {
			return !r.attached && (r.AppName == st.ApplicationName || r.AppName == "" && r.Name == st.ApplicationName)
		}
		i := slices.IndexFunc(listed, func(r *relay) bool { return calls(r) && r.upstream == address })
		if i < 0 {
			i = slices.IndexFunc(listed, calls)
		}
		if i < 0 {
			unlisted = append(unlisted, report.Node{
				Name: st.ApplicationName, AppName: st.ApplicationName, Upstream: upstream, Address: st.Client, Site: site(st.Client),
				State: st.State, SyncState: st.SyncState, Unlisted: true,
			})
			continue
		}
		r := listed[i]
		r.attached, r.Planned = true, false
		r.Upstream, r.State, r.SyncState, r.AppName = upstream, st.State, st.SyncState, st.ApplicationName
	}
	return unlisted
}

// trafficSays tells how clients come to the cluster that serves.
func (u *Upgrade) trafficSays() []string {
	var says []string
	for _, t := range u.rb.Cutover.Traffic {
		says = append(says, t.Entry.Says()...)
	}
	if says == nil {
		says = []string{traffic.Direct}
	}
	return says
}

// site is where a host is, as far as its address tells: the domain of a name,
// the network of an address; "" where it tells nothing.
func site(host string) string {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		_, domain, _ := strings.Cut(host, ".")
		if strings.HasPrefix(host, "/") {
			return ""
		}
		return domain
	}
	bits := 24
	if ip.Is6() {
		bits = 64
	}
	if ip.IsLoopback() {
		return ""
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return ""
	}
	return p.String()
}
