// Tables of kinds of traffic (answers.py), folded by groups. All kinds are in the page, as columns (columns.py).

const KINDS_OF_A_ROW = 20;
// An upper bound for the number of verdicts.
const PASSES = 8;
// Return a time in UTC, as amounts.py writes it. The time is in milliseconds.
const instant = (time, decimals) => new Date(time).toISOString().replace("T", " ").slice(0, decimals ? 20 + decimals : 19);

function bytes(n) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
  let power = 0;
  for (; n >= (power ? 999.95 : 1000) && power < 6; power += 1) n /= 1000;
  return `${n.toFixed(power ? 1 : 0)} ${units[power]}`;
}

// All kinds, and the reasons why a kind does not match the choice.
class Kinds {
  constructor(data, choice) {
    this.data = data;
    this.choice = choice;
    this.kinds = data.kinds;
    const { breaks, packets, unclear } = data.kinds;
    if (breaks) this.kinds.silence = packets.map((number, kind) => (breaks[kind] || unclear[kind] ? 0 : number));
    for (const [name, column] of Object.entries(this.kinds)) this.kinds[name] = Float64Array.from(column);
    this.ranked = new Map();
    // By kind: a bit for each chosen word that the kind lacks, and a bit if it is not between the chosen groups.
    this.misses = new Uint32Array(this.kinds.source.length);
    this.lists = [];
  }

  // Return the texts in which words are searched, each list with the columns of kinds that have its numbers.
  searched() {
    const { addresses, causes, ends, group, groups, meanings, near, passing = [], reasons, rules, services, titles } = this.data;
    const why = (html = "") => written(html).textContent;
    const found = [
      [["source", "destination"], ends.map((end, n) => [end, groups[group[n]], titles[n], addresses[n]].join("\n"))],
      [["service"], services], [["rule"], rules], [["passing"], passing],
      [["reason"], reasons.map((reason) => `${reason}\n${why(meanings[reason])}`)],
      [["cause"], causes.map(([html, nearest]) => [why(html), ...nearest.map((rule) => near[rule])].join("\n"))],
    ];
    return found.map(([columns, texts]) => [columns.filter((name) => this.kinds[name]), texts.map((text) => text.toLowerCase())]);
  }

  // Return the rank of each text of a list in alphabetical order.
  ranks(name) {
    if (!this.ranked.has(name)) this.ranked.set(name, ranked(this.data[name]));
    return this.ranked.get(name);
  }

  narrow() {
    const { source, destination } = this.kinds;
    const { choice, misses, data: { group, groups } } = this;
    const chosenFrom = choice.among(groups, choice.from, choice.rows);
    const chosenTo = choice.among(groups, choice.to, choice.columns);
    for (let n = 0; n < misses.length; n += 1) {
      misses[n] = chosenFrom[group[source[n]]] & chosenTo[group[destination[n]]] ? 0 : 1 << 30;
    }
    if (choice.words.length) this.texts ??= this.searched();
    choice.words.forEach((word, bit) => {
      const has = new Uint8Array(misses.length);
      for (const [columns, texts] of this.texts) {
        const found = Uint8Array.from(texts, (text) => text.includes(word));
        for (const name of columns) this.kinds[name].forEach((number, n) => { has[n] |= found[number]; });
      }
      for (let n = 0; n < misses.length; n += 1) misses[n] |= has[n] ? 0 : 1 << bit;
    });
    for (const list of this.lists) list.fold();
  }
}

// A table of kinds. Its entries are kinds with a count. The entries of a row are adjacent, largest first: those of row n
// are starts[n] to starts[n + 1].
class KindsTable extends Chosen {
  constructor(table, choice, all) {
    super(table, choice);
    this.shared = all;
    this.data = all.data;
    this.counted = this.columns.includes("connections") ? "connection" : "packet";
    this.setSort(new URLSearchParams());
    this.gather();
  }

  // The default is to sort by the first column, or by the answered connections, as the other reports do.
  setSort(options) {
    super.setSort(options);
    if (this.sort) return;
    this.sort = this.heads.find((head) => head.dataset.key === "answered") ?? this.heads[0];
    this.descending = options.has("dir") ? options.get("dir") === "desc" : true;
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
    this.data.tables[this.key].forEach(([column, answer], place) => {
      // Changed connections with different verdicts of the other policy are in different rows.
      const words = answer ? this.data.tables[this.key].length : this.data.reasons.length * PASSES;
      kinds[column].forEach((count, kind) => {
        if (!count) return;
        const pair = numberIn(pairs, group[kinds.source[kind]] * groups.length + group[kinds.destination[kind]]);
        const word = answer ? place : kinds.reason[kind] * PASSES + (kinds.passes?.[kind] ?? 0);
        const row = ((pair * services.length + kinds.service[kind]) * 2 + kinds.inbound[kind]) * words + word;
        rows.push(numberIn(numbered, row));
        counts.push(count);
        entries.push(kind);
      });
    });
    this.size = numbered.size;
    const order = Uint32Array.from(rows.keys()).sort((a, b) => rows[a] - rows[b] || counts[b] - counts[a]);
    this.kinds = Uint32Array.from(order, (place) => entries[place]);
    this.counts = Float64Array.from(order, (place) => counts[place]);
    this.starts = new Uint32Array(this.size + 1).fill(order.length);
    for (let n = order.length - 1; n >= 0; n -= 1) this.starts[rows[order[n]]] = n;
    this.total = counts.reduce((sum, count) => sum + count, 0);
    const answers = this.data.tables[this.key].map(([, answer]) => answer);
    // By row: what the instance answered, or the reason.
    this.words = new Array(this.size);
    for (const [key, row] of numbered) {
      const reason = Math.floor(key / PASSES) % this.data.reasons.length;
      this.words[row] = answers[0] ? answers[key % answers.length] : this.data.reasons[reason];
    }
    // By row: the sums over its chosen entries, and the largest kind among them.
    const [count, packets, size, answered, first] = Array.from({ length: 5 }, () => new Float64Array(this.size));
    this.sums = { count, packets, bytes: size, answered, first };
  }

