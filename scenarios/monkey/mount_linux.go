package monkey

import "golang.org/x/sys/unix"

// mountSmall makes a folder a file system of one megabyte; it needs root.
func mountSmall(dir string) error { return unix.Mount("none", dir, "tmpfs", 0, "size=1m,mode=0755") }

// readOnlySmall makes it read-only, or writable again.
func readOnlySmall(dir string, readOnly bool) error {
	flags := uintptr(unix.MS_REMOUNT)
	if readOnly {
		flags |= unix.MS_RDONLY
	}
	return unix.Mount("none", dir, "tmpfs", flags, "size=1m,mode=0755")
}

func unmountSmall(dir string) error { return unix.Unmount(dir, unix.MNT_DETACH) }
