"use strict";
// Every text goes into the page through textContent: it is never read as HTML.
(() => {
  const PAGE = 100;
  const cases = JSON.parse(document.getElementById("cases").textContent);
  const at = (id) => document.getElementById(id);
  const rows = at("rows");
  let found = cases;
  let page = 0;

  // Control and direction characters would hide or reorder what is shown.
  const visible = (text) =>
    text
      .replace(/[\u0000-\u0008\u000b-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
      .replace(/[\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");

  const asText = (value) => visible(typeof value === "string" ? value : JSON.stringify(value, null, 1));

  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  const cell = (row, className, text) => row.appendChild(element("td", className, text));

  const oneLine = (value) => (value === undefined ? "" : asText(value).slice(0, 200).replace(/\s+/g, " "));

  const change = (test) => test.change || "";

  const SHOWN_FIRST = ["prompt", "received", "expected", "failure", "explanation", "error", "before"];
  const NAMES = { received: "answer", before: "answer of the earlier run" };
  const SHOWN_ABOVE = ["id", "name", "experiment", "outcome", "change"];

  const details = (test) => {
    const row = element("tr", "details");
    const body = row.appendChild(element("td"));
    body.colSpan = 6;
    body.appendChild(element("p", "soft", visible(test.id)));
    const fields = Object.keys(test);
    for (const field of SHOWN_FIRST.filter((name) => fields.includes(name))) {
      body.appendChild(element("div", "label", NAMES[field] || field));
      body.appendChild(element("pre", "", asText(test[field])));
    }
    const list = body.appendChild(element("dl"));
    for (const field of fields) {
      if (SHOWN_FIRST.includes(field) || SHOWN_ABOVE.includes(field)) continue;
      list.appendChild(element("dt", "", field.replace(/_/g, " ")));
      list.appendChild(element("dd", "", asText(test[field])));
    }
    return row;
  };

  const toggle = (row, test) => {
    const next = row.nextSibling;
    const open = next !== null && next.className === "details";
    if (open) next.remove();
    else row.after(details(test));
    row.setAttribute("aria-expanded", String(!open));
  };

  const caseRow = (test) => {
    const row = element("tr", "case");
    row.tabIndex = 0;
    cell(row, test.outcome, test.outcome);
    cell(row, change(test), change(test));
    cell(row, "", visible(test.experiment));
    cell(row, "id", visible(test.name));
    cell(row, "answer", oneLine(test.received));
    cell(row, "answer soft", oneLine(test.expected));
    row.addEventListener("click", () => toggle(row, test));
    row.addEventListener("keydown", (event) => {
      if (event.key === "Enter") toggle(row, test);
    });
    return row;
  };

  const show = () => {
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    rows.replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map(caseRow));
    at("count").textContent = `${found.length} of ${cases.length} cases, page ${page + 1} of ${pages}`;
    at("back").disabled = page === 0;
    at("next").disabled = page === pages - 1;
  };

  // What the search looks in, made at the first search.
  const texts = new Map();
  const searched = (test) => {
    if (!texts.has(test)) texts.set(test, JSON.stringify(Object.values(test)).toLowerCase());
    return texts.get(test);
  };

  const filter = () => {
    const experiment = at("experiment").value;
    const outcome = at("outcome").value;
    const words = at("search").value.toLowerCase().split(/\s+/).filter(Boolean)
      .map((word) => JSON.stringify(word).slice(1, -1));
    found = cases.filter(
      (test) =>
        (!experiment || test.experiment === experiment) &&
        (!outcome || test.outcome === outcome || change(test) === outcome) &&
        (!words.length || words.every((word) => searched(test).includes(word))),
    );
    page = 0;
    show();
  };

  for (const test of cases) {
    test.name = test.id.includes("[") ? test.id.slice(test.id.indexOf("[") + 1, -1) : test.id;
  }
  for (const name of [...new Set(cases.map((test) => test.experiment))].sort()) {
    const option = at("experiment").appendChild(element("option", "", visible(name)));
    option.value = name;
  }
  let waiting;
  at("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 150);
  });
  for (const id of ["experiment", "outcome"]) at(id).addEventListener("change", filter);
  at("back").addEventListener("click", () => { page -= 1; show(); });
  at("next").addEventListener("click", () => { page += 1; show(); });
  show();
})();