  // Return the bits that count for a row: all except those of words that its answer contains.
  mask(row) {
    const answer = this.data.answers[this.words[row]]?.toLowerCase() ?? "";
    return ~this.choice.words.reduce((mask, word, bit) => (answer.includes(word) ? mask | 1 << bit : mask), 0);
  }

  // Find the rows with chosen entries, and add these entries up.
  fold() {
    const { misses, kinds: { packets, bytes: size, answered } } = this.shared;
    const { kinds, counts, starts, sums } = this;
    this.found = [];
    for (let row = 0; row < this.size; row += 1) {
      const mask = this.key === "services" ? this.mask(row) : ~0;
      let [count, packetCount, length, replied, first] = [0, 0, 0, 0, -1];
      for (let n = starts[row]; n < starts[row + 1]; n += 1) {
        const kind = kinds[n];
        if (misses[kind] & mask) continue;
        if (first < 0) first = n;
        count += counts[n];
        packetCount += packets[kind];
        length += size[kind];
        if (answered) replied += answered[kind];
      }
      if (first < 0) continue;
      [sums.count[row], sums.packets[row], sums.bytes[row]] = [count, packetCount, length];
      [sums.answered[row], sums.first[row]] = [replied, kinds[first]];
      this.found.push(row);
    }
    this.sorted();
  }

  // Return a function that gives each row the number to sort by.
  values() {
    const { kinds, group } = this.data;
    const { count, bytes: size, answered, first } = this.sums;
    const sort = this.sort.dataset.key;
    switch (sort) {
      case "connections": case "packets": return (row) => count[row];
      case "bytes": return (row) => size[row];
      case "answered": return (row) => answered[row];
      case "from": case "to": {
        const [ranks, ends] = [this.shared.ranks("groups"), sort === "from" ? kinds.source : kinds.destination];
        return (row) => ranks[group[ends[first[row]]]];
      }
      case "service": {
        const ranks = this.shared.ranks("services");
        return (row) => ranks[kinds.service[first[row]]];
      }
      case "rule": {
        const ranks = this.shared.ranks("rules");
        return (row) => ranks[kinds.rule[first[row]]] ?? -1;
      }
      default: {
        const ranks = new Map([...new Set(this.words)].sort().map((word, rank) => [word, rank]));
        return (row) => ranks.get(this.words[row]);
      }
    }
  }

  // Return which of two rows comes first: the larger one, or else that of the first groups and services.
  before(a, b) {
    const { group, kinds: { source, destination, service } } = this.data;
    const { count, first } = this.sums;
    const [one, other] = [first[a], first[b]];
    return count[b] - count[a] || group[source[one]] - group[source[other]]
      || group[destination[one]] - group[destination[other]] || service[one] - service[other] || a - b;
  }

  sum() {
    const sum = this.found.reduce((all, row) => all + this.sums.count[row], 0);
    return `${this.of(sum, this.total)} ${this.total === 1 ? this.counted : `${this.counted}s`}, `;
  }

  // Return the chosen entries of a row.
  entries(row) {
    const mask = this.mask(row);
    const found = [];
    for (let n = this.starts[row]; n < this.starts[row + 1]; n += 1) {
      if (!(this.shared.misses[this.kinds[n]] & mask)) found.push({ kind: this.kinds[n], count: this.counts[n] });
    }
    return found;
  }

  // Return the cell for the ends of entries: the name of a single end with its groups, or the groups of several.
  end(entries, column) {
    const { group, groups, nouns, exact, kinds } = this.data;
    const several = new Set(entries.map(({ kind }) => kinds[column][kind]));
    const [first] = several;
    const noun = nouns[group[first]];
    if (several.size === 1) {
      if (first >= exact || noun !== "instances") return this.endName(first);
      return span("", this.endName(first), " ", span("soft", `in ${groups[group[first]]}`));
    }
    const amount = [...several].some((end) => end >= exact) ? "many" : number(several.size);
    if (/^(private|public) addresses$/.test(groups[group[first]])) return span("", `${amount} ${groups[group[first]]}`);
    const name = noun === "instances" ? element("b", {}, groups[group[first]]) : groups[group[first]];
    return span("", name, " ", span("soft whole", `(${amount} ${noun})`));
  }

