// Keys, copying, and Ctrl-Enter; everything else is the server's.
document.addEventListener("keydown", event => {
  if (event.target.matches("textarea[data-submit]") && event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.target.form.requestSubmit();
    return;
  }
  if (event.target.matches("input, textarea, select") || event.metaKey || event.ctrlKey || event.altKey) return;
  const all = [...document.querySelectorAll("#steps > li.step, #list tbody tr")];
  const at = all.findIndex(one => one.classList.contains("at"));
  const go = index => {
    const one = all[Math.max(0, Math.min(all.length - 1, index))];
    if (!one) return;
    mark(one, all);
    one.scrollIntoView({ block: "nearest" });
    if (one.matches("li")) one.querySelector("a").click();
  };
  if (event.key === "j") go(at + 1);
  else if (event.key === "k") go(at - 1);
  else if (event.key === "Enter" && at >= 0 && document.activeElement === document.body) all[at].querySelector("a").click();
  else if (event.key === "f") document.querySelector('[data-key="f"]')?.click();
  else if (event.key === "u") location.href = "/";
  else if (event.key === "/") {
    event.preventDefault();
    document.querySelector('[data-key="/"]')?.focus();
  }
});

function mark(one, all) {
  for (const other of all) {
    other.classList.toggle("at", other === one);
    const link = other.querySelector("a");
    if (link?.closest("#steps")) other === one ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
  }
}

document.addEventListener("click", event => {
  const step = event.target.closest("#steps > li.step");
  if (step) mark(step, [...document.querySelectorAll("#steps > li.step")]);
  const copy = event.target.closest("[data-copy]");
  if (copy) {
    navigator.clipboard.writeText(copy.dataset.copy);
    copy.textContent = "copied";
  }
});
