// Parts of all pages: the colour theme, tables that can be sorted and filtered, the page's address, and the browser's
// history. The address keeps the state of a table, so that it can be shared: #rules?sort=packets&dir=desc&filter=web. An
// entry of the history keeps all that the reader changed. Without scripts the page shows the first rows of each table.
const root = document.documentElement;
root.classList.add("script");
const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

const number = (n) => n.toLocaleString("en");
const plural = (n, one) => `${number(n)} ${n === 1 ? one : `${one}s`}`;

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// Return an input for words to search for. "found": what it finds.
function filterInput(found) {
  return element("input", { type: "search", autocomplete: "off", spellcheck: false, placeholder: found.join(", ") });
}

const wordsOf = (input) => input.value.toLowerCase().split(/\s+/).filter(Boolean);

// By key: the tables that keep their state in the address.
const tables = new Map();
const details = [...document.querySelectorAll("details")];
const content = document.getElementById("content").dataset.content;
let choice = null;
// The input whose text is the history's current entry: further text does not become an entry of its own.
let typed = null;

// What an entry of the history keeps. "content" identifies the page: what another page kept at the same address does not
// fit.
function kept() {
  const open = details.map((each) => each.open);
  return { content, tables: [...tables.values()].map((table) => table.kept()), choice: choice?.kept(), open, y: scrollY };
}

function keep() {
  try { history.replaceState(kept(), ""); } catch { /* nothing is kept */ }
}

// Make an entry in the history, with an address.
function record(key, options, input = null) {
  const words = options.toString();
  const write = input && input === typed ? "replaceState" : "pushState";
  try { history[write](kept(), "", `#${key}${words && `?${words}`}`); } catch { /* nothing is kept */ }
  typed = input;
}

async function restore(state) {
  await choice?.restore(state.choice);
  [...tables.values()].forEach((table, n) => table.restore(state.tables[n]));
  details.forEach((each, n) => { each.open = state.open[n]; });
  scrollTo({ top: state.y, behavior: "instant" });
}

// Show what the current entry of the history keeps. A new one has nothing but its address.
async function arrive() {
  typed = null;
  if (history.state?.content === content) {
    await restore(history.state);
  } else {
    follow();
    keep();
  }
}

// Colour theme. The choice is stored if the browser lets local files store data.
const themes = [...document.querySelectorAll("input[name=theme]")];
try {
  const kept = themes.find((theme) => theme.value === localStorage.getItem("sgfast-theme"));
  if (kept) kept.checked = true;
} catch { /* not stored */ }
for (const theme of themes) {
  theme.addEventListener("change", () => {
    try { localStorage.setItem("sgfast-theme", theme.value); } catch { /* not stored */ }
  });
}

// FIRST: rows shown before "Show all". FEW: tables with fewer rows get no filter.
const FIRST = 20;
const FEW = 6;

// The base of all tables: heads that sort the rows. Derived classes define sorted() and options().
class Sorted {
  constructor(table) {
    this.key = table.dataset.table;
    this.body = table.tBodies[0];
    this.heads = [...table.tHead.rows[0].cells];
    this.sort = null;
    this.descending = false;
    for (const head of this.heads) {
      const button = element("button", { type: "button" }, ...head.childNodes);
      button.addEventListener("click", () => this.sortBy(head));
      head.append(button);
    }
  }

  sortBy(head) {
    this.descending = this.sort === head ? !this.descending : head.classList.contains("number");
    this.sort = head;
    this.sorted();
    record(this.key, this.options());
  }

  setSort(options) {
    this.sort = this.heads.find((each) => each.dataset.key === options.get("sort")) ?? null;
    const direction = options.get("dir");
    this.descending = direction ? direction === "desc" : this.sort !== null && this.sort.classList.contains("number");
  }

  sortOptions(options) {
    if (this.sort) {
      options.set("sort", this.sort.dataset.key);
      options.set("dir", this.descending ? "desc" : "asc");
    }
    return options;
  }

