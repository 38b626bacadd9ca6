// The state of the view. The address holds all of it, so that a link leads to the very view and back and forward work.

const FIELDS = ["entity", "type", "filter", "window", "from", "to", "step", "compare", "top", "top_window"];
export const WINDOWS = ["15m", "1h", "6h", "24h", "7d", "30d"];
const DEFAULTS = { window: "1h", top: "10", top_window: "1h" };
const STEPS = { "15m": "1m", "1h": "1m", "6h": "5m", "24h": "15m", "7d": "1h", "30d": "6h" };

export function read(search) {
  const given = new URLSearchParams(search);
  const state = Object.fromEntries(FIELDS.map((name) => [name, given.get(name) ?? DEFAULTS[name] ?? ""]));
  if (state.from || state.to) state.window = "";
  return state;
}

// The address of a state; what is as always is left out.
export function address(state) {
  const query = new URLSearchParams();
  for (const name of FIELDS) {
    const value = state[name];
    if (value && value !== DEFAULTS[name]) query.set(name, value);
  }
  const text = query.toString();
  return text ? `?${text}` : "/";
}

function auto(state) {
  if (STEPS[state.window]) return STEPS[state.window];
  const [from, to] = [Date.parse(state.from), state.to ? Date.parse(state.to) : Date.now()];
  const minutes = (to - from) / 60000;
  if (!(minutes > 180)) return "1m";
  return minutes <= 1440 ? "5m" : minutes <= 20160 ? "1h" : "1d";
}

// What the server is asked to follow.
export function followed(state) {
  const query = new URLSearchParams({ top: state.top, top_window: state.top_window });
  for (const name of ["type", "filter"]) if (state[name]) query.set(name, state[name]);
  if (state.entity) {
    query.set("entity", state.entity);
    query.set("step", state.step || auto(state));
    for (const name of ["window", "from", "to"]) if (state[name]) query.set(name, state[name]);
  }
  return query.toString();
}
