//! What a person with a browser reads who has no token.

use super::document;

/// The page of a 401.
pub fn refused() -> String {
    let body = "<main id=\"main\">\n<h1>This agent asks for its token</h1>\n\
        <p>It was started with one, so all but <code>/metrics</code> and the health checks are for those who have the token that \
        its <code>--token-file</code> holds.</p>\n<h2>With a browser</h2>\n\
        <p>Reload this page. Where the browser asks, give any user name, and the token as the password. It keeps both until \
        it is closed. Never put a token into an address: addresses are logged.</p>\n<h2>Over ssh</h2>\n\
        <p>There is no TLS here, so across a network that you do not trust go through ssh, and then ask \
        <code>http://127.0.0.1:9986/</code> the same way:</p>\n\
        <pre><code>ssh -L 9986:127.0.0.1:9986 HOST</code></pre>\n<h2>With a program</h2>\n\
        <pre><code>curl -H \"Authorization: Bearer $(cat TOKEN-FILE)\" http://HOST:9986/api/v1/report</code></pre>\n\
        </main>\n";
    document("wgnat: a token is needed", body, false)
}
