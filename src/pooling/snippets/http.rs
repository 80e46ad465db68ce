//! HTTP clients and proxies.

use std::net::SocketAddr;

use super::{Runtime, Snippet};

/// The snippet for HTTP.
pub fn snippet(runtime: Runtime, tls: bool, to: SocketAddr, size: u32) -> Option<Snippet> {
    let scheme = if tls { "https" } else { "http" };
    let (title, code, note) = match runtime {
        Runtime::Node => (
            "Give one keep-alive agent to every request",
            format!(
                "// once per process, not once per request\n\
                 const agent = new {scheme}.Agent({{ keepAlive: true, maxSockets: {size} }})\n\
                 {scheme}.get(url, {{ agent }}, onResponse)\n\n\
                 // with fetch:\n\
                 import {{ Agent, setGlobalDispatcher }} from 'undici'\n\
                 setGlobalDispatcher(new Agent({{ connections: {size} }}))"
            ),
            "Read every response to its end, or its connection cannot be reused. An agent made with `new Agent()` and no \
             options does not keep connections.",
        ),
        Runtime::Python => (
            "Share one session between all requests",
            format!(
                "# requests: once per process\n\
                 session = requests.Session()\n\
                 session.mount(\"{scheme}://\", requests.adapters.HTTPAdapter(\n    \
                     pool_maxsize={size}, pool_block=True))\n\n\
                 # httpx: once per process\n\
                 client = httpx.Client(limits=httpx.Limits(\n    \
                     max_connections={size}, max_keepalive_connections={size}))"
            ),
            "`requests.get()` makes a new session, thus a new connection, for each call.",
        ),
        Runtime::Go => (
            "Share one http.Client whose transport keeps enough idle connections",
            format!(
                "transport := http.DefaultTransport.(*http.Transport).Clone()\n\
                 transport.MaxIdleConns = 0 // no limit over all hosts\n\
                 transport.MaxIdleConnsPerHost = {size}\n\
                 transport.MaxConnsPerHost = {size}\n\
                 client := &http.Client{{Transport: transport}} // once per process"
            ),
            "Go keeps two idle connections per host unless told otherwise (`DefaultMaxIdleConnsPerHost`) and closes the \
             rest. Read each body to its end and close it, or its connection cannot be reused.",
        ),
        Runtime::Java => (
            "Share one HttpClient",
            format!(
                "// once per process\n\
                 static final HttpClient CLIENT = HttpClient.newHttpClient();\n\n\
                 // java.net.http:      java -Djdk.httpclient.connectionPoolSize={size} …\n\
                 // HttpURLConnection:  java -Dhttp.maxConnections={size} …"
            ),
            "Each `HttpClient` has a pool of its own, which the property bounds for the idle ones only. Read each body to its end.",
        ),
        Runtime::Ruby => (
            "Keep connections with net-http-persistent",
            format!(
                "require \"net/http/persistent\"\n\
                 # once per process\n\
                 HTTP = Net::HTTP::Persistent.new(name: \"api\", pool_size: {size})\n\
                 HTTP.request(URI(\"{scheme}://{to}/\"))"
            ),
            "`Net::HTTP.get` opens and closes a connection for each call.",
        ),
        Runtime::Php => (
            "Keep connections beyond the request, or put a keep-alive proxy on this host",
            format!(
                "// PHP 8.5 and later: outlives the request, one set of connections per worker\n\
                 $share = curl_share_init_persistent(\n    \
                     [CURL_LOCK_DATA_DNS, CURL_LOCK_DATA_CONNECT]);\n\
                 curl_setopt($curl, CURLOPT_SHARE, $share);\n\n\
                 # before 8.5: nginx on this host, and call http://127.0.0.1:8080/ instead\n{}",
                nginx_on_this_host(tls, to, size)
            ),
            "PHP ends all connections with the request, so a pool inside the script does not help.",
        ),
        Runtime::DotNet => (
            "Share one HttpClient",
            format!(
                "// once per process; never one per request, never in a using block\n\
                 static readonly HttpClient Client = new(new SocketsHttpHandler\n{{\n    \
                     MaxConnectionsPerServer = {size},\n    \
                     PooledConnectionLifetime = TimeSpan.FromMinutes(5), // follows DNS changes\n}});"
            ),
            "Disposing an `HttpClient` closes its connections. `IHttpClientFactory` does as well as a static client.",
        ),
        Runtime::Rust => (
            "Share one reqwest::Client",
            format!(
                "// once per process; clones share the pool\n\
                 let client = reqwest::Client::builder()\n    \
                     .pool_max_idle_per_host({size})\n    \
                     .build()?;"
            ),
            "A new `Client` per request is a new pool per request.",
        ),
        Runtime::Beam => (
            "Start one Finch pool for this host",
            format!(
                "# application.ex, among the children\n\
                 {{Finch, name: MyFinch,\n  \
                     pools: %{{\"{scheme}://{to}\" => [size: {size}, count: 1]}}}}"
            ),
            "Use the address as it stands in your URLs as the key.",
        ),
        Runtime::PgBouncer => return None,
        Runtime::Nginx => (
            "Keep upstream connections open",
            format!(
                "upstream backend {{\n    \
                     server {to};\n    \
                     keepalive {size};    # idle connections that each worker keeps\n}}\n\
                 location / {{\n    \
                     proxy_pass {scheme}://backend;\n    \
                     proxy_http_version 1.1;\n    \
                     proxy_set_header Connection \"\";\n}}"
            ),
            "Before 1.29.7 nginx speaks HTTP/1.0 to upstreams and closes after each request unless all three lines are there.",
        ),
        Runtime::Haproxy => (
            "Reuse server connections",
            format!(
                "backend api\n    \
                     http-reuse aggressive\n    \
                     server s1 {to} pool-max-conn {size}    # keep your other options"
            ),
            "Take out `option httpclose` and `option http-server-close`: they close after each request.",
        ),
        Runtime::Envoy => (
            "Let the cluster keep its connections",
            format!(
                "# in the cluster; under common_http_protocol_options leave out\n\
                 # max_requests_per_connection\n\
                 circuit_breakers:\n  \
                     thresholds: [ {{ max_connections: {size} }} ]"
            ),
            "Envoy keeps upstream connections by itself: where it opens many, the upstream closes them or a limit on requests \
             per connection is set.",
        ),
    };
    Some(Snippet { title, code, note })
}

/// nginx on this host in place of a pool inside the processes.
pub fn local_proxy(tls: bool, to: SocketAddr, size: u32) -> Snippet {
    Snippet {
        title: "Put a keep-alive proxy on this host",
        code: format!(
            "# nginx; the programs call http://127.0.0.1:8080/ instead\n{}",
            nginx_on_this_host(tls, to, size)
        ),
        note: "`keepalive` counts idle connections of each nginx worker. Connections to 127.0.0.1 use ports towards it only.",
    }
}

fn nginx_on_this_host(tls: bool, to: SocketAddr, size: u32) -> String {
    let (scheme, name) = if tls {
        (
            "https",
            "\n        proxy_ssl_server_name on; # and proxy_ssl_name NAME",
        )
    } else {
        ("http", "")
    };
    format!(
        "upstream api {{ server {to}; keepalive {size}; }}\n\
         server {{\n    \
             listen 127.0.0.1:8080;\n    \
             location / {{\n        \
                 proxy_pass {scheme}://api;{name}\n        \
                 proxy_http_version 1.1;\n        \
                 proxy_set_header Connection \"\";\n    \
             }}\n}}"
    )
}
