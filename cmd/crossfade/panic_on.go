//go:build crossfade_panic

package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"crossfade/upgrade/flow"
)

// injected is observe with what a test wants to happen at the beginning of a
// step, after the event and before the step does anything. No released binary
// has it.
//
//	CROSSFADE_PANIC=<step>        a bug: it panics
//	CROSSFADE_KILL=<step>[+<d>]   it is killed, d later than it begins
//	CROSSFADE_KILL=!<step>,…      it is killed at the first step that is not named, and says at which
//	CROSSFADE_STOP=<step>         it is stopped, until somebody wakes it; once,
//	                              however often the step is tried again
func injected(observe func(flow.Event)) func(flow.Event) {
	kill, late, delayed := strings.Cut(os.Getenv("CROSSFADE_KILL"), "+")
	named, others := strings.CutPrefix(kill, "!")
	var stop sync.Once
	return func(e flow.Event) {
		observe(e)
		if e.Kind != flow.Begin {
			return
		}
		if others && !slices.Contains(strings.Split(named, ","), e.Step) {
			fmt.Fprintln(os.Stderr, "killed at "+e.Step) // what is printed else may be lost
			raise(syscall.SIGKILL)
		}
		switch e.Step {
		case os.Getenv("CROSSFADE_PANIC"):
			panic("CROSSFADE_PANIC: " + e.Step)
		case os.Getenv("CROSSFADE_STOP"):
			stop.Do(func() { raise(syscall.SIGSTOP) })
		case kill:
			d, err := time.ParseDuration(late)
			if delayed && err == nil {
				time.AfterFunc(d, func() { raise(syscall.SIGKILL) })
				return
			}
			raise(syscall.SIGKILL)
		}
	}
}

// raise sends a signal to the very thread that runs the step. One that is sent
// to the process may be taken by another thread, while the step goes on.
func raise(s syscall.Signal) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := syscall.Tgkill(os.Getpid(), syscall.Gettid(), s); err != nil {
		panic(err)
	}
}
