//! What to paste: the setting of each runtime with the pool's size filled in.
//!
//! In: runtime, service, size. Out: a [`Snippet`]. The names are those of the runtimes' own documentation; default
//! values are not stated, because they differ between versions.

mod database;
mod http;

use std::net::SocketAddr;

use super::runtimes::{Runtime, Service};

/// Something to paste, and what to mind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snippet {
    /// What it does, in one line.
    pub title: &'static str,
    /// The piece of code or configuration.
    pub code: String,
    /// What to mind with this runtime; empty where there is nothing.
    pub note: &'static str,
}

/// The snippet for a `runtime` that talks to `service` at `to`, with pools of `size` connections in each process; `None`
/// where the runtime is unknown or there is nothing better than the general advice.
pub fn snippet(runtime: Option<Runtime>, service: Service, to: SocketAddr, size: u32) -> Option<Snippet> {
    match service {
        Service::Dns => dns(to),
        Service::Postgres | Service::Mysql | Service::Redis => database::snippet(runtime, service, to, size),
        Service::Http | Service::Https => http::snippet(runtime?, service == Service::Https, to, size),
    }
}

/// Something on this host that keeps `size` connections to `to` for processes that cannot; `None` where there is nothing usual.
pub fn proxy(service: Service, to: SocketAddr, size: u32) -> Option<Snippet> {
    match service {
        Service::Dns => dns(to),
        Service::Postgres | Service::Mysql => database::snippet(None, service, to, size),
        Service::Redis => None,
        Service::Http | Service::Https => Some(http::local_proxy(service == Service::Https, to, size)),
    }
}

/// A resolver on this host keeps the answers, and the connections to its upstream; `None` where this host is asked already (and
/// unbound asks no resolver on its own host unless told to).
fn dns(to: SocketAddr) -> Option<Snippet> {
    (!to.ip().to_canonical().is_loopback()).then(|| Snippet {
        title: "Ask a caching resolver on this host",
        code: format!(
            "# /etc/unbound/unbound.conf.d/cache.conf\nserver:\n    interface: 127.0.0.1\n    prefetch: yes\nforward-zone:\n    name: \".\"\n    forward-addr: {}\n\n# /etc/resolv.conf\nnameserver 127.0.0.1",
            to.ip()
        ),
        note: "A cache answers most look-ups itself, and pooling by each program is then not needed.",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(port: u16) -> SocketAddr {
        ([203, 0, 113, 9], port).into()
    }

    #[test]
    fn every_snippet_carries_the_number_and_fits_a_terminal() {
        for runtime in Runtime::ALL {
            for service in Service::ALL {
                let Some(s) = snippet(Some(runtime), service, to(443), 8642) else {
                    continue;
                };
                let name = format!("{runtime:?} {service:?}");
                // A resolver is not sized, and PHP and clients that multiplex have nowhere to put a number.
                let sized = s.code.contains("8642");
                let unsized_ =
                    service == Service::Dns || s.code.contains("pers") || s.code.contains("ioredis");
                assert!(
                    !s.code.contains("  \n") && !s.code.contains('\t'),
                    "{name}: {}",
                    s.code
                );
                assert!(sized || unsized_, "{name}: {}", s.code);
                assert!(!s.title.ends_with('.') && !s.title.is_empty(), "{name}");
                assert!(
                    s.code.lines().all(|l| l.chars().count() <= 88),
                    "{name}: {}",
                    s.code
                );
                assert!(!s.code.ends_with('\n'), "{name}");
            }
        }
    }

    #[test]
    fn every_runtime_has_one_for_http_and_every_database_one_for_anybody() {
        // PgBouncer speaks no HTTP.
        for runtime in Runtime::ALL.into_iter().filter(|r| *r != Runtime::PgBouncer) {
            for service in [Service::Http, Service::Https] {
                assert!(
                    snippet(Some(runtime), service, to(80), 5).is_some(),
                    "{runtime:?}"
                );
            }
        }
        for service in [Service::Postgres, Service::Mysql, Service::Redis, Service::Dns] {
            assert_eq!(
                snippet(None, service, to(1), 5).is_some(),
                service != Service::Redis
            );
        }
        assert_eq!(snippet(None, Service::Https, to(443), 5), None);
    }

    #[test]
    fn a_resolver_on_this_host_is_not_sent_to_itself() {
        let stub = ([127, 0, 0, 53], 53).into();
        assert_eq!(snippet(Some(Runtime::Python), Service::Dns, stub, 3), None);
        assert_eq!(proxy(Service::Dns, stub, 3), None);
    }

    #[test]
    fn processes_that_end_get_something_that_stays() {
        for (service, expected) in [
            (Service::Http, Some("keepalive 7;")),
            (Service::Https, Some("proxy_ssl_server_name on;")),
            (Service::Postgres, Some("default_pool_size = 7")),
            (Service::Mysql, Some(", 7);")),
            (Service::Dns, Some("forward-addr: 203.0.113.9")),
            (Service::Redis, None),
        ] {
            let code = proxy(service, to(443), 7).map(|s| s.code);
            match expected {
                Some(part) => assert!(code.unwrap().contains(part), "{service:?}"),
                None => assert_eq!(code, None),
            }
        }
    }

    #[test]
    fn the_scheme_follows_the_service() {
        let code = |service| {
            snippet(Some(Runtime::Node), service, to(443), 12)
                .map(|s| s.code)
                .unwrap_or_default()
        };
        assert!(code(Service::Https).contains("new https.Agent({ keepAlive: true, maxSockets: 12 })"));
        assert!(code(Service::Http).contains("new http.Agent("));
    }
}
