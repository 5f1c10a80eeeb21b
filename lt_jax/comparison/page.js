// Sorts the rows of a table by a column: numbers by value, what is none last, text by letters.
document.querySelectorAll("table.sortable th button").forEach((button) => {
  button.addEventListener("click", () => {
    const header = button.closest("th"), table = header.closest("table");
    const down = header.getAttribute("aria-sort") !== "descending";
    const column = header.cellIndex, body = table.tBodies[0];
    const text = (row) => row.cells[column].textContent.trim();
    const compare = (a, b) => {
      const [x, y] = [parseFloat(text(a)), parseFloat(text(b))];
      if (isNaN(x) && isNaN(y)) return text(a).localeCompare(text(b)) * (down ? -1 : 1);
      if (isNaN(x) || isNaN(y)) return isNaN(x) ? 1 : -1;
      return down ? y - x : x - y;
    };
    table.querySelectorAll("th[aria-sort]").forEach((th) => th.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...[...body.rows].sort(compare));
  });
});