  tellSort() {
    for (const head of this.heads) {
      if (head === this.sort) head.setAttribute("aria-sort", this.descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  }
}

// A table whose rows are all in the page.
class Table extends Sorted {
  constructor(table) {
    super(table);
    this.rows = [...this.body.rows].map((row, place) => ({ row, place, text: row.textContent.toLowerCase() }));
    this.input = filterInput(this.heads.filter((head) => !head.classList.contains("number")).map((head) => head.textContent.toLowerCase()));
    this.output = element("output", {});
    this.tools = element("div", { className: "tools" }, element("label", {}, "Filter", this.input), this.output);
    this.input.setAttribute("aria-label", `Filter: ${table.caption.textContent}`);
    this.input.addEventListener("input", () => { this.sorted(); record(this.key, this.options(), this.input); });
    this.all = element("button", { type: "button", className: "all" });
    this.whole = false;
    this.all.addEventListener("click", () => { this.whole = true; this.sorted(); keep(); });
    table.before(this.tools);
    table.after(this.all);
    this.sorted();
  }

  set(options) {
    this.setSort(options);
    this.input.value = options.get("filter") ?? "";
    this.sorted();
  }

  options() {
    const options = this.sortOptions(new URLSearchParams());
    if (this.input.value) options.set("filter", this.input.value);
    return options;
  }

  kept() {
    return { options: this.options().toString(), whole: this.whole };
  }

  restore({ options, whole }) {
    this.whole = whole;
    this.set(new URLSearchParams(options));
  }

  value(row) {
    const cell = row.cells[this.heads.indexOf(this.sort)];
    return cell.dataset.sort === undefined ? cell.textContent : Number(cell.dataset.sort);
  }

  sorted() {
    let rows = this.rows;
    if (this.sort) {
      const sign = this.descending ? -1 : 1;
      rows = rows.map((each) => ({ ...each, value: this.value(each.row) }));
      rows.sort((a, b) => {
        const order = typeof a.value === "number" && typeof b.value === "number"
          ? (a.value < b.value ? -1 : a.value > b.value ? 1 : 0)
          : collator.compare(a.value, b.value);
        return sign * order || a.place - b.place;
      });
    }
    this.tellSort();
    const words = wordsOf(this.input);
    let shown = 0;
    for (const { row, text } of rows) {
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
      row.classList.toggle("beyond", !this.whole && shown > FIRST);
    }
    this.body.append(...rows.map(({ row }) => row));
    const all = this.rows.length === 1 ? "1 row" : `${this.rows.length} rows`;
    this.all.textContent = `Show all ${shown}`;
    this.all.hidden = this.whole || shown <= FIRST;
    this.tools.hidden = this.rows.length < FEW && !this.input.value;
    this.output.textContent = shown === this.rows.length ? all : `${shown} of ${all}`;
  }
}

// By a template's data-reader: the function that makes rows of the data in the template. It gets the data, the tables
// whose data-answers is the template's id, and the choice.
const readers = {};

function follow() {
  const [key, words] = location.hash.slice(1).split(/\?(.*)/s);
  if (words === undefined) return;
  const known = tables.get(key) ?? (key === "matrix" ? choice : null);
  const section = document.getElementById(key) ?? choice?.section;
  if (!known || !section) return;
  known.set(new URLSearchParams(words));
  if (known === choice && choice.isMade()) choice.goToRows();
  else section.scrollIntoView({ behavior: "instant" });
}

async function read(template) {
  const letters = atob(template.innerHTML);
  const packed = new Uint8Array(letters.length);
  for (let n = 0; n < packed.length; n += 1) packed[n] = letters.charCodeAt(n);
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

async function answer() {
  const found = [...document.querySelectorAll("table[data-answers]")];
  const place = document.getElementById("matrix") ?? found[0]?.closest("section");
  if (!place) return;
  try {
    const data = new Map();
    for (const template of document.querySelectorAll("template[data-reader]")) data.set(template, await read(template));
    choice = new Choice(place);
    for (const [template, each] of data) {
      readers[template.dataset.reader](each, found.filter((table) => table.dataset.answers === template.id), choice);
    }
    choice.choose();
    root.classList.add("answers");
  } catch {
    // Old browsers cannot decompress the data. They show only the rows in the page.
    for (const table of found) tables.set(table.dataset.table, new Table(table));
  }
}

// The script is at the end of the page. This event comes when all parts of the script have run.
addEventListener("DOMContentLoaded", () => {
  history.scrollRestoration = "manual";
  for (const table of document.querySelectorAll("table[data-table]:not([data-answers])")) {
    tables.set(table.dataset.table, new Table(table));
  }
  answer().then(arrive).finally(() => {
    let soon;
    addEventListener("popstate", arrive);
    addEventListener("scroll", () => { clearTimeout(soon); soon = setTimeout(keep, 100); });
    // Events of details do not bubble.
    document.addEventListener("toggle", keep, true);
    root.classList.add("ready");
  });
});
