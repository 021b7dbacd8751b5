package report

import (
	"embed"
	"fmt"
	"html/template"
	"io"
	"strings"
)

//go:embed page
var pageFiles embed.FS

var pageTemplate = template.Must(template.New("").Funcs(template.FuncMap{
	"css": func() (template.CSS, error) {
		b, err := pageFiles.ReadFile("page/page.css")
		return template.CSS(b), err
	},
	"script": func() (template.JS, error) { b, err := pageFiles.ReadFile("page/page.js"); return template.JS(b), err },
	"sql":    isSQL,
	"lower":  strings.ToLower,
}).ParseFS(pageFiles, "page/*.html"))

// HTML writes d as one page that needs nothing else: no network, no script
// but for buttons that copy and unfold. More than 20 like effects of a step
// become one, unless full.
func HTML(w io.Writer, d DryRun, full bool) error {
	if err := pageTemplate.ExecuteTemplate(w, "dryrun.html", newSheet(d, full)); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}

// Drawings are the two clusters as they are drawn.
func (s sheet) Drawings() []drawing {
	all := []drawing{s.Old.drawing(), s.New.drawing()}
	for _, c := range s.Others {
		all = append(all, c.drawing())
	}
	return all
}

// When is the time of the dry run.
func (s sheet) When() string { return s.At.UTC().Format("2006-01-02 15:04:05 UTC") }

// fixPart are lines of a fix that go together: SQL, or words.
type fixPart struct {
	SQL  bool
	Text string
}

// FixParts are the fix of a finding, statements apart from what is said of them.
func (f Finding) FixParts() []fixPart {
	var parts []fixPart
	for line := range strings.Lines(f.Fix) {
		line = strings.TrimRight(line, "\n")
		sql := isSQL(line)
		if n := len(parts); n > 0 && parts[n-1].SQL == sql {
			parts[n-1].Text += "\n" + line
			continue
		}
		parts = append(parts, fixPart{sql, line})
	}
	return parts
}

// isSQL: lines that end in a semicolon are statements, as check writes them.
func isSQL(line string) bool { return strings.HasSuffix(strings.TrimSpace(line), ";") }
