// Tables of what rules allow (rule_rows.py). All rows are in the page. A row has only the numbers of its ends, services,
// rules, and cells of the matrix, because several rows share these. Their HTML is in the page, too.

// The number of rules, or parts, that an unfolded row shows at first.
const LISTED = 20;
const [FROM, TO, SERVICES, DECIDERS, CELLS] = [0, 1, 2, 3, 4];

class RuleRows {
  constructor(data, choice) {
    this.data = data;
    this.choice = choice;
    this.tables = [];
    const lower = (texts) => texts.map((text) => text.toLowerCase());
    const members = (n) => data.members[n].map((instance) => data.instances[instance]);
    const parts = data.parts.map(([text, , whole], n) => [whole || text, ...members(n)].join("\n"));
    this.texts = { parts: lower(parts), services: lower(data.services), lines: lower(data.lines) };
    this.ranked = new Map();
  }

  // Return the rank of each entry of a list in alphabetical order.
  ranks(column) {
    const name = { [FROM]: "ends", [TO]: "ends", [SERVICES]: "services", [DECIDERS]: "rules" }[column];
    if (!this.ranked.has(name)) {
      const { parts, services, names, [name]: list } = this.data;
      const texts = { ends: parts.map(([text]) => text), rules: names }[name];
      this.ranked.set(name, ranked(texts ? list.map((each) => each.map((n) => texts[n]).join(", ")) : services));
    }
    return this.ranked.get(name);
  }

  narrow() {
    const { choice, data } = this;
    const rows = choice.among(data.rows, choice.from, choice.rows);
    const columns = choice.among(data.columns, choice.to, choice.columns);
    const isChosen = (cell) => rows[Math.floor(cell / columns.length)] & columns[cell % columns.length];
    // By entry: 1 if one of its cells is chosen.
    this.cells = Uint8Array.from(data.cells, (cells) => !choice.isMade() || cells.some(isChosen));
    // By word and entry: 1 if the text contains the word.
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
    this.shared = all;
    this.data = all.data;
    this.rows = all.data.tables[this.key];
    this.size = this.rows[FROM].length;
  }

  find() {
    const { cells, has } = this.shared;
    const [from, to, services, rules, places] = this.rows;
    this.found = [];
    for (let row = 0; row < this.size; row += 1) {
      const matches = (word) => word.ends[from[row]] | word.ends[to[row]] | word.services[services[row]] | word.rules[rules[row]];
      if (cells[places[row]] && has.every(matches)) this.found.push(row);
    }
    this.sorted();
  }

  // By default, the rows that are open to most addresses come first.
  values() {
    if (!this.sort) return (row) => row;
    const column = this.heads.indexOf(this.sort);
    const ranks = this.shared.ranks(column);
    return (row) => ranks[this.rows[column][row]];
  }

  sum() {
    return "";
  }

  part(n) {
    const [text, isName] = this.data.parts[n];
    return isName ? element("b", {}, text) : code(text);
  }

  cells(row) {
    const { ends, services, rules } = this.data.shown;
    const cells = [ends, ends, services, rules].map((shown, column) => [written(shown[this.rows[column][row]][0])]);
    cells[0].unshift(this.unfold(row));
    return cells;
  }

  // Return the details of a row: its rules, and parts that its cells leave out.
  details(row) {
    const [from, to, services, rules] = this.rows.map((column) => column[row]);
    const { ends, lines, parts, services: texts, shown } = this.data;
    const own = this.data.rules[rules];
    const line = (n) => element("li", { className: "line" }, lines[n]);
    const found = own.length ? [element("p", {}, own.length === 1 ? "Rule:" : "Rules:"), ...this.growing(own, LISTED, line)] : [];
    if (shown.services[services][1]) found.push(element("p", {}, "Services: ", code(texts[services])));
    for (const [name, place] of [["From", from], ["To", to]]) {
      if (shown.ends[place][1]) {
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
