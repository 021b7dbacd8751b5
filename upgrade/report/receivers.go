package report

import (
	"slices"
	"strconv"
)

// receiversText draws who receives from whom: each cluster's primary, its
// standbys with their cascades, and the links that it sends.
func (s Status) receiversText(p *page) {
	clusters := []string{"old"}
	for _, b := range s.Standbys {
		clusters = append(clusters, b.Cluster)
	}
	for _, l := range s.Links {
		clusters = append(clusters, l.Cluster)
	}
	rows := [][]string{{
		"  receiver", "state", "sync_state", "priority", "sent_lsn", "write_lsn", "flush_lsn", "replay_lsn", "write_lag", "flush_lag", "replay_lag",
	}}
	for i, c := range clusters {
		if slices.Contains(clusters[:i], c) {
			continue
		}
		if below := s.tree(c, "", "  ", nil); len(below) > 0 {
			head := make([]string, len(rows[0])) // as many cells, so that the columns stay aligned
			head[0] = "  " + c
			rows = append(append(rows, head), below...)
		}
	}
	if len(rows) > 1 {
		p.printf("\nreceivers, as pg_stat_replication shows them\n")
		p.table(rows)
	}
}

// tree is the rows of all who receive from upstream of a cluster, "" being its
// primary. above are the nodes on the way there.
func (s Status) tree(cluster, upstream, indent string, above []string) [][]string {
	type node struct {
		row  []string
		name string // of a standby
	}
	var nodes []node
	names := s.names(cluster)
	for _, b := range s.Standbys {
		at := b.Upstream
		if !slices.Contains(names, at) {
			at = "" // the primary, or one that nobody knows
		}
		if b.Cluster != cluster || at != upstream || slices.Contains(above, b.Name) {
			continue
		}
		state := b.State
		if state == "" {
			state = "not connected"
		}
		nodes = append(nodes, node{receiverCells(b.Name, state, b.SyncState, b.SyncPriority, b.Received), b.Name})
	}
	if upstream == "" {
		for _, l := range s.Links {
			r := l.Receiver
			if sends := l.Direction == Forward && cluster == "old" || l.Direction == Back && cluster == l.Cluster; r == nil || !sends {
				continue
			}
			nodes = append(nodes, node{row: receiverCells("link "+l.Database+"/"+l.Set, r.State, r.SyncState, &r.SyncPriority, r.Received)})
		}
	}
	var rows [][]string
	for i, n := range nodes {
		branch, beside := "├─ ", "│  "
		if i == len(nodes)-1 {
			branch, beside = "└─ ", "   "
		}
		n.row[0] = indent + branch + n.row[0]
		rows = append(rows, n.row)
		if n.name != "" {
			rows = append(rows, s.tree(cluster, n.name, indent+beside, append(slices.Clone(above), n.name))...)
		}
	}
	return rows
}

func (s Status) names(cluster string) []string {
	var names []string
	for _, b := range s.Standbys {
		if b.Cluster == cluster {
			names = append(names, b.Name)
		}
	}
	return names
}

func receiverCells(name, state, sync string, priority *int, at Received) []string {
	rank := unknown
	if priority != nil {
		rank = strconv.Itoa(*priority)
	}
	return []string{
		name, state, orUnknown(sync), rank, lsnCell(at.Sent), lsnCell(at.Write), lsnCell(at.Flush), lsnCell(at.Replay),
		tookSeconds(at.WriteLag), tookSeconds(at.FlushLag), tookSeconds(at.ReplayLag),
	}
}
