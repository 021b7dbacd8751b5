package main

import (
	"os"
	"runtime/pprof"
)

// profileTo is the environment variable that names the file into which the CPU
// profile of a command is written, for go tool pprof. Empty: none is taken.
const profileTo = "CROSSFADE_CPUPROFILE"

// profiled begins a profile where one was asked for; the returned function ends
// it. A profile that cannot be written is reported, and changes nothing else.
func profiled(tell func(format string, args ...any)) (end func()) {
	path := os.Getenv(profileTo)
	if path == "" {
		return func() {}
	}
	f, err := os.Create(path)
	if err == nil {
		err = pprof.StartCPUProfile(f)
	}
	if err != nil {
		tell("no profile (%s): %v", profileTo, err)
		return func() {}
	}
	return func() {
		pprof.StopCPUProfile()
		if err := f.Close(); err != nil {
			tell("the profile is not whole: %v", err)
		}
	}
}
