// Small helpers: everything from the server becomes text, never markup.

export const $ = (id) => document.getElementById(id);

export function h(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") made.className = value;
    else if (name === "on") for (const [event, act] of Object.entries(value)) made.addEventListener(event, act);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

// A number whose exact value tests and scripts can read too.
export function number(element, shown, exact) {
  text(element, shown);
  element.dataset.value = exact === null || exact === undefined ? "" : String(exact);
}

export function table(caption, columns, rows) {
  const cell = (value, index) => {
    const right = columns[index].number ? "number" : columns[index].time ? "time" : null;
    const shown = value instanceof Node ? value : String(value);
    return index === 0 ? h("th", { scope: "row", class: right }, shown) : h("td", { class: right }, shown);
  };
  return h(
    "table",
    {},
    h("caption", {}, caption),
    h("thead", {}, h("tr", {}, columns.map(({ name, number }) => h("th", { scope: "col", class: number ? "number" : null }, name)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, row.map(cell)))),
  );
}
