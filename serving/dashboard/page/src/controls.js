// The form that chooses a view, and the search for an entity.

import { $, h } from "./dom.js";

const LISTED_MAX = 8;
const WAIT = 150;

const utc = (local) => (local ? `${local.slice(0, 16)}:00Z` : "");

// A time of the address, RFC 3339 or epoch milliseconds, as the form has it; none of what is no time.
function local(time) {
  const at = new Date(/^-?\d+$/.test(time) ? Number(time) : time);
  return time && !Number.isNaN(at.getTime()) ? at.toISOString().slice(0, 16) : "";
}

export class Controls {
  constructor(go) {
    this.go = go;
    this.found = [];
    this.at = -1;
    const form = $("controls");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.leave();
      go(this.chosen());
    });
    form.addEventListener("change", (event) => {
      this.between();
      if (event.target.id !== "search" && this.isWhole()) go(this.chosen());
    });
    const search = $("search");
    search.addEventListener("input", () => this.later());
    search.addEventListener("keydown", (event) => this.key(event));
    search.addEventListener("blur", () => this.fold());
    $("top-window").addEventListener("change", (event) => go({ top_window: event.target.value }));
    $("top-n").addEventListener("change", (event) => go({ top: event.target.value }));
  }

  show(state) {
    for (const name of ["type", "filter"]) $(name).value = state[name];
    select($("step"), state.step);
    $("search").value = state.entity;
    select($("window"), state.window || "custom");
    $("from").value = local(state.from);
    $("to").value = local(state.to);
    $("compare").checked = Boolean(state.compare);
    select($("top-window"), state.top_window);
    select($("top-n"), state.top);
    this.between();
  }

  // What the form says.
  chosen() {
    const custom = $("window").value === "custom";
    return {
      entity: $("search").value.trim(),
      type: $("type").value.trim(),
      filter: $("filter").value.trim(),
      step: $("step").value,
      compare: $("compare").checked ? "1" : "",
      window: custom ? "" : $("window").value,
      from: custom ? utc($("from").value) : "",
      to: custom ? utc($("to").value) : "",
    };
  }

  isWhole() {
    return $("window").value !== "custom" || ($("from").value !== "" && $("to").value !== "");
  }

  between() {
    const custom = $("window").value === "custom";
    for (const field of document.querySelectorAll(".between")) field.hidden = !custom;
  }

  search() {
    $("search").focus();
    $("search").select();
  }

  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look(), WAIT);
  }

  async look() {
    const wanted = $("search").value.trim();
    const entities = wanted ? await lookUp(wanted) : [];
    if ($("search").value.trim() !== wanted || document.activeElement !== $("search")) return;
    this.found = entities;
    this.at = -1;
    this.list();
  }

  list() {
    const options = this.found.map(({ id, title }, index) =>
      h(
        "li",
        {
          role: "option",
          id: `found-${index}`,
          "aria-selected": String(index === this.at),
          on: { mousedown: (event) => event.preventDefault(), click: () => this.take(index) },
        },
        h("span", {}, title ?? id),
        title ? h("small", {}, id) : null,
      ),
    );
    $("found").replaceChildren(...options);
    $("found").hidden = options.length === 0;
    const search = $("search");
    search.setAttribute("aria-expanded", String(options.length > 0));
    if (this.at >= 0) search.setAttribute("aria-activedescendant", `found-${this.at}`);
    else search.removeAttribute("aria-activedescendant");
  }

  key(event) {
    if (event.key === "Escape") {
      if (this.found.length) this.fold();
      else $("search").blur();
    } else if (event.key === "Enter" && this.at >= 0) {
      event.preventDefault();
      this.take(this.at);
    } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && this.found.length) {
      event.preventDefault();
      const by = event.key === "ArrowDown" ? 1 : -1;
      this.at = (this.at + by + this.found.length) % this.found.length;
      this.list();
    }
  }

  take(index) {
    $("search").value = this.found[index].id;
    this.leave();
    this.go(this.chosen());
  }

  // What was searched for is found: keys mean shortcuts again.
  leave() {
    this.fold();
    if (document.activeElement === $("search")) $("entity").focus({ preventScroll: true });
  }

  fold() {
    clearTimeout(this.timer);
    this.found = [];
    this.at = -1;
    this.list();
  }
}

// A value that an address may hold although the list does not offer it.
function select(element, value) {
  if (![...element.options].some((option) => option.value === value)) element.append(h("option", { value }, value));
  element.value = value;
}

let searchable = null;

// Whether this server knows titles of entities.
async function canSearch() {
  searchable ??= fetch("/openapi.json")
    .then((answer) => answer.json())
    .then((document) => Boolean(document.paths?.["/v1/entities"]?.get))
    .catch(() => {
      searchable = null;
      return false;
    });
  return searchable;
}

async function lookUp(wanted) {
  const lower = wanted.toLowerCase();
  const listed = [...document.querySelectorAll("#top-body [data-entity]")].map((row) => ({ id: row.dataset.entity, title: row.dataset.title || null }));
  const here = listed.filter(({ id, title }) => id.toLowerCase().includes(lower) || title?.toLowerCase().includes(lower));
  const known = await knownAs(wanted);
  const all = new Map([...known, ...here].map((entity) => [entity.id, entity]));
  return [...all.values()].slice(0, LISTED_MAX);
}

// Entities that the server knows by id or title, and ids that only have counts.
async function knownAs(wanted) {
  if (!(await canSearch())) return [];
  try {
    const answer = await fetch(`/v1/entities?${new URLSearchParams({ search: wanted, limit: LISTED_MAX })}`);
    if (!answer.ok) return [];
    const { entities = [], counted = [] } = await answer.json();
    return [...entities.map((entity) => ({ id: entity.entity_id, title: entity.title ?? null })), ...counted.map((id) => ({ id, title: null }))];
  } catch {
    // What the list shows will do.
    return [];
  }
}

// The title of an entity; null when none is known.
export async function titleOf(id) {
  return (await knownAs(id)).find((entity) => entity.id === id)?.title ?? null;
}
