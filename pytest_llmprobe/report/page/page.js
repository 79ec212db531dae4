"use strict";
// Every text goes into the page through textContent: it is never read as HTML.
(() => {
  const PAGE = 100;
  const cases = JSON.parse(document.getElementById("cases").textContent);
  const at = (id) => document.getElementById(id);
  const prompts = JSON.parse(at("prompts").textContent);
  const rows = at("rows");
  let found = [...cases];
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

  const SHOWN_FIRST = ["explanation", "error", "received", "before", "expected", "prompt"];
  const NAMES = { received: "answer", before: "answer of the earlier run" };
  const SHOWN_ABOVE = ["id", "name", "experiment", "outcome", "change", "diff", "fidelity"];

  const labelled = (body, text) => body.appendChild(element("div", "label", text));

  // The two answers of a flipped case side by side; words of one alone are marked in it.
  const sideBySide = (test) => {
    const both = element("div", "sides");
    for (const [side, name] of [[1, NAMES.before], [2, "answer"]]) {
      const part = both.appendChild(element("div"));
      labelled(part, name);
      const pre = part.appendChild(element("pre"));
      for (const piece of test.diff) {
        if (piece[side]) pre.appendChild(element("span", piece[0] ? "changed" : "", visible(piece[side])));
      }
    }
    return both;
  };

  // How far the likeliest words of both models are apart at each token, in nats.
  const STEPS = [0.01, 0.1, 0.5, 2];
  const coloured = (found) => {
    const pre = element("pre", "tokens");
    found.pieces.forEach((piece, n) => {
      const step = STEPS.filter((least) => found.kl[n] >= least).length;
      const token = pre.appendChild(element("span", `kl${step}`, visible(piece)));
      if (!found.agrees[n]) token.className += " other";
      token.title = `${found.kl[n]} nats${found.agrees[n] ? "" : ", another word is likeliest"}`;
    });
    return pre;
  };

  // A long prompt has lost its middle: the whole one is here, compressed, or beside the report.
  const SHORTENED = /\.\.\. \[\d+ more characters\] \.\.\./;
  const unpacked = async (packed) => {
    const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  };
  const wholePrompt = (body, test, pre) => {
    if (!SHORTENED.test(test.prompt)) return;
    if (!Object.hasOwn(prompts, test.id)) {
      const place = test.id.slice(test.id.lastIndexOf("::") + 2);
      body.appendChild(element("p", "soft", visible(`the whole prompt: llmprobe show RUN '${place}'`)));
      return;
    }
    const button = body.appendChild(element("button", "whole", "the whole prompt"));
    button.type = "button";
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        pre.textContent = visible(await unpacked(prompts[test.id]));
        button.remove();
      } catch (error) {
        button.textContent = `this browser cannot unpack it: ${error.message}`;
      }
    });
  };

  const details = (test) => {
    const row = element("tr", "details");
    const body = row.appendChild(element("td"));
    body.colSpan = 6;
    const link = body.appendChild(element("p", "soft")).appendChild(element("a", "", visible(test.id)));
    link.href = linkTo(test);
    const fields = Object.keys(test);
    for (const field of SHOWN_FIRST.filter((name) => fields.includes(name))) {
      if (test.diff && field === "received") body.appendChild(sideBySide(test));
      if (test.diff && (field === "received" || field === "before")) continue;
      labelled(body, NAMES[field] || field);
      const pre = body.appendChild(element("pre", "", asText(test[field])));
      if (field === "prompt") wholePrompt(body, test, pre);
    }
    if (test.fidelity && test.fidelity.tokens) {
      labelled(body, "the baseline's answer, more coloured where the models are further apart");
      body.appendChild(coloured(test.fidelity));
    }
    const list = body.appendChild(element("dl"));
    for (const field of fields) {
      if (SHOWN_FIRST.includes(field) || SHOWN_ABOVE.includes(field)) continue;
      list.appendChild(element("dt", "", field.replace(/_/g, " ")));
      list.appendChild(element("dd", "", asText(test[field])));
    }
    return row;
  };

  const linkTo = (test) => `#case=${encodeURIComponent(test.id)}`;

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
      const step = { ArrowDown: "nextSibling", ArrowUp: "previousSibling" }[event.key];
      if (event.key === "Enter" || event.key === " ") toggle(row, test);
      else if (!step) return;
      event.preventDefault();
      let other = step && row[step];
      while (other && other.className !== "case") other = other[step];
      if (other) other.focus();
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
    sort();
    page = 0;
    show();
  };

  // What went wrong first, as the report has it; or the order of a column.
  const FIRST = ["lost", "error", "missed", "gained"];
  const urgent = (test) => {
    const places = [change(test), test.outcome].map((word) => FIRST.indexOf(word));
    return String(Math.min(...places.map((place) => (place < 0 ? FIRST.length : place))));
  };
  const COLUMNS = {
    outcome: (test) => test.outcome,
    change: change,
    experiment: (test) => test.experiment,
    case: (test) => test.name,
    answer: (test) => oneLine(test.received),
    expected: (test) => oneLine(test.expected),
  };
  const places = new Map(cases.map((test, place) => [test, place]));
  let order = { column: null, down: false };
  const sort = () => {
    const key = COLUMNS[order.column] || urgent;
    const sign = order.down ? -1 : 1;
    const compare = new Intl.Collator("en", { numeric: true }).compare;
    found.sort((a, b) => sign * compare(key(a), key(b)) || places.get(a) - places.get(b));
  };
  for (const button of document.querySelectorAll("button.sort")) {
    button.addEventListener("click", () => {
      const column = button.dataset.column;
      const again = order.column === column;
      order = again && order.down ? { column: null, down: false } : { column, down: again };
      for (const other of document.querySelectorAll("button.sort")) {
        const mine = other.dataset.column === order.column;
        other.parentElement.setAttribute(
          "aria-sort", mine ? (order.down ? "descending" : "ascending") : "none");
      }
      sort();
      page = 0;
      show();
    });
  }

  // A link to a case opens it, whatever was searched for.
  const follow = () => {
    if (!location.hash.startsWith("#case=")) return;
    let id;
    try {
      id = decodeURIComponent(location.hash.slice("#case=".length));
    } catch {
      return;
    }
    const test = cases.find((one) => one.id === id);
    if (!test) return;
    if (!found.includes(test)) {
      for (const name of ["search", "experiment", "outcome"]) at(name).value = "";
      filter();
    }
    page = Math.floor(found.indexOf(test) / PAGE);
    show();
    const row = rows.querySelectorAll("tr.case")[found.indexOf(test) % PAGE];
    toggle(row, test);
    row.scrollIntoView({ block: "center" });
    row.focus();
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
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || ["INPUT", "SELECT"].includes(event.target.tagName)) return;
    event.preventDefault();
    at("search").focus();
  });
  addEventListener("hashchange", follow);
  sort();
  show();
  follow();
})();
