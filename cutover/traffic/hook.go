package traffic

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
)

// Hook sends clients by a program of the operator's: a DNS record, a virtual
// address, a pooler that the tool does not know.
//
// The program is called with one more argument:
//
//	check   prove that point will work; change nothing that clients see
//	pause   hold clients back, or do nothing; returns when it is done
//	point   send clients to $CROSSFADE_TO; may be called again, and back
//	resume  resume clients; must work after a pause that failed
//	where   print host:port of where clients are sent now; optional
//
// It exits 0 when that is done; an argument that it has no use for is done at
// once. It sees CROSSFADE_UPGRADE, _PHASE, _STEP, _OLD, _NEW and _FENCE_LSN as
// every hook does (empty where not known), and for check and point
// CROSSFADE_TO (old or new), CROSSFADE_TO_HOST, CROSSFADE_TO_PORT and
// CROSSFADE_TO_CONNINFO (without a password). A guard that calls resume in the
// place of a tool that is gone tells what was known when clients were paused.
// What it prints on stderr is in the error when it fails.
type Hook struct {
	// Label replaces the name that is made of the program.
	Label string
	// Run is the program and its arguments.
	Run []string
	// Timeout limits each call; 0 is 10 s.
	Timeout time.Duration
	// Env is asked before every call for what is added to the environment,
	// "NAME=value", beside CROSSFADE_STEP; nil adds nothing.
	Env func() []string
}

// hook is the kind.
func hook() Kind {
	return Kind{
		Key: "hook", Keys: []Keys{{"a hook", []string{"run", "timeout"}}},
		Read: func(m Mapping) Entry { return ReadHook(m, defaultHookTimeout) },
		Revive: func(u GuardUnit) (Switch, error) {
			var g hookGuarded
			if err := json.Unmarshal(u.Spec, &g); err != nil {
				return nil, err
			}
			return &Hook{Label: u.Name, Run: g.Run, Timeout: g.Timeout, Env: func() []string { return g.Env }}, nil
		},
	}
}

// HookEntry is a program of the operator.
type HookEntry struct {
	Run     []string      // argv
	Timeout time.Duration // from 1 ms
}

// ReadHook reads a hook, also one that is no traffic. timeout is what it has
// where none is given.
func ReadHook(m Mapping, timeout time.Duration) *HookEntry {
	const run = "[/usr/local/bin/tell-oncall]"
	m.Require("run", "the program and its arguments, like run: "+run)
	return &HookEntry{Run: m.Argv("run", run), Timeout: m.Duration("timeout", timeout, time.Millisecond)}
}

// Switch is the Hook of the entry.
func (e *HookEntry) Switch(a Around) (Switch, error) {
	return &Hook{Run: e.Run, Timeout: e.Timeout, Env: a.Env}, nil
}

// Says names the program.
func (e *HookEntry) Says() []string { return []string{"Clients are sent by " + e.Run[0] + "."} }

// Hosts are not known.
func (e *HookEntry) Hosts() []string { return nil }

// Names are not known.
func (e *HookEntry) Names() []string { return nil }

// hookGuarded is what a guard gets of a hook.
type hookGuarded struct {
	Run     []string      `json:"run"`
	Env     []string      `json:"env,omitempty"`
	Timeout time.Duration `json:"timeout,omitempty"`
}

// Guarded has the program, which may be a relative path, with the environment of now.
func (h *Hook) Guarded() (GuardUnit, error) {
	spec, err := json.Marshal(hookGuarded{Run: h.Run, Env: h.environment(string(Resume), nil), Timeout: h.Timeout})
	return GuardUnit{Kind: "hook", Name: h.Name(), Spec: spec, Here: true}, err
}

// The arguments of a hook that are no calls of a Switch.
const (
	hookCheck = "check"
	hookWhere = "where"
)

// steps are the steps of a crossing that a hook's calls belong to; where is of none.
var steps = map[string]string{
	hookCheck: "traffic/prepare", string(Pause): "traffic/pause", string(Point): "traffic/point", string(Resume): "traffic/resume",
}

const defaultHookTimeout = 10 * time.Second

// Name is "hook" and the program.
func (h *Hook) Name() string {
	if h.Label != "" {
		return h.Label
	}
	return "hook " + filepath.Base(h.Run[0])
}

// Does is what a call does.
func (h *Hook) Does(call Call, _ *pg.Server) []flow.Effect {
	switch call {
	case Prepare:
		return []flow.Effect{h.effect(hookCheck)}
	case Pause, Point, Resume:
		return []flow.Effect{h.effect(string(call))}
	}
	return nil
}

func (h *Hook) effect(arg string) flow.Effect {
	return flow.Effect{On: pg.Local{}.Name(), Run: append(slices.Clone(h.Run), arg)}
}

// Prepare calls check.
func (h *Hook) Prepare(ctx context.Context, to *pg.Server) error {
	return h.call(ctx, hookCheck, to, nil)
}

// Withdraw does nothing: check has changed nothing.
func (h *Hook) Withdraw(context.Context) error { return nil }

// Pause calls pause, and resume where that failed.
func (h *Hook) Pause(ctx context.Context) error {
	err := h.call(ctx, string(Pause), nil, nil)
	if err != nil {
		again, cancel := afterwards(ctx)
		defer cancel()
		return errors.Join(err, h.Resume(again))
	}
	return nil
}

// Point calls point.
func (h *Hook) Point(ctx context.Context, to *pg.Server) error {
	return h.call(ctx, string(Point), to, nil)
}

// Resume calls resume.
func (h *Hook) Resume(ctx context.Context) error { return h.call(ctx, string(Resume), nil, nil) }

// Where calls where. A hook that exits 0 without a word does not tell.
func (h *Hook) Where(ctx context.Context) (string, error) {
	var out bytes.Buffer
	if err := h.call(ctx, hookWhere, nil, &out); err != nil {
		return "", err
	}
	at := strings.TrimSpace(out.String())
	if at == "" {
		return "", nil
	}
	if _, _, err := net.SplitHostPort(at); err != nil {
		return "", fmt.Errorf("%s where printed %q, not host:port", h.Name(), at)
	}
	return at, nil
}

func (h *Hook) environment(arg string, to *pg.Server) []string {
	env := []string{"CROSSFADE_STEP=" + steps[arg]}
	if h.Env != nil {
		env = append(env, h.Env()...)
	}
	if to != nil {
		host, port := address(to)
		env = append(env, "CROSSFADE_TO="+to.Name, "CROSSFADE_TO_HOST="+host, "CROSSFADE_TO_PORT="+port, "CROSSFADE_TO_CONNINFO="+to.Conninfo())
	}
	return env
}

func (h *Hook) call(ctx context.Context, arg string, to *pg.Server, out *bytes.Buffer) error {
	limit := h.Timeout
	if limit == 0 {
		limit = defaultHookTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took longer than %s", limit))
	defer cancel()
	c := pg.Cmd{Args: h.effect(arg).Run, Env: h.environment(arg, to)}
	if out != nil {
		c.Stdout = out
	}
	// A hook may leave a child behind that keeps its stderr open; it is done
	// all the same.
	if err := (pg.Local{}).Run(ctx, c); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return fmt.Errorf("%s: %w", arg, err)
	}
	return nil
}
