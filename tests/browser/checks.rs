//! What must hold of any page: it fits, nothing lies on anything, all can be read, reached and named, nothing failed.

use super::Browser;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Every visible piece of text with its place, colours and size.
const TEXTS: &str = r#"(() => {
  const rgb = (text) => {
    const m = text.match(/rgba?\(([^)]+)\)/);
    if (!m) return null;
    const p = m[1].split(/[ ,\/]+/).map(Number);
    return { r: p[0], g: p[1], b: p[2], a: p.length > 3 ? p[3] : 1 };
  };
  const over = (top, under) => ({
    r: top.r * top.a + under.r * (1 - top.a), g: top.g * top.a + under.g * (1 - top.a),
    b: top.b * top.a + under.b * (1 - top.a), a: 1 });
  const behind = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(rgb(getComputedStyle(e).backgroundColor));
    let colour = { r: 255, g: 255, b: 255, a: 1 };
    for (const layer of layers.reverse()) if (layer) colour = over(layer, colour);
    return colour;
  };
  const light = (c) => {
    const f = (v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
    return 0.2126 * f(c.r) + 0.7152 * f(c.g) + 0.0722 * f(c.b);
  };
  const clip = (rect, element) => {
    let { left, right, top, bottom } = rect;
    for (let e = element; e && e !== document.body; e = e.parentElement) {
      if (getComputedStyle(e).overflowX === "visible") continue;
      const box = e.getBoundingClientRect();
      left = Math.max(left, box.left); right = Math.min(right, box.right);
      top = Math.max(top, box.top); bottom = Math.min(bottom, box.bottom);
    }
    return { left, right, top, bottom };
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.nodeValue.trim() || element.closest("script,style,title,desc,.skip:not(:focus)")) continue;
    const style = getComputedStyle(element);
    if (style.visibility === "hidden" || style.display === "none") continue;
    const svg = element instanceof SVGElement;
    const range = document.createRange();
    range.selectNodeContents(node);
    const rects = svg ? [element.getBoundingClientRect()] : [...range.getClientRects()];
    const ink = rgb(svg ? style.fill : style.color);
    const ground = behind(svg ? element.ownerSVGElement.parentElement : element);
    const [a, b] = [light(over(ink, ground)), light(ground)].sort((x, y) => y - x);
    const scale = svg ? element.ownerSVGElement.getBoundingClientRect().width / element.ownerSVGElement.viewBox.baseVal.width : 1;
    for (const rect of rects) {
      found.push({ text: node.nodeValue.trim().slice(0, 60), ...clip(rect, element), svg,
        contrast: (a + 0.05) / (b + 0.05), size: parseFloat(style.fontSize) * scale, bold: Number(style.fontWeight) >= 600 });
    }
  }
  return found.filter((t) => t.right - t.left > 0.5 && t.bottom - t.top > 0.5);
})()"#;

/// No sideways scrolling, and no text on another.
#[track_caller]
pub fn fits(browser: &Browser, what: &str) {
    let sizes = browser.eval("[document.documentElement.scrollWidth, document.documentElement.clientWidth]");
    let (scroll, client) = (sizes[0].as_f64().unwrap(), sizes[1].as_f64().unwrap());
    assert!(scroll <= client, "{what}: {scroll} wide in {client}");
    let texts = browser.eval(TEXTS);
    let texts = texts.as_array().unwrap();
    assert!(texts.len() > 10, "{what}: {texts:?}");
    let number = |text: &Value, name: &str| text[name].as_f64().unwrap();
    for (index, a) in texts.iter().enumerate() {
        let inside = number(a, "left") >= -0.5 && number(a, "right") <= client + 0.5;
        assert!(inside, "{what}: beyond the edge: {a}");
        for b in &texts[index + 1..] {
            let wide = number(a, "right").min(number(b, "right")) - number(a, "left").max(number(b, "left"));
            let high = number(a, "bottom").min(number(b, "bottom")) - number(a, "top").max(number(b, "top"));
            // Boxes of neighbouring lines touch; glyphs do not fill their boxes.
            assert!(wide < 1.5 || high < 4.0, "{what}: on each other:\n{a}\n{b}");
        }
    }
}

/// WCAG 2.2, 1.4.3: contrast of 4.5, or 3 where text is large (24 px, or 18.66 px and bold).
#[track_caller]
pub fn contrasts(browser: &Browser, what: &str) {
    let texts = browser.eval(TEXTS);
    for text in texts.as_array().unwrap() {
        let size = text["size"].as_f64().unwrap();
        let large = size >= 24.0 || size >= 18.66 && text["bold"] == true;
        let least = if large { 3.0 } else { 4.5 };
        assert!(text["contrast"].as_f64().unwrap() >= least, "{what}: {text}");
        assert!(size >= 10.5, "{what}: too small to read: {text}");
    }
}

