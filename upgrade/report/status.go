package report

import (
	"slices"
	"time"

	"crossfade/upgrade/pg"
)

// Phase is where an upgrade stands; it decides which commands may run.
type Phase string

// The phases. PhaseCutover is a cutover or rollback that was cut off before open.
const (
	PhaseNew        Phase = "new"
	PhasePreparing  Phase = "preparing"
	PhaseReady      Phase = "ready"
	PhaseCutover    Phase = "cutover"
	PhaseOpen       Phase = "open"
	PhaseRolledBack Phase = "rolled_back"
	PhaseFinished   Phase = "finished"
	PhaseAborted    Phase = "aborted"
)

// Phases are all of them, in the order in which an upgrade goes through them.
func Phases() []Phase {
	return []Phase{PhaseNew, PhasePreparing, PhaseReady, PhaseCutover, PhaseOpen, PhaseRolledBack, PhaseFinished, PhaseAborted}
}

// Writable is which cluster takes writes now. The zero value is WritableUnknown.
type Writable string

// What takes writes. None is between close and open; both must never be;
// unknown is when a server that must say so did not answer.
const (
	WritableOld     Writable = "old"
	WritableNew     Writable = "new"
	WritableNone    Writable = "none"
	WritableBoth    Writable = "both"
	WritableUnknown Writable = "unknown"
	// WritableSplit: of several new clusters some have been opened; the tables of
	// the others are written on old.
	WritableSplit Writable = "split"
)

// FenceState is what the fence of one cluster does. The zero value is not known.
type FenceState string

// The states of a fence: there is none; it is there and lets writes through;
// it refuses them.
const (
	FenceNone   FenceState = "none"
	FenceArmed  FenceState = "armed"
	FenceClosed FenceState = "closed"
)

// Directions of a link.
const (
	Forward = "forward" // old to new
	Back    = "back"    // new to old
)

// Status is where an upgrade stands, as the servers say it. A nil slice is not
// known (the server that would tell did not answer); an empty one is empty.
type Status struct {
	At       time.Time
	Upgrade  string
	Phase    Phase
	Writable Writable
	Fence    struct{ Old, New FenceState }
	Step     *Work // nil: no step is in progress, or it cannot be told
	Links    []Link
	Standbys []Standby
	Gates    []Gate
	// WALKeptBytes is what old (after open: the side that sends) keeps for
	// the slots of this upgrade.
	WALKeptBytes *int64
	// Next is the command to type next, "" where there is none.
	Next string

	// Silent are the servers that did not answer, and Notes sentences that
	// belong to no other field: a trigger that could not be dropped yet, an
	// advisory lock held elsewhere. Both are beyond the contract's fields.
	Silent []Silence
	Notes  []string

	// Clusters are the new clusters, where there are several.
	Clusters []ClusterStatus
}

// ClusterStatus is where the upgrade to one of several new clusters stands.
type ClusterStatus struct {
	Cluster  string
	Phase    Phase
	Writable Writable
	Fence    struct{ Old, New FenceState }
	Step     *Work
	Next     string
}

// Summarize sets what is said of all clusters together: the phase of the one
// that is least far, or that is between close and open.
func (s *Status) Summarize() {
	far := []Phase{PhaseAborted, PhaseNew, PhasePreparing, PhaseReady, PhaseRolledBack, PhaseOpen, PhaseFinished}
	least := len(far)
	seen := map[Writable]bool{}
	cut := false
	for i, c := range s.Clusters {
		if c.Phase == PhaseCutover {
			cut = true
		} else {
			least = min(least, slices.Index(far, c.Phase))
		}
		seen[c.Writable] = true
		if i == 0 {
			s.Fence = c.Fence
		}
		if s.Fence.Old != c.Fence.Old {
			s.Fence.Old = ""
		}
		if s.Fence.New != c.Fence.New {
			s.Fence.New = ""
		}
	}
	s.Phase = ""
	if least >= 0 && least < len(far) {
		s.Phase = far[least]
	}
	if cut {
		s.Phase = PhaseCutover
	}
	s.Writable = WritableUnknown
	for _, w := range []Writable{WritableBoth, WritableNone, WritableUnknown, ""} {
		if seen[w] {
			s.Writable = w
			if w == "" {
				s.Writable = WritableUnknown
			}
			return
		}
	}
	switch {
	case seen[WritableOld] && seen[WritableNew]:
		s.Writable = WritableSplit
	case seen[WritableOld]:
		s.Writable = WritableOld
	case seen[WritableNew]:
		s.Writable = WritableNew
	}
}

