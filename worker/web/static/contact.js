// The word that what a page shows is not of now: there while the server does not answer.
(() => {
  "use strict";

  const stale = document.getElementById("stale");
  if (!stale) return;
  for (const event of ["htmx:error", "htmx:response:error", "contact:lost"]) {
    document.addEventListener(event, () => { stale.hidden = false; });
  }
  document.addEventListener("htmx:after:swap", (event) => {
    if ((event.detail?.ctx?.response?.status ?? 200) < 400) stale.hidden = true;
  });
})();