/// No error in the console, no failed request, and none to anybody but `origin`.
#[track_caller]
pub fn clean(browser: &Browser, origin: &str) {
    let thrown = browser.events("Runtime.exceptionThrown");
    assert!(thrown.is_empty(), "{thrown:#?}");
    for event in ["Log.entryAdded", "Runtime.consoleAPICalled"] {
        for said in browser.events(event) {
            let level = said["entry"]["level"].as_str().or(said["type"].as_str());
            assert!(!matches!(level, Some("error" | "warning" | "assert")), "{said:#}");
        }
    }
    for failed in browser.events("Network.loadingFailed") {
        // A stream of events is ended when the page is left.
        assert_eq!(failed["canceled"], true, "{failed:#}");
    }
    for answer in browser.events("Network.responseReceived") {
        let status = answer["response"]["status"].as_u64().unwrap();
        assert!(status < 400, "{answer:#}");
    }
    let asked = browser.events("Network.requestWillBeSent");
    assert!(!asked.is_empty());
    for request in asked {
        let url = request["request"]["url"].as_str().unwrap();
        assert!(url.starts_with(origin) || url.starts_with("data:"), "{url}");
    }
}

/// What a screen reader is told: language, landmarks, headings in order, a name for all that can be focused and all pictures.
#[track_caller]
pub fn told_to_a_screen_reader(browser: &Browser) {
    assert_eq!(browser.eval("document.documentElement.lang"), "en");
    assert_ne!(browser.eval("document.title"), "");
    let levels = browser
        .eval("[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map((h) => Number(h.localName[1]))");
    let levels: Vec<u64> = levels
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n.as_u64().unwrap())
        .collect();
    assert_eq!(levels.first(), Some(&1), "{levels:?}");
    assert_eq!(levels.iter().filter(|n| **n == 1).count(), 1, "{levels:?}");
    assert!(levels.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{levels:?}");
    let doubled = browser.eval(
        "(() => { const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
           return ids.filter((id, n) => ids.indexOf(id) !== n || /\\s/.test(id)); })()",
    );
    assert_eq!(doubled, json!([]), "ids are unique");
    let tree = browser.call("Accessibility.getFullAXTree", json!({}));
    let nodes: Vec<&Value> = tree["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|n| n["ignored"] != true)
        .collect();
    let role = |node: &Value| node["role"]["value"].as_str().unwrap_or_default().to_owned();
    let name = |node: &Value| {
        node["name"]["value"]
            .as_str()
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let of = |wanted: &str| {
        nodes
            .iter()
            .filter(|n| role(n) == wanted)
            .map(|n| name(n))
            .collect::<Vec<_>>()
    };
    for landmark in ["banner", "main", "contentinfo"] {
        assert_eq!(of(landmark).len(), 1, "{landmark}");
    }
    assert_eq!(of("navigation"), ["Time shown"]);
    let regions = of("region");
    assert!(regions.iter().all(|name| !name.is_empty()), "{regions:?}");
    let distinct: BTreeSet<&String> = regions.iter().collect();
    assert_eq!(distinct.len(), regions.len(), "{regions:?}");
    for node in &nodes {
        let focusable = node["properties"].as_array().is_some_and(|all| {
            all.iter()
                .any(|p| p["name"] == "focusable" && p["value"]["value"] == true)
        });
        let picture = matches!(role(node).as_str(), "image" | "img" | "graphics-document");
        let control = focusable && role(node) != "RootWebArea";
        if picture || control {
            assert!(!name(node).is_empty(), "no name: {node:#}");
        }
        if picture {
            let described = node["description"]["value"].as_str().unwrap_or_default();
            assert!(
                name(node).len() + described.len() > 30,
                "a picture is told: {node:#}"
            );
        }
    }
    let live = nodes
        .iter()
        .filter(|n| role(n) == "status")
        .map(|n| n.to_string())
        .collect::<Vec<_>>();
    assert_eq!(
        live.len(),
        2,
        "the verdict, and whether the page is live: {live:?}"
    );
}

/// The tab key reaches each link and each scrolling region in the order of the page, and where it is can be seen.
#[track_caller]
pub fn reached_by_keyboard(browser: &Browser) {
    let all = browser.eval(
        "(() => { window.reachable = [...document.querySelectorAll('a[href],button,input,select,summary,[tabindex=\"0\"]')];
           document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex');
           return reachable.length; })()",
    );
    let all = all.as_u64().unwrap();
    assert!(all > 5);
    for index in 0..all {
        browser.key("Tab", 9, 0);
        let at = browser.eval(
            "(() => { const e = document.activeElement, style = getComputedStyle(e), box = e.getBoundingClientRect();
               return { index: window.reachable.indexOf(e), outline: style.outlineStyle, width: parseFloat(style.outlineWidth),
                 seen: box.width > 0 && box.left >= 0 && box.right <= innerWidth + 1 && box.bottom > 0 && box.top < innerHeight,
                 what: e.outerHTML.slice(0, 120) }; })()",
        );
        assert_eq!(at["index"], index, "{at}");
        assert!(
            at["outline"] != "none" && at["width"].as_f64() >= Some(2.0),
            "no focus to see: {at}"
        );
        assert_eq!(at["seen"], true, "beyond the window: {at}");
    }
}