// Work is a step in progress.
type Work struct {
	Plan, ID    string
	Since       *time.Time
	Done, Total *int64
	Unit        string // of Done and Total: "bytes", "tables", …
	ETASeconds  *float64
}

// Link is one set in one direction.
type Link struct {
	Database, Set   string
	Cluster         string // the new cluster it belongs to
	Direction       string // Forward or Back
	State           string // streaming, copying, stopped, waiting, lost, missing
	Sent, Confirmed *pg.LSN
	LagBytes        *int64
	LagSeconds      *float64 // by the canary
	Error           string
	Receiver        *Receiver // nil: nobody receives, or it is not known
}

// Receiver is what pg_stat_replication says of the apply worker of a link.
type Receiver struct {
	State, SyncState string
	SyncPriority     int
	Received
}

// Received is how far a receiver is, as its sender's pg_stat_replication says.
type Received struct {
	Sent, Write, Flush, Replay    *pg.LSN
	WriteLag, FlushLag, ReplayLag *float64 // seconds
}

// Standby is one standby, with what its upstream's pg_stat_replication says.
type Standby struct {
	Cluster, Name, Upstream string // Cluster: old, or a new cluster's name
	State, SyncState        string // "": not connected
	SyncPriority            *int
	Received
}

// Gate is one condition that must hold before a cutover may begin.
type Gate struct {
	ID   string
	OK   bool
	Says string // what holds, or what is missing
	// Cluster is the new cluster whose cutover it is for, where there are several.
	Cluster string
}

// Watch is what to type while an upgrade is open and all is well.
const Watch = "crossfade status --watch"

// Silence is a server that did not answer.
type Silence struct{ On, Says string }

// Exit is the exit code of status --exit-code: 0 healthy, 6 none or both are
// writable, 4 a gate is closed, 1 a server did not answer; the first of these
// that holds, in this order.
func (s Status) Exit() int {
	switch s.Writable {
	case WritableNone, WritableBoth:
		return 6
	}
	for _, g := range s.Gates {
		if !g.OK {
			return 4
		}
	}
	if len(s.Silent) > 0 || s.Writable != WritableOld && s.Writable != WritableNew && s.Writable != WritableSplit {
		return 1
	}
	return 0
}

type statusLine struct {
	kind
	At           stamp         `json:"at"`
	Upgrade      string        `json:"upgrade"`
	Phase        *string       `json:"phase"`
	Writable     Writable      `json:"writable"`
	Fence        fenceLine     `json:"fence"`
	Step         *workLine     `json:"step"`
	Links        []linkLine    `json:"links"`
	Standbys     []standbyLine `json:"standbys"`
	Gates        []gateLine    `json:"gates"`
	WALKeptBytes *int64        `json:"wal_kept_bytes"`
	Next         *string       `json:"next"`
	Silent       []silentLine  `json:"silent"`
	Notes        []string      `json:"notes"`
	Clusters     []clusterLine `json:"clusters,omitempty"`
}

type clusterLine struct {
	Cluster  string    `json:"cluster"`
	Phase    *string   `json:"phase"`
	Writable Writable  `json:"writable"`
	Fence    fenceLine `json:"fence"`
	Step     *workLine `json:"step"`
	Next     *string   `json:"next"`
}

type fenceLine struct {
	Old *string `json:"old"`
	New *string `json:"new"`
}

type workLine struct {
	Plan       string   `json:"plan"`
	ID         string   `json:"id"`
	Since      *stamp   `json:"since"`
	Done       *int64   `json:"done"`
	Total      *int64   `json:"total"`
	Unit       *string  `json:"unit"`
	ETASeconds *float64 `json:"eta_seconds"`
}

type linkLine struct {
	Database   string   `json:"database"`
	Set        string   `json:"set"`
	Cluster    string   `json:"cluster"`
	Direction  string   `json:"direction"`
	State      *string  `json:"state"`
	Sent       *string  `json:"sent_lsn"`
	Confirmed  *string  `json:"confirmed_lsn"`
	LagBytes   *int64   `json:"lag_bytes"`
	LagSeconds *float64 `json:"lag_seconds"`
	Error      *string  `json:"error"`

	Receiver *receiverLine `json:"receiver"`
}

