// Equations: arithmatex marks them, KaTeX renders them.
renderMathInElement(document.body, {
  delimiters: [
    { left: "\\[", right: "\\]", display: true },
    { left: "\\(", right: "\\)", display: false },
  ],
  throwOnError: false,
});

// The catalogue: a button a family shows its rows; the address keeps the choice.
const buttons = document.querySelectorAll(".families button");

function choose(family) {
  for (const button of buttons) {
    button.classList.toggle("md-button--primary", button.dataset.family === family);
  }
  for (const row of document.querySelectorAll("table.cells tbody tr")) {
    row.hidden = family !== "" && row.dataset.family !== family;
  }
}

for (const button of buttons) {
  button.addEventListener("click", () => {
    history.replaceState(null, "", "#" + button.dataset.family);
    choose(button.dataset.family);
  });
}
if (buttons.length) {
  const names = [...buttons].map((button) => button.dataset.family);
  const chosen = location.hash.slice(1);
  choose(names.includes(chosen) ? chosen : "");
}
