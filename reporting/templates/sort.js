const valueOf = (row, column) => {
  const cell = row.cells[column];
  return cell.dataset.value ?? cell.textContent;
};

const compare = (first, second, direction) => {
  const gaps = [first, second].map((value) => value === "" || value === "-");
  if (gaps[0] || gaps[1]) return gaps[0] - gaps[1]; // last, whichever the direction
  const [a, b] = [parseFloat(first), parseFloat(second)];
  return direction * (isNaN(a) || isNaN(b) ? first.localeCompare(second) : a - b);
};

const sort = (heading) => {
  const body = heading.closest("table").tBodies[0];
  const column = heading.cellIndex;
  const rows = [...body.rows];
  const numeric = rows.some((row) => !isNaN(parseFloat(valueOf(row, column))));
  const order = { none: numeric ? "descending" : "ascending", ascending: "descending", descending: "ascending" };
  const next = order[heading.ariaSort];
  for (const other of heading.parentNode.cells) other.ariaSort = "none";
  heading.ariaSort = next;
  const direction = next === "ascending" ? 1 : -1;
  rows.sort((a, b) => compare(valueOf(a, column), valueOf(b, column), direction));
  body.append(...rows);
};

for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => sort(button.parentNode));
}
