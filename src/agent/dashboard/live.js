"use strict";
// Renews the page when the agent has judged again; a page that nobody looks at waits.
(() => {
  let busy = false;
  const renew = async () => {
    if (busy || document.hidden) return;
    busy = true;
    try {
      const answer = await fetch("/", { cache: "no-store" });
      if (!answer.ok) return;
      const next = new DOMParser().parseFromString(await answer.text(), "text/html");
      const [old, main] = [document.querySelector("main"), next.querySelector("main")];
      if (main && old.innerHTML !== main.innerHTML) old.replaceWith(main);
      document.title = next.title;
    } catch (error) {
      // The agent is away; the event source tries again by itself.
    } finally {
      busy = false;
    }
  };
  new EventSource("/api/v1/events").addEventListener("report", renew);
  document.addEventListener("visibilitychange", renew);
})();
