// Wires the page: state in the address, events from the server, and what of both is shown.

import "uplot/dist/uPlot.min.css";
import "./style.css";
import { $, text } from "./dom.js";
import { Live } from "./live.js";
import { clock } from "./numbers.js";
import { WINDOWS, address, followed, read } from "./state.js";
import { Controls } from "./controls.js";
import { Entity } from "./entity.js";
import { Top } from "./top.js";
import { Process } from "./process.js";

let state = read(location.search);
let last = null;

const entity = new Entity();
const top = new Top((id) => go({ entity: id }));
const process = new Process();
const controls = new Controls(go);

const LINKS = {
  connecting: "Connecting…",
  live: "Live",
  lost: "Connection lost, trying again…",
  refused: "Not following",
};

const live = new Live({
  history: (history) => process.history(history),
  series: (series) => entity.series(series),
  tick,
  state: link,
});

function link(name, detail) {
  const pill = $("link");
  if (pill.dataset.state !== name) {
    pill.dataset.state = name;
    document.body.dataset.link = name;
    text($("link-text"), name === "lost" && last ? `${LINKS.lost} Last heard ${clock(last.now)} UTC` : LINKS[name]);
  }
  entity.refused(name === "refused" ? detail : null);
}

function tick(event) {
  last = event;
  document.body.dataset.tick = event.id;
  text($("now"), clock(event.now));
  $("now").dateTime = event.now;
  entity.tick(event, state);
  top.tick(event, state);
  process.tick(event);
  // Somebody who asked for nothing is shown what happens most.
  const first = event.top?.entities?.[0]?.entity_id;
  if (!state.entity && first && location.search === "") go({ entity: first }, true);
}

// Shows another view; `instead` of the one in the address, so that "back" does not lead there.
function go(change, instead = false) {
  const next = { ...state, ...change };
  if (address(next) === address(state)) return;
  history[instead ? "replaceState" : "pushState"](null, "", address(next));
  apply(next);
}

function apply(next) {
  state = next;
  document.title = state.entity ? `${state.entity} · Reckon` : "Reckon";
  controls.show(state);
  entity.follow(state);
  top.follow(state);
  live.follow(followed(state));
}

addEventListener("popstate", () => apply(read(location.search)));

// Themes.

const THEMES = ["system", "light", "dark"];

function theme(name) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  try {
    localStorage.setItem("reckon-theme", name);
  } catch {
    // Then it holds until the page is left.
  }
  text($("theme-button"), `Theme: ${name}`);
  repaint();
}

function repaint() {
  entity.repaint();
  process.repaint();
}

const current = () => document.documentElement.dataset.theme ?? "system";
const nextTheme = () => theme(THEMES[(THEMES.indexOf(current()) + 1) % THEMES.length]);
text($("theme-button"), `Theme: ${current()}`);
$("theme-button").addEventListener("click", nextTheme);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);

// Keys.

const help = $("help");
$("help-button").addEventListener("click", () => help.showModal());

function range(by) {
  const at = WINDOWS.indexOf(state.window);
  const next = WINDOWS[Math.min(Math.max((at < 0 ? 1 : at) + by, 0), WINDOWS.length - 1)];
  go({ window: next, from: "", to: "" });
}

const KEYS = {
  "/": () => controls.search(),
  "?": () => help.showModal(),
  "[": () => range(-1),
  "]": () => range(1),
  c: () => go({ compare: state.compare ? "" : "1" }),
  t: nextTheme,
};

addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, select, textarea, dialog");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
});

apply(state);