  endName(end) {
    const { ends, group, nouns, titles } = this.data;
    if (nouns[group[end]] !== "instances") return code(ends[end]);
    return element("b", titles[end] ? { title: titles[end] } : {}, ends[end]);
  }

  // Return the rules of entries: the policy's; for changed connections also those of the policy that lets them pass.
  rulesOf(entries, column = "rule", lines = this.data.rules) {
    const found = new Set(entries.map(({ kind }) => this.data.kinds[column][kind]));
    found.delete(-1);
    return [...found].map((rule) => lines[rule]);
  }

  ruleCell(rules) {
    if (rules.length === 1) return [code(rules[0].split(" (group ")[0])];
    return rules.length ? [plural(rules.length, "rule")] : [];
  }

  // Return the cell with the judgement of one of two policies: the one that blocks the entries, or the other one.
  judged(policy, row, entries) {
    const word = this.words[row];
    if (policy === this.data.blocks) {
      const badge = span("badge deny", word === "opener-denied" ? "moot" : "deny");
      return [badge, ` ${word} `, ...this.ruleCell(this.rulesOf(entries))];
    }
    const verdict = this.data.verdicts[this.data.kinds.passes[this.sums.first[row]]];
    return [span("badge allow", verdict), " ", ...this.ruleCell(this.rulesOf(entries, "passing", this.data.passing))];
  }

  why(row, entries) {
    const { answers, meanings } = this.data;
    const word = this.words[row];
    if (answers[word]) return [answers[word]];
    if (this.columns.includes("rule")) {
      const rules = this.rulesOf(entries);
      return rules.length ? this.ruleCell(rules) : [word];
    }
    const cause = this.data.causes[this.data.kinds.cause[this.sums.first[row]]];
    return [written(cause ? cause[0] : meanings[word] ?? "")];
  }

  // Return the nearest rules of entries, those of the largest entry first.
  near(entries) {
    const { causes, kinds, near } = this.data;
    const found = new Set(entries.flatMap(({ kind }) => causes[kinds.cause[kind]]?.[1] ?? []));
    return [...found].map((rule) => near[rule]);
  }

  cells(row) {
    const { count, bytes: size, first } = this.sums;
    const { kinds, services } = this.data;
    const entries = this.entries(row);
    const contents = {
      connections: () => [number(count[row])], packets: () => [number(count[row])], bytes: () => [bytes(size[row])],
      from: () => [this.unfold(row), this.end(entries, "source")], to: () => [this.end(entries, "destination")],
      answered: () => [number(this.sums.answered[row])],
      old: () => this.judged("old", row, entries), new: () => this.judged("new", row, entries),
      service: () => [code(services[kinds.service[first[row]]])],
    };
    return this.columns.map((column) => (contents[column] ?? (() => this.why(row, entries)))());
  }

  // Return the details of a row: its rules, instances and addresses.
  details(row) {
    const entries = this.entries(row);
    const { blocks, passing } = this.data;
    const parts = this.ruleLines(blocks ? `Rule of ${blocks.toUpperCase()}` : "Rule", this.rulesOf(entries));
    if (blocks) {
      parts.push(...this.ruleLines(`Rule of ${blocks === "new" ? "OLD" : "NEW"}`, this.rulesOf(entries, "passing", passing)));
    }
    parts.push(...this.ruleLines("Nearest rule", this.near(entries)));
    if (this.key === "broken") {
      const lacks = this.data.kinds.lacks[entries[0].kind];
      if (lacks >= 0) parts.push(element("p", {}, "Rules that would let the whole row through:"), element("pre", {}, this.data.lacking[lacks]));
      const attempts = entries.reduce((sum, { kind }) => sum + this.data.kinds.attempts[kind], 0);
      const denied = `${plural(this.sums.packets[row], "packet")}, ${bytes(this.sums.bytes[row])}`;
      parts.push(element("p", {}, `Denied: ${plural(attempts, "attempt")} to open a connection, ${denied}.`));
    }
    return [...parts, ...this.growing(entries, KINDS_OF_A_ROW, (entry) => this.kindLine(entry))];
  }

  kindLine({ kind, count }) {
    const { kinds, start, decimals } = this.data;
    const begin = start + kinds.first[kind];
    const [first, last] = [begin, begin + kinds.lasted[kind]].map((time) => instant(time, decimals));
    const example = kinds.number[kind] ? `packet ${number(kinds.number[kind])} ` : "";
    const when = kinds.first[kind] < 0 ? "" : `: ${example}at ${first}${last === first ? "" : `, the last at ${last}`} UTC`;
    const ends = [this.endName(kinds.source[kind]), " → ", this.endName(kinds.destination[kind])];
    return element("li", {}, ...ends, `, ${plural(count, this.counted)}`, span("soft", when));
  }
}

readers.kinds = (data, found, choice) => {
  const all = new Kinds(data, choice);
  all.lists = found.map((table) => new KindsTable(table, choice, all));
  choice.narrowed.push(all);
};
