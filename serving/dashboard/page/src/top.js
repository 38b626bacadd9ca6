// The top list, with ranks that move.

import { $, h, text } from "./dom.js";
import { count, whole } from "./numbers.js";
import { address } from "./state.js";

// Ranks are compared with those of about so long ago.
const BACK_MS = 60000;
const KEEP_EVERY_MS = 5000;
const PRESS_MS = 1000;

export class Top {
  constructor(choose) {
    this.choose = choose;
    this.kept = [];
    this.pressed = 0;
    $("top-body").addEventListener("pointerdown", () => (this.pressed = Date.now()));
    for (const name of ["pointerup", "pointercancel"]) addEventListener(name, () => (this.pressed = 0));
  }

  follow(state) {
    const key = [state.type, state.filter, state.top, state.top_window].join(" ");
    if (key === this.key) return;
    this.key = key;
    this.kept = [];
    // What was asked for before is no answer to this.
    $("top-state").hidden = true;
    delete $("top").dataset.positions;
    $("top-body").replaceChildren(h("p", { class: "empty" }, "Looking…"));
  }

  tick(event, state) {
    // A list that is made anew between press and release would swallow the click.
    if (Date.now() - this.pressed < PRESS_MS) return;
    const list = event.top;
    const chip = $("top-state");
    chip.hidden = false;
    if (!list || list.error) {
      chip.dataset.kind = "bad";
      text(chip, "no answer now");
      chip.title = list?.error ?? "";
      return;
    }
    const of = list.provenance;
    chip.dataset.kind = of.complete ? of.state : "bad";
    text(chip, of.complete ? of.state : "incomplete");
    $("top").dataset.positions = of.partitions.map((at) => `${at.partition}:${at.position}`).join(" ");
    const then = this.then(Date.parse(event.now), list.entities);
    this.show(list.entities, then, state);
  }

  // The ranks of a while ago; none when there were none.
  then(now, entities) {
    const newest = this.kept[this.kept.length - 1];
    if (!newest || now - newest.at >= KEEP_EVERY_MS) {
      this.kept.push({ at: now, ranks: new Map(entities.map((entity) => [entity.entity_id, entity.rank])) });
    }
    while (this.kept.length > 1 && now - this.kept[1].at >= BACK_MS) this.kept.shift();
    return this.kept.length > 1 ? this.kept[0].ranks : null;
  }

  show(entities, then, state) {
    const body = $("top-body");
    if (entities.length === 0) {
      body.replaceChildren(h("p", { class: "empty" }, "Nothing has been counted in this time."));
      return;
    }
    const focused = document.activeElement?.closest?.("#top-body [data-entity]")?.dataset.entity;
    const most = Number(whole(entities[0].count)) || 1;
    const rows = entities.map((entity) => this.row(entity, then, state, most));
    const head = h("thead", {}, h("tr", {}, [["#", "number"], ["Moved", null], ["Entity", null], ["Count", "number"]].map(([name, kind]) => h("th", { scope: "col", class: kind }, name))));
    const made = h("table", { class: "top" }, h("caption", { class: "away" }, "Entities by count, with how their rank has moved within a minute"), head, h("tbody", {}, rows));
    body.replaceChildren(h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Ranks" }, made));
    for (const row of rows) row.querySelector(".fill").style.width = `${(100 * Number(row.dataset.count)) / most}%`;
    if (focused) body.querySelector(`[data-entity="${CSS.escape(focused)}"] a`)?.focus({ preventScroll: true });
  }

  row(entity, then, state) {
    const id = entity.entity_id;
    const link = h(
      "a",
      {
        href: address({ ...state, entity: id }),
        "aria-current": id === state.entity ? "true" : null,
        on: {
          click: (event) => {
            if (event.ctrlKey || event.metaKey || event.shiftKey) return;
            event.preventDefault();
            this.choose(id);
          },
        },
      },
      entity.title ?? id,
    );
    const moved = movement(entity.rank, then, id);
    const more = [entity.title ? id : null, entity.channel].filter(Boolean).join(" · ");
    return h(
      "tr",
      { "data-entity": id, "data-count": String(entity.count), "data-title": entity.title },
      h("td", { class: "number rank" }, String(entity.rank)),
      h("td", { class: `moved ${moved.kind}` }, h("span", { "aria-hidden": "true" }, moved.sign), h("span", { class: "away" }, moved.said)),
      h("th", { scope: "row" }, link, more ? h("small", {}, more) : null, h("span", { class: "rule", "aria-hidden": "true" }, h("span", { class: "fill" }))),
      h("td", { class: "number" }, count(entity.count)),
    );
  }
}

function movement(rank, then, id) {
  if (!then) return { kind: "same", sign: "·", said: "not known yet" };
  const was = then.get(id);
  if (was === undefined) return { kind: "up", sign: "new", said: "new on the list" };
  if (was === rank) return { kind: "same", sign: "·", said: "has not moved" };
  return was > rank ? { kind: "up", sign: `▲${was - rank}`, said: `up ${was - rank}` } : { kind: "down", sign: `▼${rank - was}`, said: `down ${rank - was}` };
}
