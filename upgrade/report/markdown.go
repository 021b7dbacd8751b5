package report

import (
	"io"
	"strings"
)

// Markdown writes d as Markdown: the same as HTML says, but for the drawing,
// which is a list. More than 20 like effects of a step become one, unless full.
func Markdown(w io.Writer, d DryRun, full bool) error {
	s := newSheet(d, full)
	p := newPage(w)
	p.printf("# Dry run of %s%s\n\n", plainMD(d.Upgrade), versionsMD(d))
	p.printf("%s, runbook `%s`%s. Nothing was touched.\n\n", s.When(), codeMD(d.Runbook), parted(", phase ", string(d.Phase)))
	word := "GO"
	if !s.Verdict.Go {
		word = "NO-GO"
	}
	p.printf("## %s\n\n", word)
	for _, r := range s.Verdict.Reasons {
		p.printf("- %s\n", plainMD(r))
	}
	if len(s.Databases) > 0 {
		p.printf("\n| | | |\n| --- | --- | --- |\n")
		for _, t := range s.Tiles {
			p.printf("| %s | **%s** | %s |\n", cellMD(t.Label), cellMD(t.Value), cellMD(t.Sub))
		}
	}
	s.findingsMD(p)
	if d.Old.Name != "" {
		p.printf("\n## The clusters\n")
		for _, c := range append([]Cluster{d.Old, d.New}, d.Others...) {
			c.markdown(p)
		}
		for _, t := range d.Traffic {
			p.printf("\n%s\n", plainMD(t))
		}
	}
	s.sizesMD(p)
	s.figuresMD(p)
	s.plansMD(p)
	p.printf("\n| planned by, date | reviewed by, date | approved by, date |\n| --- | --- | --- |\n| | | |\n")
	return p.err
}

func versionsMD(d DryRun) string {
	if d.Old.Version == "" {
		return ""
	}
	return plainMD(": PostgreSQL " + d.Old.Version + " to " + d.New.Version)
}

func (s sheet) findingsMD(p *page) {
	p.printf("\n## Findings\n\n")
	if len(s.Groups) == 0 {
		p.printf("No findings: nothing blocks the upgrade.\n")
	}
	for _, g := range s.Groups {
		p.printf("### %s: `%s`\n\n", g.Word(), codeMD(g.ID))
		for _, f := range append(g.Findings, g.More...) {
			p.printf("- **%s**: %s\n", plainMD(f.Where()), plainMD(oneLine(f.Says)))
			f.Grid.markdown(p)
			fixMD(p, "  ", f.FixParts())
		}
		fixMD(p, "", g.FixParts())
		p.printf("\n")
	}
	if s.Undrawn != "" {
		p.printf("No plan could be drawn: %s\n", plainMD(oneLine(s.Undrawn)))
	}
}

// markdown writes a table of its own, below the point that it belongs to.
func (g *Grid) markdown(p *page) {
	if g == nil {
		return
	}
	row := func(cells []string) {
		p.printf("  |")
		for _, c := range cells {
			p.printf(" %s |", cellMD(c))
		}
		p.printf("\n")
	}
	p.printf("\n")
	row(g.Columns)
	p.printf("  |%s\n", strings.Repeat(" --- |", len(g.Columns)))
	for _, r := range g.Rows {
		row(r)
	}
}

func fixMD(p *page, indent string, parts []fixPart) {
	for _, part := range parts {
		if part.SQL {
			fenceMD(p, indent, "sql", part.Text)
			continue
		}
		for line := range strings.Lines(part.Text) {
			p.printf("\n%sFix: %s\n", indent, plainMD(strings.TrimSpace(line)))
		}
	}
}

// fenceMD writes a block of code, whatever back quotes are in it.
func fenceMD(p *page, indent, language, text string) {
	fence := "```"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	p.printf("\n%s%s%s\n", indent, fence, language)
	p.indented(indent, text)
	p.printf("%s%s\n", indent, fence)
}

func (c Cluster) markdown(p *page) {
	p.printf("\n- **%s**, primary%s%s%s\n", plainMD(c.Name), plainMD(parted(", PostgreSQL ", c.Version)), plainMD(parted(", ", c.Address)), plainMD(parted(", site ", c.Site)))
	switch {
	case c.Silent != "":
		p.printf("  does not answer: %s\n", plainMD(oneLine(c.Silent)))
	case c.Synchronous != "":
		p.printf("  commits wait for `%s`\n", codeMD(c.Synchronous))
	}
	seen := map[int]bool{}
	var below func(upstream, indent string)
	below = func(upstream, indent string) {
		for i, n := range c.Nodes {
			if n.Upstream != upstream || seen[i] {
				continue
			}
			seen[i] = true
			p.printf("%s- **%s**%s\n", indent, plainMD(n.Name), plainMD(n.words()))
			if len(indent) < 20 {
				below(n.Name, indent+"  ")
			}
		}
	}
	below("", "  ")
	for i, n := range c.Nodes { // whose upstream is not known
		if !seen[i] {
			p.printf("  - **%s**, following %s%s\n", plainMD(n.Name), plainMD(n.Upstream), plainMD(n.words()))
		}
	}
}

