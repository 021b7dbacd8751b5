(function () {
  "use strict";
  document.documentElement.classList.add("js");
  function text(pre, done) {
    function fallback() {
      var range = document.createRange(), sel = window.getSelection();
      range.selectNodeContents(pre);
      sel.removeAllRanges();
      sel.addRange(range);
      done(document.execCommand("copy"));
    }
    if (navigator.clipboard) {
      navigator.clipboard.writeText(pre.textContent).then(function () { done(true); }, fallback);
    } else {
      fallback();
    }
  }
  document.addEventListener("click", function (e) {
    var b = e.target.closest("button");
    if (!b) return;
    if (b.dataset.unfold) {
      var all = document.getElementById(b.dataset.unfold).querySelectorAll("details");
      var open = !Array.prototype.some.call(all, function (d) { return d.open; });
      all.forEach(function (d) { d.open = open; });
      b.textContent = open ? "fold all" : "unfold all";
      return;
    }
    text(b.parentNode.querySelector("pre"), function (ok) {
      b.textContent = ok ? "copied" : "marked";
      setTimeout(function () { b.textContent = "copy"; }, 1500);
    });
  });
})();
