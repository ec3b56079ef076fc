// Parts of all pages: the colour theme, tables that can be sorted and filtered, and the page's address. The address keeps
// the state of a table, so that it can be shared: #rules?sort=packets&dir=desc&filter=web. Without scripts the page shows
// the first rows of each table.
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

const wordsOf = (input) => input.value.toLowerCase().split(/\s+/).filter(Boolean);

function setUrl(key, options) {
  const words = options.toString();
  try { history.replaceState(null, "", `#${key}${words && `?${words}`}`); } catch { /* URL unchanged */ }
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
    setUrl(this.key, this.options());
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
    this.input = element("input", { type: "search", autocomplete: "off", spellcheck: false });
    this.output = element("output", {});
    this.tools = element("div", { className: "tools" }, element("label", {}, "Filter", this.input), this.output);
    this.input.setAttribute("aria-label", `Filter: ${table.caption.textContent}`);
    this.input.addEventListener("input", () => { this.sorted(); setUrl(this.key, this.options()); });
    this.all = element("button", { type: "button", className: "all" });
    this.whole = false;
    this.all.addEventListener("click", () => { this.whole = true; this.sorted(); });
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

// By key: the tables that keep their state in the address.
const tables = new Map();
// By a template's data-reader: the function that makes rows of the data in the template. It gets the data, the tables
// whose data-answers is the template's id, and the choice.
const readers = {};
let choice = null;

function follow() {
  const [key, words] = location.hash.slice(1).split(/\?(.*)/s);
  if (words === undefined) return;
  const known = tables.get(key) ?? (key === "matrix" ? choice : null);
  const section = document.getElementById(key) ?? choice?.section;
  if (!known || !section) return;
  known.set(new URLSearchParams(words));
  // After a click on the matrix, the page does not scroll.
  if (known !== choice || !section.contains(document.activeElement)) section.scrollIntoView({ behavior: "instant" });
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
  for (const table of document.querySelectorAll("table[data-table]:not([data-answers])")) {
    tables.set(table.dataset.table, new Table(table));
  }
  addEventListener("hashchange", follow);
  follow();
  answer().then(follow).finally(() => root.classList.add("ready"));
});
