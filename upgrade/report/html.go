package report

import "io"

func HTML(w io.Writer, d DryRun, full bool) error     { return nil }
func Markdown(w io.Writer, d DryRun, full bool) error { return nil }
