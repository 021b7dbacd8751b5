package cutover

// crossing is an attempt with its parts, each of which builds and runs some of the
// steps. A part knows the attempt, and those other parts that it needs.
type crossing struct {
	*attempt
	openFence  *openFence
	barrier    *barrier
	clients    *clients
	fence      *fence
	forward    *forward
	gates      *gates
	hold       *hold
	leaks      *leaks
	recheck    *recheck
	rehearsing *rehearsing
	sequences  *sequences
	standbys   *standbys
	way        *way
}

func newCrossing(c Config) *crossing {
	a := newAttempt(c)
	x := &crossing{attempt: a}
	x.barrier = &barrier{attempt: a}
	x.clients = &clients{a}
	x.leaks = &leaks{a}
	x.standbys = &standbys{a}
	x.way = &way{a}
	x.sequences = &sequences{attempt: a, clients: x.clients}
	x.gates = &gates{attempt: a, sequences: x.sequences, standbys: x.standbys}
	x.fence = &fence{attempt: a, barrier: x.barrier, clients: x.clients, sequences: x.sequences, leaks: x.leaks, gates: x.gates}
	x.forward = &forward{attempt: a, fence: x.fence}
	x.recheck = &recheck{attempt: a, barrier: x.barrier, fence: x.fence, gates: x.gates, sequences: x.sequences}
	x.hold = &hold{attempt: a, recheck: x.recheck, units: map[string]unitState{}}
	x.rehearsing = &rehearsing{attempt: a, gates: x.gates}
	x.openFence = &openFence{attempt: a, barrier: x.barrier, fence: x.fence, rehearsing: x.rehearsing}
	return x
}
