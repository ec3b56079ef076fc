"use strict";
// Makes tables sortable and filterable, and shows the numbers of the timeline. Without it the page has the largest rows.
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
      setUrl(this.key, options);
    }
  }

  // Answers: tables of kinds of traffic, folded by groups. All kinds are in the page, as columns (columns.py).

  // MORE: rows, or kinds in a row, that a click adds. PRINTED: rows that paper has, which are those of answers.py.
  const MORE = 500;
  const PRINTED = 150;
  const KINDS_OF_A_ROW = 20;
  const OTHERS = "*";
  // A text of this length has no line break, even on a phone.
  const WHOLE = 22;
  // By table: its columns of counts, each with the answer that it stands for.
  const COUNTS = {
    broken: [["breaks"]], denied: [["unbroken"]], services: [["refused", "refused"], ["silent", "silent"]],
    allowed: [["allowed"]],
  };
  const number = (n) => n.toLocaleString("en");
  const plural = (n, one) => `${number(n)} ${n === 1 ? one : `${one}s`}`;
  const seconds = (ms) => (ms < 0 ? "" : `${(ms / 1000).toFixed(3)} s`);
  const span = (className, ...children) => element("span", { className }, ...children);
  const code = (text) => span(text.length <= WHOLE ? "code whole" : "code", text);

  function bytes(n) {
    const units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let power = 0;
    for (; n >= (power ? 999.95 : 1000) && power < 6; power += 1) n /= 1000;
    return `${n.toFixed(power ? 1 : 0)} ${units[power]}`;
  }

  // What is chosen, for all tables of answers: words, and groups that traffic comes from and goes to.
  class Choice {
    constructor(data) {
      this.data = data;
      this.kinds = data.kinds;
      this.words = [];
      this.ranked = new Map();
      this.from = this.to = null;
      // By kind: a bit for each word that it does not have, and one if it is not between the groups.
      this.misses = new Uint32Array(this.kinds.source.length);
      const lower = (texts) => texts.map((text) => text.toLowerCase());
      const groups = lower(data.groups);
      this.texts = {
        ends: lower(data.ends).map((end, n) => `${end}\n${groups[data.group[n]]}\n${(data.titles[n] ?? "").toLowerCase()}`),
        services: lower(data.services), reasons: data.reasons, rules: lower(data.rules),
      };
      this.section = document.getElementById("matrix");
      this.input = element("input", { type: "search", autocomplete: "off", spellcheck: false });
      this.input.addEventListener("input", () => this.changed());
      this.chosen = element("button", { type: "button", className: "chosen", hidden: true });
      this.chosen.addEventListener("click", () => { this.from = this.to = null; this.changed(); this.input.focus(); });
      const label = element("label", {}, "Filter the tables below", this.input);
      this.section.append(element("div", { className: "tools" }, label, this.chosen));
      this.cells = [...this.section.querySelectorAll(".matrix a")].map((link) => {
        const options = new URLSearchParams(link.hash.slice("#matrix?".length));
        // A second click takes the choice back.
        link.addEventListener("click", (event) => {
          if (!link.hasAttribute("aria-current")) return;
          event.preventDefault();
          this.from = this.to = null;
          this.changed();
        });
        return { link, from: options.get("from"), to: options.get("to") };
      });
      this.walk();
    }

    // Arrow keys go from cell to cell: only one of them is a stop for Tab.
    walk() {
      const table = this.section.querySelector(".matrix");
      const at = (row, column) => table.rows[row]?.cells[column];
      const focus = (cell) => {
        for (const { link } of this.cells) link.tabIndex = -1;
        cell.tabIndex = 0;
      };
      focus(this.cells[0].link);
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

    changed() {
      this.choose();
      setUrl("matrix", this.options(this.from, this.to));
    }

    options(from, to, options = new URLSearchParams()) {
      if (this.input.value) options.set("filter", this.input.value);
      if (from !== null) options.set("from", from);
      if (to !== null) options.set("to", to);
      return options;
    }

    // By group: 1 if it is chosen. "shown" are those with a row or column of their own.
    among(name, shown) {
      const own = new Set(shown);
      return Uint8Array.from(this.data.groups, (group, n) => name === null || (name === OTHERS ? !own.has(n) : group === name));
    }

    // By place: the rank of a list's texts in order.
    ranks(name) {
      if (!this.ranked.has(name)) {
        const texts = this.data[name];
        const ranks = new Uint32Array(texts.length);
        [...texts.keys()].sort((a, b) => collator.compare(texts[a], texts[b])).forEach((place, rank) => { ranks[place] = rank; });
        this.ranked.set(name, ranks);
      }
      return this.ranked.get(name);
    }

    choose() {
      const { source, destination, service, reason, rule } = this.kinds;
      const { misses, data: { group } } = this;
      const [chosenFrom, chosenTo] = [this.among(this.from, this.data.from), this.among(this.to, this.data.to)];
      this.words = this.input.value.toLowerCase().split(/\s+/).filter(Boolean).slice(0, 30);
      for (let n = 0; n < misses.length; n += 1) {
        misses[n] = chosenFrom[group[source[n]]] & chosenTo[group[destination[n]]] ? 0 : 1 << 30;
      }
      this.words.forEach((word, bit) => {
        const [ends, services, reasons, rules] = Object.values(this.texts)
          .map((texts) => Uint8Array.from(texts, (text) => text.includes(word)));
        for (let n = 0; n < misses.length; n += 1) {
          const has = ends[source[n]] | ends[destination[n]] | services[service[n]] | reasons[reason[n]] | rules[rule[n]];
          if (!has) misses[n] |= 1 << bit;
        }
      });
      const name = (group) => (group === null ? "any" : group === OTHERS ? "others" : group);
      this.chosen.hidden = this.from === null && this.to === null;
      this.chosen.textContent = `${name(this.from)} → ${name(this.to)}: show all again`;
      for (const { link, from, to } of this.cells) {
        link.hash = `#matrix?${this.options(from, to)}`;
        if (from === this.from && to === this.to) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
      for (const list of lists) list.fold();
    }
  }

  const lists = [];

  // One table of answers. Its entries are kinds with a count. Those of a row stand together, largest first: those of
  // row n are starts[n] to starts[n + 1].
  class List {
    constructor(table, choice) {
      this.key = table.dataset.table;
      this.counted = this.key === "denied" ? "packet" : "connection";
      this.body = table.tBodies[0];
      this.choice = choice;
      this.data = choice.data;
      this.explained = new Map([...this.body.rows].map((row) => [row.dataset.key, row.cells[row.cells.length - 1].childNodes]));
      this.heads = [...table.tHead.rows[0].cells];
      this.columns = this.heads.map((head) => head.dataset.key);
      this.sort = this.columns[0];
      this.descending = true;
      for (const head of this.heads) {
        const button = element("button", { type: "button" }, ...head.childNodes);
        button.addEventListener("click", () => this.sortBy(head));
        head.append(button);
      }
      this.output = element("output", {});
      this.all = element("button", { type: "button", className: "all" });
      this.all.addEventListener("click", () => this.show(this.most + MORE));
      addEventListener("beforeprint", () => {
        this.body.closest("details")?.setAttribute("open", "");
        this.show(Math.max(this.most, PRINTED));
      });
      table.before(element("p", { className: "sum" }, this.output));
      table.after(this.all);
      this.gather();
    }

    gather() {
      const { kinds, group, groups, services } = this.data;
      const [numbered, pairs] = [new Map(), new Map()];
      const numberIn = (map, key) => {
        if (!map.has(key)) map.set(key, map.size);
        return map.get(key);
      };
      const entries = [];
      const [rows, counts] = [[], []];
      COUNTS[this.key].forEach(([column, answer], place) => {
        const words = answer ? COUNTS[this.key].length : this.data.reasons.length;
        kinds[column].forEach((count, kind) => {
          if (!count) return;
          const pair = numberIn(pairs, group[kinds.source[kind]] * groups.length + group[kinds.destination[kind]]);
          const word = answer ? place : kinds.reason[kind];
          const row = ((pair * services.length + kinds.service[kind]) * 2 + kinds.inbound[kind]) * words + word;
          rows.push(numberIn(numbered, row));
          counts.push(count);
          entries.push(kind);
        });
      });
      this.number = numbered.size;
      const order = Uint32Array.from(rows.keys()).sort((a, b) => rows[a] - rows[b] || counts[b] - counts[a]);
      this.kinds = Uint32Array.from(order, (place) => entries[place]);
      this.counts = Float64Array.from(order, (place) => counts[place]);
      this.starts = new Uint32Array(this.number + 1).fill(order.length);
      for (let n = order.length - 1; n >= 0; n -= 1) this.starts[rows[order[n]]] = n;
      this.total = counts.reduce((sum, count) => sum + count, 0);
      const answers = COUNTS[this.key].map(([, answer]) => answer);
      // By row: what the instance answered, or the reason.
      this.words = new Array(this.number);
      for (const [key, row] of numbered) {
        this.words[row] = answers[0] ? answers[key % answers.length] : this.data.reasons[key % this.data.reasons.length];
      }
      // By row: the sums of what is chosen, and the largest kind in it.
      const [count, packets, bytes, first] = Array.from({ length: 4 }, () => new Float64Array(this.number));
      this.sums = { count, packets, bytes, first };
    }

    sortBy(head) {
      const key = head.dataset.key;
      this.descending = this.sort === key ? !this.descending : head.classList.contains("number");
      this.sort = key;
      this.order();
      const options = new URLSearchParams({ sort: key, dir: this.descending ? "desc" : "asc" });
      setUrl(this.key, this.choice.options(this.choice.from, this.choice.to, options));
    }

    set(options) {
      const head = this.heads.find((each) => each.dataset.key === options.get("sort")) ?? this.heads[0];
      this.sort = head.dataset.key;
      this.descending = options.has("dir") ? options.get("dir") === "desc" : head.classList.contains("number");
    }

    // Which words a row misses does not count where its answer has them.
    mask(row) {
      const told = this.data.answers[this.words[row]]?.toLowerCase() ?? "";
      return ~this.choice.words.reduce((mask, word, bit) => (told.includes(word) ? mask | 1 << bit : mask), 0);
    }

    // Finds the rows that have something of what is chosen, and adds it up.
    fold() {
      const { misses } = this.choice;
      const { packets, bytes } = this.data.kinds;
      const { kinds, counts, starts, sums } = this;
      this.found = [];
      for (let row = 0; row < this.number; row += 1) {
        const mask = this.key === "services" ? this.mask(row) : ~0;
        let [count, some, size, first] = [0, 0, 0, -1];
        for (let n = starts[row]; n < starts[row + 1]; n += 1) {
          const kind = kinds[n];
          if (misses[kind] & mask) continue;
          if (first < 0) first = n;
          count += counts[n];
          some += packets[kind];
          size += bytes[kind];
        }
        if (first < 0) continue;
        [sums.count[row], sums.packets[row], sums.bytes[row], sums.first[row]] = [count, some, size, kinds[first]];
        this.found.push(row);
      }
      this.order();
    }

    // By row: a number to sort by.
    values() {
      const { kinds, group } = this.data;
      const { count, bytes, first } = this.sums;
      switch (this.sort) {
        case "connections": case "packets": return (row) => count[row];
        case "bytes": return (row) => bytes[row];
        case "from": case "to": {
          const [ranks, ends] = [this.choice.ranks("groups"), this.sort === "from" ? kinds.source : kinds.destination];
          return (row) => ranks[group[ends[first[row]]]];
        }
        case "service": {
          const ranks = this.choice.ranks("services");
          return (row) => ranks[kinds.service[first[row]]];
        }
        case "rule": {
          const ranks = this.choice.ranks("rules");
          return (row) => ranks[kinds.rule[first[row]]] ?? -1;
        }
        default: {
          const ranks = new Map([...new Set(this.words)].sort().map((word, rank) => [word, rank]));
          return (row) => ranks.get(this.words[row]);
        }
      }
    }

    order() {
      const sign = this.descending ? -1 : 1;
      const values = new Float64Array(this.number);
      const value = this.values();
      for (const row of this.found) values[row] = value(row);
      const { count } = this.sums;
      this.found.sort((a, b) => sign * (values[a] - values[b]) || count[b] - count[a] || a - b);
      for (const head of this.heads) {
        if (head.dataset.key !== this.sort) head.removeAttribute("aria-sort");
        else head.setAttribute("aria-sort", this.descending ? "descending" : "ascending");
      }
      this.show(FIRST);
    }

    show(most) {
      this.most = most;
      this.body.replaceChildren(...this.found.slice(0, most).map((row) => this.line(row)));
      const left = this.found.length - most;
      this.all.hidden = left <= 0;
      this.all.textContent = `Show ${number(Math.min(left, MORE))} more`;
      const sum = this.found.reduce((all, row) => all + this.sums.count[row], 0);
      const of = (part, all) => (part === all ? number(all) : `${number(part)} of ${number(all)}`);
      this.output.textContent = `${of(sum, this.total)} ${this.total === 1 ? this.counted : `${this.counted}s`}, `
        + `${of(this.found.length, this.number)} ${this.number === 1 ? "row" : "rows"}`;
    }

    // A row's entries among what is chosen.
    entries(row) {
      const mask = this.mask(row);
      const found = [];
      for (let n = this.starts[row]; n < this.starts[row + 1]; n += 1) {
        if (!(this.choice.misses[this.kinds[n]] & mask)) found.push({ kind: this.kinds[n], count: this.counts[n] });
      }
      return found;
    }

    // What html/answers.py calls a row.
    rowName(row) {
      const { kinds, group } = this.data;
      const kind = this.sums.first[row];
      const [from, to] = [group[kinds.source[kind]], group[kinds.destination[kind]]];
      return `${from}.${to}.${kinds.service[kind]}.${kinds.inbound[kind]}.${this.words[row]}`;
    }

    // The ends of entries: one by its name, several by their group.
    end(entries, column) {
      const { group, groups, nouns, exact, kinds } = this.data;
      const several = new Set(entries.map(({ kind }) => kinds[column][kind]));
      const [first] = several;
      if (several.size === 1) return this.endName(first);
      const noun = nouns[group[first]];
      const some = [...several].some((end) => end >= exact) ? "many" : number(several.size);
      const name = noun === "instances" ? element("b", {}, groups[group[first]]) : groups[group[first]];
      return span("", name, " ", span("soft whole", `(${some} ${noun})`));
    }

    endName(end) {
      const { ends, group, nouns, titles } = this.data;
      if (nouns[group[end]] !== "instances") return code(ends[end]);
      return element("b", titles[end] ? { title: titles[end] } : {}, ends[end]);
    }

    rulesOf(entries) {
      const found = new Set(entries.map(({ kind }) => this.data.kinds.rule[kind]));
      found.delete(-1);
      return [...found].map((rule) => this.data.rules[rule]);
    }

    why(row, entries) {
      const { answers, meanings } = this.data;
      const word = this.words[row];
      if (answers[word]) return [answers[word]];
      if (this.columns.includes("rule")) {
        const rules = this.rulesOf(entries);
        if (rules.length === 1) return [code(rules[0].split(" (group ")[0])];
        return [rules.length ? plural(rules.length, "rule") : word];
      }
      const explained = this.explained.get(this.rowName(row));
      if (explained) return [...explained].map((node) => node.cloneNode(true));
      return [span("badge deny", word), ` ${meanings[word] ?? ""}`];
    }

    line(row) {
      const { count, bytes: size, first } = this.sums;
      const { kinds, services } = this.data;
      const entries = this.entries(row);
      const contents = {
        connections: () => [number(count[row])], packets: () => [number(count[row])], bytes: () => [bytes(size[row])],
        from: () => [this.unfold(row), this.end(entries, "source")], to: () => [this.end(entries, "destination")],
        service: () => [code(services[kinds.service[first[row]]])],
      };
      const line = element("tr", {});
      line.setAttribute("role", "row");
      this.heads.forEach((head, n) => {
        const content = (contents[this.columns[n]] ?? (() => this.why(row, entries)))();
        const cell = element("td", { className: head.className }, ...content);
        cell.setAttribute("role", "cell");
        cell.dataset.label = head.textContent;
        line.append(cell);
      });
      return line;
    }

    // The button that shows a row's details.
    unfold(row) {
      const button = element("button", { type: "button", className: "unfold" });
      button.setAttribute("aria-expanded", "false");
      button.setAttribute("aria-label", "Details of this row");
      button.addEventListener("click", () => {
        const line = button.closest("tr");
        const open = button.getAttribute("aria-expanded") === "false";
        button.setAttribute("aria-expanded", String(open));
        if (open) line.after(this.details(row));
        else line.nextElementSibling.remove();
      });
      return button;
    }

    // What a row unfolds to: the rules, and its instances and addresses.
    details(row) {
      const entries = this.entries(row);
      const parts = [];
      const near = this.data.near[this.rowName(row)] ?? [];
      for (const [name, lines] of [["Rule", this.rulesOf(entries)], ["Nearest rule", near]]) {
        if (lines.length) parts.push(element("p", {}, `${name}${lines.length === 1 ? "" : "s"}: `, ...this.ruleLines(lines)));
      }
      if (this.key === "broken") {
        const attempts = entries.reduce((sum, { kind }) => sum + this.data.kinds.attempts[kind], 0);
        const denied = `${plural(this.sums.packets[row], "packet")}, ${bytes(this.sums.bytes[row])}`;
        parts.push(element("p", {}, `Denied: ${plural(attempts, "attempt")} to open a connection, ${denied}.`));
      }
      const body = element("ul", {});
      const more = element("button", { type: "button", className: "all" });
      const add = (most) => {
        const from = body.children.length;
        body.append(...entries.slice(from, from + most).map((entry) => this.kindLine(entry)));
        const left = entries.length - body.children.length;
        more.hidden = !left;
        more.textContent = `Show ${number(Math.min(left, MORE))} more of ${number(entries.length)}`;
      };
      more.addEventListener("click", () => add(MORE));
      add(KINDS_OF_A_ROW);
      const cell = element("td", { colSpan: this.heads.length }, element("div", { className: "unfolded" }, ...parts, body, more));
      return element("tr", { className: "details" }, cell);
    }

    ruleLines(lines) {
      const first = lines.slice(0, 5).map((line) => element("span", { className: "line" }, line));
      return lines.length > 5 ? [...first, span("line", `and ${number(lines.length - 5)} more`)] : first;
    }

    kindLine({ kind, count }) {
      const { kinds } = this.data;
      const [first, last] = [kinds.first[kind], kinds.last[kind]].map(seconds);
      const example = kinds.number[kind] ? `packet ${number(kinds.number[kind])} ` : "";
      const when = first && `: ${example}at ${first}${last === first ? "" : `, the last at ${last}`}`;
      const ends = [this.endName(kinds.source[kind]), " → ", this.endName(kinds.destination[kind])];
      return element("li", {}, ...ends, `, ${plural(count, this.counted)}`, span("soft", when));
    }
  }

  // Reads what html/columns.py wrote.
  async function kinds() {
    const text = document.getElementById("kinds").innerHTML;
    const letters = atob(text);
    const packed = new Uint8Array(letters.length);
    for (let n = 0; n < packed.length; n += 1) packed[n] = letters.charCodeAt(n);
    const data = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
    data.kinds.unbroken = data.kinds.packets.map((packets, kind) => (data.kinds.breaks[kind] ? 0 : packets));
    for (const [name, column] of Object.entries(data.kinds)) data.kinds[name] = Float64Array.from(column);
    return data;
  }

  function setUrl(key, options) {
    const words = options.toString();
    try { history.replaceState(null, "", `#${key}${words && `?${words}`}`); } catch { /* URL unchanged */ }
  }

  for (const table of document.querySelectorAll("table[data-table]:not([data-answers])")) {
    tables.set(table.dataset.table, new Table(table));
  }

  let choice = null;

  function follow() {
    const [key, words] = location.hash.slice(1).split(/\?(.*)/s);
    if (words === undefined) return;
    const options = new URLSearchParams(words);
    const section = document.getElementById(key);
    const list = lists.find((each) => each.key === key);
    if (tables.has(key)) tables.get(key).set(options);
    else if (choice && (list || key === "matrix")) {
      list?.set(options);
      choice.set(options);
    } else return;
    // A click on the matrix leaves it where it is.
    if (key !== "matrix" || !choice.section.contains(document.activeElement)) section.scrollIntoView({ behavior: "instant" });
  }

  async function answer() {
    const found = [...document.querySelectorAll("table[data-answers]")];
    if (!document.getElementById("matrix")) return;
    try {
      const data = await kinds();
      choice = new Choice(data);
      for (const table of found) lists.push(new List(table, choice));
      choice.choose();
      root.classList.add("answers");
    } catch {
      // Old browsers cannot decompress: they have the largest rows.
      for (const table of found) tables.set(table.dataset.table, new Table(table));
    }
  }
  addEventListener("hashchange", follow);
  follow();
  answer().then(follow).finally(() => root.classList.add("ready"));

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
