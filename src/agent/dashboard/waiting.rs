//! What a person with a browser reads before the first verdict.

use super::document;

/// The page of a 503: it has the parts that a whole page has, so that its script puts those in their place when the agent has judged.
pub fn waiting() -> String {
    let body = "<header>\n<h1>wgnat</h1>\n<p id=\"verdict\">The first look is under way</p>\n\
        <p id=\"link\" class=\"note\" role=\"status\">Reload this page in a moment.</p>\n</header>\n\
        <nav aria-label=\"Time shown\"></nav>\n<main id=\"main\">\n\
        <p>The agent has just been started, and waits for what each of its sources sees first: a second or two. Nothing is known \
        yet, good or bad. This page shows the verdict as soon as there is one.</p>\n</main>\n<footer></footer>\n";
    document("wgnat: the first look is under way", body, true)
}
