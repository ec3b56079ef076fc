// The matrix, and tables that show what is chosen in it. The rows of these tables are data, and not HTML in the page.

// MORE: rows, or parts of a row, that a click adds. PRINTED: the number of rows on paper, as in the page's HTML.
const MORE = 500;
const PRINTED = 150;
const OTHERS = "*";
// A text of this length has no line break, even on a phone.
const WHOLE = 22;

const span = (className, ...children) => element("span", { className }, ...children);
const code = (text) => span(text.length <= WHOLE ? "code whole" : "code", text);

// Parse HTML from the page's data. Names in it are escaped.
function written(html) {
  const made = document.createElement("template");
  made.innerHTML = html;
  return made.content;
}

// The reader's choice for all tables of data: words, and the groups of initiators and responders.
class Choice {
  // The section contains the matrix, or at least one of the tables.
  constructor(section) {
    this.section = section;
    this.words = [];
    this.from = this.to = null;
    // Objects whose narrow() limits their tables to the choice.
    this.narrowed = [];
    this.tables = [];
    this.chips = [];
    this.input = filterInput(["group", "instance", "address", "service", "rule"]);
    this.input.addEventListener("input", () => this.changed(this.input));
    const label = element("label", {}, "Filter the tables below", this.input);
    this.section.append(element("div", { className: "tools" }, label, this.chip(() => this.input.focus())));
    this.cells = [];
    // The matrix, and the one in which "others" is unfolded.
    this.folded = this.section.querySelector(".matrix");
    this.whole = null;
    if (this.folded) this.addCells(this.folded);
    // The names of the rows and the columns in the page's address.
    const named = (end) => this.cells.filter(({ link, [end]: name }) => link.closest("th") && name !== null && name !== OTHERS).map((cell) => cell[end]);
    [this.rows, this.columns] = [named("from"), named("to")];
    this.template = document.getElementById("whole-matrix");
    if (!this.template) return;
    this.unfolding = element("button", { type: "button", className: "all" });
    this.unfolding.addEventListener("click", () => this.unfold(!this.folded.hidden).then(keep));
    this.folded.parentNode.after(this.unfolding);
    this.unfold(false);
  }

  // Show the matrix of all groups, or the one that has "others".
  async unfold(open) {
    if (open && !this.whole) {
      this.folded.after(written(await read(this.template)));
      this.whole = this.folded.nextElementSibling;
      this.whole.style.setProperty("--columns", this.whole.rows[0].cells.length);
      this.addCells(this.whole);
      this.link();
    }
    this.folded.hidden = open;
    if (this.whole) this.whole.hidden = !open;
    this.unfolding.textContent = open ? "Fold the smallest groups into others" : "Unfold others to all groups";
    this.unfolding.setAttribute("aria-expanded", String(open));
  }

  // Take the cells of a matrix over. Arrow keys move from cell to cell. The Tab key stops at one cell only.
  addCells(table) {
    const cells = [...table.querySelectorAll("a")].map((link) => {
      const options = new URLSearchParams(link.hash.slice("#matrix?".length));
      // A second click cancels the choice.
      link.addEventListener("click", (event) => {
        if (!link.hasAttribute("aria-current")) return;
        event.preventDefault();
        this.clear();
      });
      return { link, from: options.get("from"), to: options.get("to") };
    });
    this.cells.push(...cells);
    const at = (row, column) => table.rows[row]?.cells[column];
    const focus = (cell) => {
      for (const { link } of cells) link.tabIndex = -1;
      cell.tabIndex = 0;
    };
    focus(cells[0].link);
    table.addEventListener("focusin", (event) => focus(event.target));
    table.addEventListener("keydown", (event) => {
      const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
      if (!step) return;
      event.preventDefault();
      let { parentNode: { rowIndex: row }, cellIndex: column } = event.target.closest("td, th");
      do { [row, column] = [row + step[0], column + step[1]]; } while (at(row, column) && !at(row, column).firstElementChild);
      at(row, column)?.firstElementChild.focus();
    });
  }

