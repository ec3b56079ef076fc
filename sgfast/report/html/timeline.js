// The timeline: show the numbers of the bar under the pointer, or at the position of the arrow keys.
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
