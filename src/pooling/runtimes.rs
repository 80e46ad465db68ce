//! Which runtime a process is, and which service a destination is: the two keys of a snippet.

use crate::finding::ProcessRef;

/// Runtimes and proxies that there is a snippet for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // their names
pub enum Runtime {
    Node,
    Python,
    Go,
    Java,
    Ruby,
    Php,
    DotNet,
    Rust,
    Beam,
    Nginx,
    Haproxy,
    Envoy,
    PgBouncer,
}

impl Runtime {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Node,
        Self::Python,
        Self::Go,
        Self::Java,
        Self::Ruby,
        Self::Php,
        Self::DotNet,
        Self::Rust,
        Self::Beam,
        Self::Nginx,
        Self::Haproxy,
        Self::Envoy,
        Self::PgBouncer,
    ];

    /// Its name in a sentence.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Node => "Node.js",
            Self::Python => "Python",
            Self::Go => "Go",
            Self::Java => "Java",
            Self::Ruby => "Ruby",
            Self::Php => "PHP",
            Self::DotNet => ".NET",
            Self::Rust => "Rust",
            Self::Beam => "Elixir",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Envoy => "Envoy",
            Self::PgBouncer => "PgBouncer",
        }
    }

    /// The runtime of a process: as it was recognised by its executable, else by its name.
    pub fn of(process: &ProcessRef) -> Option<Self> {
        process
            .runtime
            .as_deref()
            .and_then(Self::parse)
            .or_else(|| Self::parse(&process.comm))
    }

    /// By a runtime's or a program's name: `node`, `python3.12`, `php-fpm8.2`, `beam.smp`, …
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.trim().to_ascii_lowercase();
        // "php-fpm: pool www", "python3.12", "ruby3.1", "node22": the word before version, pool or path.
        let word = name
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
        Some(match word {
            "node" | "nodejs" => Self::Node,
            "python" | "cpython" | "pypy" | "gunicorn" | "uvicorn" | "celery" | "uwsgi" => Self::Python,
            "go" | "golang" => Self::Go,
            "java" | "jvm" => Self::Java,
            "ruby" | "puma" | "unicorn" | "sidekiq" => Self::Ruby,
            "dotnet" | ".net" | "clr" => Self::DotNet,
            "rust" => Self::Rust,
            "beam" | "beam.smp" | "elixir" | "erlang" | "erl" => Self::Beam,
            "nginx" | "openresty" => Self::Nginx,
            "haproxy" => Self::Haproxy,
            "envoy" => Self::Envoy,
            "pgbouncer" => Self::PgBouncer,
            other if other.starts_with("php") => Self::Php,
            other if other.starts_with("puma ") || other.starts_with("puma:") => Self::Ruby,
            other if other.starts_with("nginx:") => Self::Nginx,
            _ => return None,
        })
    }
}

/// What a destination is, by its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// HTTP over TLS (443, 8443).
    Https,
    /// HTTP, or anything that speaks requests and answers.
    Http,
    /// PostgreSQL (5432) or a pooler before it (6432).
    Postgres,
    /// MySQL or MariaDB (3306).
    Mysql,
    /// Redis or Valkey (6379, 6380).
    Redis,
    /// DNS (53) or DNS over TLS (853).
    Dns,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Https,
        Self::Http,
        Self::Postgres,
        Self::Mysql,
        Self::Redis,
        Self::Dns,
    ];

    /// By the destination's port. A convention, not proof: used to choose a snippet, never a verdict.
    pub const fn of(port: u16) -> Self {
        match port {
            443 | 8443 => Self::Https,
            5432 | 6432 => Self::Postgres,
            3306 => Self::Mysql,
            6379 | 6380 => Self::Redis,
            53 | 853 => Self::Dns,
            _ => Self::Http,
        }
    }

    /// Its name in a sentence.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Https => "HTTPS",
            Self::Http => "HTTP",
            Self::Postgres => "PostgreSQL",
            Self::Mysql => "MySQL",
            Self::Redis => "Redis",
            Self::Dns => "DNS",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_by_name() {
        for (name, expected) in [
            ("node", Some(Runtime::Node)),
            ("python3.12", Some(Runtime::Python)),
            ("php-fpm8.2", Some(Runtime::Php)),
            ("php-fpm: pool www", Some(Runtime::Php)),
            ("beam.smp", Some(Runtime::Beam)),
            ("/usr/lib/jvm/bin/java", Some(Runtime::Java)),
            ("nginx", Some(Runtime::Nginx)),
            ("pgbouncer", Some(Runtime::PgBouncer)),
            (".NET", Some(Runtime::DotNet)),
            ("", None),
            ("...", None),
            ("gopher", None),
            ("mynode", None),
        ] {
            assert_eq!(Runtime::parse(name), expected, "{name:?}");
        }
    }

    #[test]
    fn the_recognised_runtime_comes_before_the_name() {
        let mut process = ProcessRef {
            pid: 1,
            comm: "nginx".to_owned(),
            exe: None,
            runtime: Some("go".to_owned()),
        };
        assert_eq!(Runtime::of(&process), Some(Runtime::Go));
        process.runtime = None;
        assert_eq!(Runtime::of(&process), Some(Runtime::Nginx));
    }
}