// words are what there is to say of a standby.
func (n Node) words() string {
	var b strings.Builder
	for _, s := range []string{n.Address, prefixed("site ", n.Site)} {
		b.WriteString(parted(", ", s))
	}
	switch {
	case n.Planned:
		b.WriteString(", to be built")
	case n.State == "":
		b.WriteString(", not connected")
	default:
		b.WriteString(", " + n.State + parted(", ", n.SyncState))
	}
	if n.AppName != "" && n.AppName != n.Name {
		b.WriteString(", calls itself " + n.AppName)
	}
	if n.Delay > 0 {
		b.WriteString(", applies after " + n.Delay.String())
	}
	if n.Unlisted {
		b.WriteString(", not in the runbook")
	}
	return b.String()
}

func (s sheet) sizesMD(p *page) {
	if len(s.Sizes) == 0 {
		return
	}
	p.printf("\n## Sizes\n")
	for _, d := range s.Sizes {
		p.printf("\n%s: %s of rows, %s of indexes, %s\n", plainMD(d.Name), d.Rows, d.Indexes, plural(d.Tables, "table"))
		p.printf("\n| | rows | indexes | |\n| --- | ---: | ---: | --- |\n")
		for _, b := range d.SetBars {
			p.printf("| set %s | %s | %s | %s |\n", cellMD(b.Label), b.Rows, b.Indexes, cellMD(b.Sub))
		}
		for _, b := range d.TableBars {
			p.printf("| %s | %s | %s | %s |\n", cellMD(b.Label), b.Rows, b.Indexes, cellMD(b.Sub))
		}
	}
}

func (s sheet) figuresMD(p *page) {
	if len(s.Figures) == 0 {
		return
	}
	p.printf("\n## Forecast\n\n%s.\n\n| | forecast | took |\n| --- | ---: | ---: |\n", plainMD(s.Sampled))
	for _, f := range s.Figures {
		p.printf("| %s | %s | %s |\n", cellMD(f.Title), cellMD(f.Value), cellMD(f.Actual))
	}
	for _, f := range s.Figures {
		p.printf("\n**%s** = %s", plainMD(f.Label), plainMD(f.Formula))
		if f.Says != "" {
			p.printf("; %s", plainMD(f.Says))
		}
		p.printf("\n\n")
		if len(f.TermRows) > 0 {
			p.printf("| | | | |\n| --- | ---: | --- | --- |\n")
		}
		for _, t := range f.TermRows {
			p.printf("| %s | %s | %s | %s |\n", cellMD(t.Name), cellMD(t.Value), t.How, cellMD(t.Says))
		}
	}
}

func (s sheet) plansMD(p *page) {
	for _, plan := range s.Plans {
		p.printf("\n## Plan %s\n\n%s\n", plan.Name, plainMD(plan.Sub))
		for _, st := range plan.Steps {
			p.printf("\n### %d. `%s` %s%s%s\n", st.N, codeMD(st.ID), plainMD(st.Title), prefixed(" — ", plainMD(st.Takes)), pointMD(st.After()))
			for _, e := range st.Effects {
				language := "sql"
				if e.Program {
					language = "sh"
				}
				if e.Where != "" {
					p.printf("\n%s\n", plainMD(e.Where))
				}
				fenceMD(p, "", language, e.Text)
				if e.More != "" {
					p.printf("\n… and %s more like it\n", e.More)
				}
			}
		}
	}
}

func pointMD(after string) string {
	if after == "" {
		return ""
	}
	return " — **" + plainMD(after) + "**"
}

// specials are what Markdown or the HTML inside it would take for its own.
var specials = strings.NewReplacer(`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "[", `\[`, "]", `\]`, "<", "&lt;", ">", "&gt;", "&", "&amp;", "|", `\|`, "#", `\#`, "~", `\~`, "://", `\://`, "www.", `www\.`)

// plainMD is text that means nothing to Markdown: no name makes a heading, a
// link, an image or HTML of its own, and none leaves its line.
func plainMD(s string) string { return specials.Replace(oneLine(s)) }

// cellMD is text in a cell of a table.
func cellMD(s string) string { return plainMD(s) }

// codeMD is text between back quotes, which would end with the paragraph.
func codeMD(s string) string { return strings.ReplaceAll(oneLine(s), "`", "'") }
