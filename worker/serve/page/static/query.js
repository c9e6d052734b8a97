// The query page works without this; with it, some things are told sooner.
"use strict";

// A look-up that got no answer, or none that could be shown.
for (const event of ["htmx:error", "htmx:response:error"]) {
  document.addEventListener(event, ({ target }) => {
    const answer = document.querySelector("#answer");
    if (answer !== null && target instanceof Element && target.matches("form.one-number")) {
      const told = document.createElement("p");
      told.className = "alert";
      told.textContent = answer.dataset.failed;
      answer.replaceChildren(told);
    }
  });
}

// The form of a list: too large a file is told before it is sent, and nobody sends it twice.

for (const form of document.querySelectorAll("form.list-form")) {
  const problem = form.querySelector("p.alert[hidden]");
  const button = form.querySelector("button.primary");
  const file = form.querySelector("input[type=file]");
  const label = button.textContent;
  const chosen = form.querySelector(".chosen");
  const tellFile = () => { chosen.lastElementChild.textContent = file.files[0]?.name ?? chosen.dataset.none; };

  chosen.hidden = false;
  tellFile();
  file.addEventListener("change", tellFile);

  form.addEventListener("submit", (event) => {
    const given = file.files[0];
    const tooLarge = given !== undefined && given.size > Number(form.dataset.mostBytes);
    problem.hidden = !tooLarge;
    if (tooLarge) {
      problem.textContent = form.dataset.tooLarge;
      event.preventDefault();
      file.focus();
      return;
    }
    button.disabled = true;
    button.textContent = form.dataset.busy;
    form.setAttribute("aria-busy", "true");
  });

  // back from the next page, by the browser's own button
  window.addEventListener("pageshow", () => {
    button.disabled = false;
    button.textContent = label;
    form.removeAttribute("aria-busy");
    tellFile();
  });
}