type receiverLine struct {
	State        string `json:"state"`
	SyncState    string `json:"sync_state"`
	SyncPriority int    `json:"sync_priority"`
	receivedLine
}

type receivedLine struct {
	Sent      *string  `json:"sent_lsn"`
	Write     *string  `json:"write_lsn"`
	Flush     *string  `json:"flush_lsn"`
	Replay    *string  `json:"replay_lsn"`
	WriteLag  *float64 `json:"write_lag"`
	FlushLag  *float64 `json:"flush_lag"`
	ReplayLag *float64 `json:"replay_lag"`
}

type standbyLine struct {
	Cluster   string  `json:"cluster"`
	Name      string  `json:"name"`
	Upstream  *string `json:"upstream"`
	State     *string `json:"state"`
	SyncState *string `json:"sync_state"`
	receivedLine

	SyncPriority *int `json:"sync_priority"`
}

type gateLine struct {
	ID   string `json:"id"`
	OK   bool   `json:"ok"`
	Says string `json:"says"`

	Cluster string `json:"cluster,omitempty"`
}

type silentLine struct {
	On   string `json:"on"`
	Says string `json:"says"`
}

func (s Status) line() any {
	l := statusLine{
		kind: kind{"status"}, At: stamp(s.At), Upgrade: s.Upgrade, Phase: text(string(s.Phase)), Writable: s.writable(),
		Fence: fenceLine{text(string(s.Fence.Old)), text(string(s.Fence.New))},
		Links: each(s.Links, Link.wire), Standbys: each(s.Standbys, Standby.wire),
		Gates:        each(s.Gates, func(g Gate) gateLine { return gateLine(g) }),
		WALKeptBytes: s.WALKeptBytes, Next: text(s.Next),
		Silent: list(each(s.Silent, func(q Silence) silentLine { return silentLine(q) })), Notes: list(s.Notes),
	}
	l.Step = s.Step.wire()
	for _, c := range s.Clusters {
		one := clusterLine{
			Cluster: c.Cluster, Phase: text(string(c.Phase)), Writable: c.Writable,
			Fence: fenceLine{text(string(c.Fence.Old)), text(string(c.Fence.New))}, Step: c.Step.wire(), Next: text(c.Next),
		}
		if one.Writable == "" {
			one.Writable = WritableUnknown
		}
		l.Clusters = append(l.Clusters, one)
	}
	return l
}

func (w *Work) wire() *workLine {
	if w == nil {
		return nil
	}
	return &workLine{w.Plan, w.ID, stampOf(w.Since), w.Done, w.Total, text(w.Unit), w.ETASeconds}
}

func (s Status) writable() Writable {
	if s.Writable == "" {
		return WritableUnknown
	}
	return s.Writable
}

func (l Link) wire() linkLine {
	w := linkLine{
		Database: l.Database, Set: l.Set, Cluster: l.Cluster, Direction: l.Direction, State: text(l.State),
		Sent: lsnText(l.Sent), Confirmed: lsnText(l.Confirmed),
		LagBytes: l.LagBytes, LagSeconds: l.LagSeconds, Error: text(l.Error),
	}
	if r := l.Receiver; r != nil {
		w.Receiver = &receiverLine{r.State, r.SyncState, r.SyncPriority, r.Received.wire()}
	}
	return w
}

func (s Standby) wire() standbyLine {
	return standbyLine{
		Cluster: s.Cluster, Name: s.Name, Upstream: text(s.Upstream), State: text(s.State), SyncState: text(s.SyncState),
		receivedLine: s.Received.wire(), SyncPriority: s.SyncPriority,
	}
}

func (r Received) wire() receivedLine {
	return receivedLine{lsnText(r.Sent), lsnText(r.Write), lsnText(r.Flush), lsnText(r.Replay), r.WriteLag, r.FlushLag, r.ReplayLag}
}

// each maps in, and keeps nil nil: what is not known stays so.
func each[A, B any](in []A, f func(A) B) []B {
	if in == nil {
		return nil
	}
	out := make([]B, len(in))
	for i, a := range in {
		out[i] = f(a)
	}
	return out
}