  set(options) {
    this.input.value = options.get("filter") ?? "";
    this.from = options.get("from");
    this.to = options.get("to");
    this.choose();
  }

  changed(input) {
    this.choose();
    record("matrix", this.options(this.from, this.to), input);
  }

  clear() {
    this.from = this.to = null;
    this.changed();
  }

  // Return whether something is chosen in the matrix.
  isMade() {
    return this.from !== null || this.to !== null;
  }

  // Return a button that says what is chosen in the matrix, and cancels it. "then" is called after that.
  chip(then) {
    const chip = element("button", { type: "button", className: "chip" });
    chip.addEventListener("click", () => { this.clear(); then(); });
    this.chips.push(chip);
    return chip;
  }

  // Go to the first table that has rows.
  goToRows() {
    (this.tables.find((table) => table.found.length) ?? this.tables[0])?.goTo();
  }

  kept() {
    return { options: this.options(this.from, this.to).toString(), unfolded: this.folded?.hidden };
  }

  async restore({ options, unfolded }) {
    if (this.template) await this.unfold(unfolded);
    this.set(new URLSearchParams(options));
  }

  options(from, to, options = new URLSearchParams()) {
    if (this.input.value) options.set("filter", this.input.value);
    if (from !== null) options.set("from", from);
    if (to !== null) options.set("to", to);
    return options;
  }

  // Return for each group: 1 if it is chosen. "keys" are the groups that have a row, or a column.
  among(groups, name, keys) {
    const own = new Set(keys);
    return Uint8Array.from(groups, (group) => name === null || (name === OTHERS ? !own.has(group) : group === name));
  }

  choose() {
    this.words = wordsOf(this.input).slice(0, 30);
    const name = (group) => (group === null ? "any" : group === OTHERS ? "others" : group);
    const pair = `${name(this.from)} → ${name(this.to)}`;
    for (const chip of this.chips) {
      chip.hidden = !this.isMade();
      chip.textContent = `${pair} ✕`;
      chip.setAttribute("aria-label", `${pair}: remove this filter`);
    }
    this.link();
    for (const each of this.narrowed) each.narrow();
  }

  // Give each cell the address to which it leads, and mark the chosen one.
  link() {
    for (const { link, from, to } of this.cells) {
      link.hash = `#matrix?${this.options(from, to)}`;
      if (from === this.from && to === this.to) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }
}

// Return the rank of each text in alphabetical order.
function ranked(texts) {
  const ranks = new Uint32Array(texts.length);
  [...texts.keys()].sort((a, b) => collator.compare(texts[a], texts[b])).forEach((place, rank) => { ranks[place] = rank; });
  return ranks;
}

// A table whose rows are numbers; "found" holds the chosen rows. Derived classes define size (the number of rows),
// values(), cells(row), details(row) and sum().
class Chosen extends Sorted {
  constructor(table, choice) {
    super(table);
    this.choice = choice;
    this.columns = this.heads.map((head) => head.dataset.key);
    this.found = [];
    this.unfolded = new Set();
    this.output = element("output", {});
    this.all = element("button", { type: "button", className: "all" });
    this.all.addEventListener("click", () => { this.show(this.most + MORE); keep(); });
    addEventListener("beforeprint", () => this.draw(Math.max(this.most, PRINTED)));
    addEventListener("afterprint", () => this.draw(this.most));
    table.before(element("p", { className: "sum" }, this.output, choice.chip(() => this.goTo())));
    table.after(this.all);
    tables.set(this.key, this);
    choice.tables.push(this);
  }

  // Scroll to the table's section, where the heading gets the focus.
  goTo() {
    this.body.closest("details")?.setAttribute("open", "");
    const section = this.body.closest("section");
    const heading = section.querySelector("h2");
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
    section.scrollIntoView({ behavior: "instant" });
  }

