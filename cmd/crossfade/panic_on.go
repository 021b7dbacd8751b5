//go:build crossfade_panic

package main

import (
	"os"

	"crossfade/upgrade/flow"
)

// injected is observe with a panic at the beginning of the step that
// CROSSFADE_PANIC names: for the tests that show what becomes of a bug. No
// released binary has it.
func injected(observe func(flow.Event)) func(flow.Event) {
	step := os.Getenv("CROSSFADE_PANIC")
	return func(e flow.Event) {
		observe(e)
		if step != "" && e.Kind == flow.Begin && e.Step == step {
			panic("CROSSFADE_PANIC: " + step)
		}
	}
}
