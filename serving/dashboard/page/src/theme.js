// Runs before the first paint, so that the page does not flash in the other colours.
let kept = null;
try {
  kept = localStorage.getItem("reckon-theme");
} catch {
  // A browser that keeps nothing follows the system.
}
if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;

// Some browsers report the language of a POSIX locale (`en-US@posix`), which Intl refuses; the chart library asks it so.
try {
  new Intl.NumberFormat(navigator.language);
} catch {
  Object.defineProperty(navigator, "language", { value: "en-US" });
}
