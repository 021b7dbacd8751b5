// Command crossfade moves a PostgreSQL cluster to a new major version by
// logical replication: old keeps serving while new is filled, kept in step and
// surrounded by its standbys, and takes over in one short, provable cutover.
//
// This package parses, asks, prints and maps errors to exit codes; it decides
// nothing about an upgrade. What users and their scripts rely on is in
// docs/contract.md, and a test holds it against this program's help.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"crossfade/upgrade/exit"
)

func main() {
	os.Exit(crossfade(os.Args[1:]))
}

// memory is what the garbage collector works harder to stay below. The plans of
// 10,000 tables hold some 100 MB, and are to fit into 150 MB with the program.
const memory = 125 << 20

// crossfade is the whole program: it returns the exit code.
func crossfade(args []string) int {
	// A panic of a goroutine that nobody can catch ends a Go program with exit
	// code 2, which is the code of bad usage. With crash it ends by SIGABRT.
	debug.SetTraceback("crash")
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memory)
	}
	out := newOutput(os.Stdin, os.Stdout, os.Stderr)
	out.json = wantsJSON(args)
	defer profiled(out.sayf)()
	ctx, stop := signals(context.Background(), func(cause error) {
		if !out.onlyReads() { // else there is nothing to undo, and nothing to wait for
			out.sayf("%v: ending, and undoing first what must be undone; a second signal kills", cause)
		}
	})
	defer stop()
	err := protect(func() error { return newApp(out).RunContext(ctx, append([]string{"crossfade"}, hoist(args)...)) })
	return out.end(ctx, err)
}

// protect turns a panic into an error.
func protect(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &crash{value: v, stack: debug.Stack()}
		}
	}()
	return f()
}

// crash is a panic that no step has caught.
type crash struct {
	value any
	stack []byte
}

func (c *crash) Error() string { return fmt.Sprintf("a bug in crossfade: panic: %v", c.value) }

// signals returns a context that the first SIGINT, SIGTERM or SIGHUP cancels,
// with a cause that says so; tell hears of it first. A second one kills: the
// default is restored.
//
// A pipe that nobody reads any more must not kill a process that holds a
// fence: SIGPIPE is taken, so that the write fails instead. It is not ignored,
// because children would inherit that.
func signals(parent context.Context, tell func(cause error)) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	end := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		end = append(end, syscall.SIGHUP)
	}
	got := make(chan os.Signal, 1)
	signal.Notify(got, end...)
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE)
	done := make(chan struct{})
	go func() {
		select {
		case s := <-got:
			signal.Reset(end...)
			cause := fmt.Errorf("%w by %s", exit.ErrInterrupted, signalName(s))
			tell(cause)
			cancel(cause)
		case <-done:
		}
	}()
	return ctx, func() {
		signal.Reset(end...)
		close(done)
		cancel(nil)
	}
}

func signalName(s os.Signal) string {
	switch s {
	case syscall.SIGINT:
		return "SIGINT"
	case syscall.SIGTERM:
		return "SIGTERM"
	case syscall.SIGHUP:
		return "SIGHUP"
	}
	return s.String()
}
