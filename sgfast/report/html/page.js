"use strict";
// Makes tables sortable and filterable, and shows the numbers of the timeline. The page is complete without it.
// The state of a table is kept in the URL, so that it can be shared: #denied?sort=packets&dir=desc&filter=web
(() => {
  const root = document.documentElement;
  root.classList.add("script");
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  function element(name, properties, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  // Colour theme. The choice is stored if the browser allows local files to store anything.
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

  // Tables
  const tables = new Map();

  // FIRST: rows shown before "Show all". FEW: tables with fewer rows get no filter.
  const FIRST = 20;
  const FEW = 6;

  class Table {
    constructor(table) {
      this.key = table.dataset.table;
      this.body = table.tBodies[0];
      this.rows = [...this.body.rows].map((row, place) => ({ row, place, text: row.textContent.toLowerCase() }));
      this.heads = [...table.tHead.rows[0].cells];
      this.sort = null;
      this.descending = false;
      for (const head of this.heads) {
        const button = element("button", { type: "button" }, ...head.childNodes);
        button.addEventListener("click", () => this.sortBy(head));
        head.append(button);
      }
      this.input = element("input", { type: "search", autocomplete: "off", spellcheck: false });
      this.output = element("output", {});
      this.tools = element("div", { className: "tools" }, element("label", {}, "Filter", this.input), this.output);
      this.input.setAttribute("aria-label", `Filter: ${table.caption.textContent}`);
      this.input.addEventListener("input", () => { this.show(); this.updateUrl(); });
      this.all = element("button", { type: "button", className: "all" });
      this.whole = false;
      this.all.addEventListener("click", () => { this.whole = true; this.show(); });
      table.before(this.tools);
      table.after(this.all);
      this.show();
    }

    sortBy(head) {
      const first = head.classList.contains("number");
      this.descending = this.sort === head ? !this.descending : first;
      this.sort = head;
      this.show();
      this.updateUrl();
    }

    set(options) {
      const head = this.heads.find((each) => each.dataset.key === options.get("sort")) ?? null;
      const direction = options.get("dir");
      this.sort = head;
      this.descending = direction ? direction === "desc" : head !== null && head.classList.contains("number");
      this.input.value = options.get("filter") ?? "";
      this.show();
    }

    value(row) {
      const cell = row.cells[this.heads.indexOf(this.sort)];
      return cell.dataset.sort === undefined ? cell.textContent : Number(cell.dataset.sort);
    }

    show() {
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
      for (const head of this.heads) {
        if (head === this.sort) head.setAttribute("aria-sort", this.descending ? "descending" : "ascending");
        else head.removeAttribute("aria-sort");
      }
      const words = this.input.value.toLowerCase().split(/\s+/).filter(Boolean);
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

    updateUrl() {
      const options = new URLSearchParams();
      if (this.sort) {
        options.set("sort", this.sort.dataset.key);
        options.set("dir", this.descending ? "desc" : "asc");
      }
      if (this.input.value) options.set("filter", this.input.value);
      const words = options.toString();
      try { history.replaceState(null, "", `#${this.key}${words && `?${words}`}`); } catch { /* URL unchanged */ }
    }
  }

  for (const table of document.querySelectorAll("table[data-table]")) {
    tables.set(table.dataset.table, new Table(table));
  }

  function follow() {
    const [key, words] = location.hash.slice(1).split(/\?(.*)/s);
    if (words === undefined) return;
    const table = tables.get(key);
    if (!table) return;
    table.set(new URLSearchParams(words));
    table.body.closest("section").scrollIntoView({ behavior: "instant" });
  }
  addEventListener("hashchange", follow);
  follow();

  // The timeline
  const place = document.querySelector(".timeline");
  const numbers = document.getElementById("numbers");
  if (place && numbers) {
    const count = Number(numbers.dataset.intervals);
    const lanes = [...numbers.tHead.rows[0].cells].slice(1).map((cell) => cell.textContent);
    const rows = new Map([...numbers.tBodies[0].rows].map((row) => [Number(row.cells[0].dataset.n), row]));
    const filled = [...rows.keys()];
    const readout = document.querySelector(".readout");
    const cursor = element("div", { className: "cursor", hidden: true });
    let current = -1;
    place.append(cursor);
    place.tabIndex = 0;
    place.setAttribute("role", "slider");
    place.setAttribute("aria-label", "Packets over time: arrow keys go from bar to bar");
    place.setAttribute("aria-valuemin", "0");
    place.setAttribute("aria-valuemax", String(count - 1));
    place.setAttribute("aria-valuenow", "0");
    readout.textContent = "For numbers, point at the chart, or focus it and use the arrow keys.";
    readout.hidden = false;

    const point = (n) => {
      current = n;
      cursor.hidden = false;
      cursor.style.left = `${((n + 0.42) / count) * 100}%`;
      const row = rows.get(n);
      const words = row
        ? `${row.cells[0].textContent}: ` + lanes
          .map((lane, m) => [lane, row.cells[m + 1].textContent])
          .filter(([, packets]) => packets !== "0")
          .map(([lane, packets]) => `${lane.toLowerCase()} ${packets}`).join(", ")
        : "no packets here";
      readout.textContent = words;
      place.setAttribute("aria-valuenow", String(n));
      place.setAttribute("aria-valuetext", words);
    };
    const follow = (event) => {
      const box = place.getBoundingClientRect();
      point(Math.max(0, Math.min(count - 1, Math.floor(((event.clientX - box.left) / box.width) * count))));
    };
    place.addEventListener("pointermove", follow);
    place.addEventListener("pointerdown", follow);
    place.addEventListener("keydown", (event) => {
      const at = current < 0 ? -1 : filled.findLastIndex((n) => n <= current);
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: filled.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      point(filled[Math.max(0, Math.min(filled.length - 1, to))]);
    });
  }
})();