  set(options) {
    this.setSort(options);
    this.choice.set(options);
  }

  options() {
    return this.sortOptions(this.choice.options(this.choice.from, this.choice.to));
  }

  kept() {
    return { options: this.sortOptions(new URLSearchParams()).toString(), most: this.most, unfolded: this.unfolded };
  }

  restore({ options, most, unfolded }) {
    this.setSort(new URLSearchParams(options));
    this.unfolded = unfolded;
    this.sorted(most);
  }

  before(a, b) {
    return a - b;
  }

  sorted(most = FIRST) {
    const sign = this.descending ? -1 : 1;
    const values = new Float64Array(this.size);
    const value = this.values();
    for (const row of this.found) values[row] = value(row);
    this.found.sort((a, b) => sign * (values[a] - values[b]) || this.before(a, b));
    this.tellSort();
    this.show(most);
  }

  show(most) {
    this.most = most;
    this.draw(most);
  }

  draw(most) {
    const lines = (row) => (this.unfolded.has(row) ? [this.line(row), this.unfoldedLine(row)] : [this.line(row)]);
    this.body.replaceChildren(...this.found.slice(0, most).flatMap(lines));
    const left = this.found.length - most;
    this.all.hidden = left <= 0;
    this.all.textContent = `Show ${number(Math.min(left, MORE))} more`;
    this.output.textContent = `${this.sum()}${this.of(this.found.length, this.size)} ${this.size === 1 ? "row" : "rows"}`;
  }

  of(part, all) {
    return part === all ? number(all) : `${number(part)} of ${number(all)}`;
  }

  line(row) {
    const line = element("tr", {});
    line.setAttribute("role", "row");
    this.cells(row).forEach((content, n) => {
      const head = this.heads[n];
      const cell = element("td", { className: head.className }, ...content);
      cell.setAttribute("role", "cell");
      cell.dataset.label = head.textContent;
      line.append(cell);
    });
    return line;
  }

  // Return the button that shows a row's details.
  unfold(row) {
    const button = element("button", { type: "button", className: "unfold" });
    button.setAttribute("aria-expanded", String(this.unfolded.has(row)));
    button.setAttribute("aria-label", "Details of this row");
    button.addEventListener("click", () => {
      const line = button.closest("tr");
      const open = !this.unfolded.delete(row);
      button.setAttribute("aria-expanded", String(open));
      if (open) {
        this.unfolded.add(row);
        line.after(this.unfoldedLine(row));
      } else {
        line.nextElementSibling.remove();
      }
      keep();
    });
    return button;
  }

  unfoldedLine(row) {
    const cell = element("td", { colSpan: this.heads.length }, element("div", { className: "unfolded" }, ...this.details(row)));
    cell.setAttribute("role", "cell");
    const line = element("tr", { className: "details" }, cell);
    line.setAttribute("role", "row");
    return line;
  }

  // Return a list of the first items, and a button that adds more. "item" makes the element of an item.
  growing(items, first, item) {
    const body = element("ul", {});
    const more = element("button", { type: "button", className: "all" });
    const add = (most) => {
      const from = body.children.length;
      body.append(...items.slice(from, from + most).map(item));
      const left = items.length - body.children.length;
      more.hidden = !left;
      more.textContent = `Show ${number(Math.min(left, MORE))} more of ${number(items.length)}`;
    };
    more.addEventListener("click", () => add(MORE));
    add(first);
    return [body, more];
  }

  // Return a paragraph that lists the first five rules, each on a line.
  ruleLines(name, lines) {
    if (!lines.length) return [];
    const first = lines.slice(0, 5).map((line) => span("line", line));
    if (lines.length > 5) first.push(span("line", `and ${number(lines.length - 5)} more`));
    return [element("p", {}, `${lines.length === 1 ? name : name.replace(/[Rr]ule/, "$&s")}: `, ...first)];
  }
}
