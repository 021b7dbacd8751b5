//go:build !linux

package monkey

import "errors"

var errNoMount = errors.New("small file systems are made on Linux only")

func mountSmall(string) error          { return errNoMount }
func readOnlySmall(string, bool) error { return errNoMount }
func unmountSmall(string) error        { return errNoMount }
