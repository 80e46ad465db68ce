"use strict";
// Renews the page when the agent has judged again. The old page is changed only where the new one differs, so that focus,
// scrolling, selection and what a screen reader is at stay where they are. A page that nobody looks at waits.
(() => {
  const EVERY = 5000;
  const link = () => document.getElementById("link");
  const say = (text) => {
    if (link() && link().textContent !== text) link().textContent = text;
  };
  const same = (a, b) =>
    a.nodeType === b.nodeType && a.nodeName === b.nodeName && (a.id || "") === (b.id || "");
  // Makes `old` equal to `next`; elements with an id keep their identity wherever they move to.
  const morph = (old, next) => {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== next.nodeValue) old.nodeValue = next.nodeValue;
      return;
    }
    if (old.id === "link" || old.isEqualNode(next)) return;
    for (const { name } of [...old.attributes]) {
      if (!next.hasAttribute(name)) old.removeAttribute(name);
    }
    for (const { name, value } of next.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    let at = old.firstChild;
    for (const child of [...next.childNodes]) {
      if (child.id && !(at && same(at, child))) {
        const known = [...old.children].find((own) => same(own, child));
        if (known) {
          old.insertBefore(known, at);
          at = known;
        }
      }
      if (at && same(at, child)) {
        morph(at, child);
        at = at.nextSibling;
      } else {
        old.insertBefore(document.importNode(child, true), at);
      }
    }
    while (at) {
      const gone = at;
      at = at.nextSibling;
      gone.remove();
    }
  };
  let [busy, again, last, timer] = [false, false, 0, 0];
  const renew = async () => {
    if (document.hidden) return;
    if (busy) {
      again = true;
      return;
    }
    clearTimeout(timer);
    timer = 0;
    busy = true;
    last = Date.now();
    try {
      const answer = await fetch(location.pathname + location.search, { cache: "no-store" });
      if (answer.ok) {
        const next = new DOMParser().parseFromString(await answer.text(), "text/html");
        next.querySelectorAll("script").forEach((script) => script.remove());
        for (const part of ["header", "nav", "main", "footer"]) {
          const [old, now] = [document.querySelector(part), next.querySelector(part)];
          if (old && now) morph(old, now);
        }
        if (document.title !== next.title) document.title = next.title;
      }
    } catch (error) {
      // The agent is away; the event source tries again by itself, and says so.
    } finally {
      busy = false;
      if (again) {
        again = false;
        renew();
      }
    }
  };
  // A new verdict is worth a look once in a while, a finding at once.
  const soon = () => {
    if (!timer) timer = setTimeout(renew, Math.max(0, last + EVERY - Date.now()));
  };
  const events = new EventSource("/api/v1/events");
  events.addEventListener("hello", () => {
    say("Live: this page renews itself.");
    soon();
  });
  events.addEventListener("report", soon);
  events.addEventListener("finding", renew);
  events.addEventListener("missed", renew);
  events.addEventListener("error", () => {
    say(
      events.readyState === EventSource.CLOSED
        ? "Not live: the agent takes no more listeners, or is gone. Reload the page to try again."
        : "Not live: the agent does not answer. Trying again…",
    );
  });
  document.addEventListener("visibilitychange", renew);
})();
