// Tables of what rules allow (rule_rows.py). All rows are in the page, as numbers of what several rows have: ends,
// services, rules, and cells of the matrix.

// How many parts, and rules, a cell shows, and how many characters of services. A row unfolds to all.
const PARTS = 8;
const RULES = 3;
const CHARACTERS = 120;
// How many rules, or parts, an unfolded row begins with.
const LISTED = 20;
const [FROM, TO, SERVICES, DECIDERS, CELLS] = [0, 1, 2, 3, 4];

class RuleRows {
  constructor(data, choice) {
    this.data = data;
    this.choice = choice;
    this.tables = [];
    const lower = (texts) => texts.map((text) => text.toLowerCase());
    this.texts = { parts: lower(data.parts.map(([text, , whole]) => whole || text)), services: lower(data.services), lines: lower(data.lines) };
    this.ranked = new Map();
  }

  // By place in one of the lists: its rank among the texts.
  ranks(column) {
    const name = { [FROM]: "ends", [TO]: "ends", [SERVICES]: "services", [DECIDERS]: "rules" }[column];
    if (!this.ranked.has(name)) {
      const { parts, services, names, [name]: list } = this.data;
      const texts = { ends: parts, rules: names }[name];
      this.ranked.set(name, ranked(texts ? list.map((each) => each.map((n) => texts[n][0]).join(", ")) : services));
    }
    return this.ranked.get(name);
  }

  narrow() {
    const { choice, data } = this;
    const place = (keys, name) => (name === null ? null : keys.indexOf(name));
    const [row, column, width] = [place(choice.rows, choice.from), place(choice.columns, choice.to), choice.columns.length];
    const isChosen = (cell) => (row === null || Math.floor(cell / width) === row) && (column === null || cell % width === column);
    // By place: 1 if it is among what is chosen.
    this.cells = Uint8Array.from(data.cells, (cells) => (row === null && column === null) || cells.some(isChosen));
    // By word and place: 1 if the text has it.
    this.has = choice.words.map((word) => {
      const [parts, services, lines] = Object.values(this.texts)
        .map((texts) => Uint8Array.from(texts, (text) => text.includes(word)));
      const any = (lists, flags) => Uint8Array.from(lists, (list) => list.some((n) => flags[n]));
      return { ends: any(data.ends, parts), services, rules: any(data.rules, lines) };
    });
    for (const table of this.tables) table.find();
  }
}

class RuleTable extends Chosen {
  constructor(table, choice, all) {
    super(table, choice);
    this.all_ = all;
    this.data = all.data;
    this.rows = all.data.tables[this.key];
    this.size = this.rows[FROM].length;
  }

  find() {
    const { cells, has } = this.all_;
    const [from, to, services, rules, places] = this.rows;
    this.found = [];
    for (let row = 0; row < this.size; row += 1) {
      const told = (word) => word.ends[from[row]] | word.ends[to[row]] | word.services[services[row]] | word.rules[rules[row]];
      if (cells[places[row]] && has.every(told)) this.found.push(row);
    }
    this.sorted();
  }

  // Without a sort, those that are open to most come first.
  values() {
    if (!this.sort) return (row) => row;
    const column = this.heads.indexOf(this.sort);
    const ranks = this.all_.ranks(column);
    return (row) => ranks[this.rows[column][row]];
  }

  sum() {
    return "";
  }

  part(n) {
    const [text, isName] = this.data.parts[n];
    return isName ? element("b", {}, text) : code(text);
  }

  end(place) {
    const parts = this.data.ends[place];
    const shown = parts.slice(0, PARTS).flatMap((n, at) => (at ? [", ", this.part(n)] : [this.part(n)]));
    const left = parts.length - PARTS;
    return left > 0 ? [...shown, span("soft", ` and ${number(left)} more`)] : shown;
  }

  shortened(services) {
    if (services.length <= CHARACTERS) return services;
    const cut = services.slice(0, CHARACTERS);
    return `${cut.slice(0, Math.max(cut.lastIndexOf(","), cut.lastIndexOf(";")) + 1)} …`;
  }

  rules(place) {
    const { rules, names } = this.data;
    const shown = rules[place].slice(0, RULES).map((n) => element("div", {}, code(names[n][0]), span("soft whole", names[n][1])));
    const left = rules[place].length - RULES;
    return left > 0 ? [...shown, element("div", { className: "soft" }, `and ${number(left)} more`)] : shown;
  }

  cells(row) {
    const [from, to, services, rules] = this.rows.map((column) => column[row]);
    const first = this.end(from);
    return [[this.unfold(row), ...first], this.end(to), [code(this.shortened(this.data.services[services]))], this.rules(rules)];
  }

  // What a row unfolds to: its rules, and what its cells leave out.
  details(row) {
    const [from, to, services, rules] = this.rows.map((column) => column[row]);
    const { ends, lines, parts, services: texts } = this.data;
    const own = this.data.rules[rules];
    const line = (n) => element("li", { className: "line" }, lines[n]);
    const found = [element("p", {}, own.length === 1 ? "Rule:" : "Rules:"), ...this.growing(own, LISTED, line)];
    if (texts[services].length > CHARACTERS) found.push(element("p", {}, "Services: ", code(texts[services])));
    for (const [name, place] of [["From", from], ["To", to]]) {
      if (ends[place].length > PARTS || ends[place].some((n) => parts[n][2])) {
        const item = (n) => element("li", {}, parts[n][2] ? element("b", {}, parts[n][2]) : this.part(n));
        found.push(element("p", {}, `${name}:`), ...this.growing(ends[place], LISTED, item));
      }
    }
    return found;
  }
}

readers.rules = (data, found, choice) => {
  const all = new RuleRows(data, choice);
  all.tables = found.map((table) => new RuleTable(table, choice, all));
  choice.narrowed.push(all);
};
