package labtest

import (
	"encoding/json"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"crossfade/scenarios/lab"
)

// Browser is a headless Chromium; a missing one is treated as Need does.
func Browser(tb testing.TB) lab.Browser {
	tb.Helper()
	return lab.Browser{Path: Program(tb, "chromium"), Dir: tb.TempDir()}
}

// listen is run in a page before anything else.
const listen = `<script>var seen = []; addEventListener("error", function (e) { seen.push(e.message); }); addEventListener("unhandledrejection", function (e) { seen.push(String(e.reason)); });</script>`

// look is run in a page when it is there: it unfolds everything, presses every button, and finds what is wider than its place.
const look = `<script>
addEventListener("load", function () {
  var wide = [], d = document;
  function name(e) { return e.tagName.toLowerCase() + (typeof e.className === "string" && e.className ? "." + e.className : "") + " " + JSON.stringify((e.textContent || "").trim().slice(0, 60)); }
  try {
    d.querySelectorAll("details").forEach(function (e) { e.open = true; });
    d.querySelectorAll("*").forEach(function (e) {
      if (e.closest("svg") && e.tagName !== "svg") return;
      if (getComputedStyle(e).display.indexOf("inline") !== 0 && e.clientWidth > 0 && e.scrollWidth > e.clientWidth) wide.push(name(e) + ": " + e.scrollWidth + " in " + e.clientWidth);
    });
    d.querySelectorAll("svg text").forEach(function (e) {
      var place = e.ownerSVGElement.viewBox.baseVal, box = e.getBBox();
      if (box.x < place.x || box.x + box.width > place.x + place.width) wide.push(name(e) + ": " + box.width + " at " + box.x + " in a drawing of " + place.width);
    });
    d.querySelectorAll("svg g").forEach(function (g) {
      var boxes = Array.prototype.map.call(g.querySelectorAll("text"), function (e) { return [e, e.getBBox()]; });
      boxes.forEach(function (a, i) { boxes.slice(i + 1).forEach(function (b) {
        var x = a[1], y = b[1];
        if (x.width && y.width && x.x < y.x + y.width && y.x < x.x + x.width && x.y + 3 < y.y + y.height && y.y + 3 < x.y + x.height) wide.push(name(a[0]) + " covers " + name(b[0]));
      }); });
    });
    d.querySelectorAll("button").forEach(function (e) { e.click(); });
  } catch (e) { seen.push(String(e)); }
  setTimeout(function () { parent.postMessage({ form: name_of_form, asked: width_asked, width: innerWidth, wide: wide, thrown: seen }, "*"); }, 50);
});
</script>`

// A frame is as wide as it is asked to be; a window has a least width.
const frames = `<!doctype html><html><head><script>
addEventListener("message", function (e) { var p = document.createElement("pre"); p.className = "looked"; p.textContent = JSON.stringify(e.data); document.body.appendChild(p); });
</script></head><body>%s</body></html>`

var looked = regexp.MustCompile(`<pre class="looked">(.*?)</pre>`)

// Page opens an HTML page in places of several widths, and as it is printed, unfolds and presses what can be, and tells what
// was wider than its place or threw. There is nothing to report of a good page.
func Page(tb testing.TB, b lab.Browser, page string, widths ...int) []string {
	tb.Helper()
	head, rest, ok := strings.Cut(page, "<head>")
	body, end, ok2 := strings.Cut(rest, "</body>")
	if !ok || !ok2 {
		tb.Fatal("the page has no head or no end")
	}
	var all strings.Builder
	for _, form := range []string{"screen", "paper"} {
		text := head + "<head>" + listen + body + strings.ReplaceAll(look, "name_of_form", `"`+form+`"`) + "</body>" + end
		if form == "paper" {
			text = strings.ReplaceAll(text, "@media print", "@media all")
		}
		for _, width := range widths {
			fmt.Fprintf(&all, "<iframe style=\"width: %dpx; height: 800px; border: 0\" srcdoc=\"%s\"></iframe>\n",
				width, html.EscapeString(strings.ReplaceAll(text, "width_asked", fmt.Sprint(width))))
		}
	}
	path := filepath.Join(tb.TempDir(), "page.html")
	if err := os.WriteFile(path, fmt.Appendf(nil, frames, all.String()), 0o644); err != nil {
		tb.Fatal(err)
	}
	dom, err := b.Dump(tb.Context(), path, 1600)
	if err != nil {
		tb.Fatal(err)
	}
	var says []string
	found := looked.FindAllStringSubmatch(dom, -1)
	for _, m := range found {
		var got struct {
			Form         string
			Asked, Width int
			Wide, Thrown []string
		}
		if err := json.Unmarshal([]byte(html.UnescapeString(m[1])), &got); err != nil {
			tb.Fatal(err)
		}
		if got.Width != got.Asked {
			tb.Fatalf("the place is %d wide, not %d", got.Width, got.Asked)
		}
		for _, s := range append(got.Wide, got.Thrown...) {
			says = append(says, fmt.Sprintf("on %s, %d wide: %s", got.Form, got.Asked, s))
		}
	}
	if len(found) != 2*len(widths) {
		tb.Fatalf("the page was looked at %d times, not %d: %.2000s", len(found), 2*len(widths), strings.Join(says, "\n"))
	}
	return says
}
