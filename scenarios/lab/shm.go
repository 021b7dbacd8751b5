package lab

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// dropSharedMemory gives back the small segment of System V shared memory that a killed server leaves: the next start
// would, but there is none. Its number is the second one on line 7 of postmaster.pid.
func (t thing) dropSharedMemory() {
	if t.Kind != "cluster" {
		return
	}
	b, err := os.ReadFile(t.PidFile)
	if err != nil {
		return
	}
	lines := strings.Split(string(b), "\n")
	if len(lines) < 7 {
		return
	}
	fields := strings.Fields(lines[6])
	if len(fields) != 2 {
		return
	}
	if id, err := strconv.Atoi(fields[1]); err == nil {
		_, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil) // gone already is as good
	}
}
