//! Which language runtime or proxy a process is, by its names.
//!
//! In: the executable's path and the process's name, or the names of what it has loaded. Out: a short name, the one that
//! pooling advice goes by. Go and Rust programs have no telling name: `wire::elf` recognises them.

/// Executables that tell by their whole name.
const EXACT: [(&str, &str); 22] = [
    ("beam.smp", "erlang"),
    ("bun", "bun"),
    ("bundle", "ruby"),
    ("deno", "deno"),
    ("dotnet", "dotnet"),
    ("envoy", "envoy"),
    ("gunicorn", "python"),
    ("haproxy", "haproxy"),
    ("httpd", "apache"),
    ("apache2", "apache"),
    ("java", "java"),
    ("nginx", "nginx"),
    ("node", "node"),
    ("nodejs", "node"),
    ("openresty", "nginx"),
    ("pgbouncer", "pgbouncer"),
    ("php", "php"),
    ("puma", "ruby"),
    ("python", "python"),
    ("ruby", "ruby"),
    ("squid", "squid"),
    ("uwsgi", "python"),
];

/// Executables whose name goes on with a version: `python3.12`, `php-fpm8.2`, `ruby3.1`.
const VERSIONED: [(&str, &str); 5] = [
    ("php-cgi", "php"),
    ("php-fpm", "php"),
    ("php", "php"),
    ("python", "python"),
    ("ruby", "ruby"),
];

/// The runtime of a process with executable `exe` (a path, or empty where not readable) and name `comm`.
pub fn runtime_of(exe: &str, comm: &str) -> Option<&'static str> {
    // A replaced executable, as after an upgrade, is shown with this suffix (fs/d_path.c).
    let exe = exe.strip_suffix(" (deleted)").unwrap_or(exe);
    let file = exe.rsplit('/').next().unwrap_or_default();
    by_name(file).or_else(|| by_name(comm))
}

/// Libraries by which a program that has a runtime in it is told: a .NET application under its own name, a JVM or an
/// interpreter started by some other program.
const LIBRARIES: [(&str, &str); 6] = [
    ("libcoreclr.so", "dotnet"),
    ("libjvm.so", "java"),
    ("libnode.so", "node"),
    ("libphp", "php"),
    ("libpython", "python"),
    ("libruby", "ruby"),
];

/// The runtime among the files that a process has mapped (`/proc/PID/maps`); `None` where there is none or more than one.
pub fn runtime_by_libraries(maps: &str) -> Option<&'static str> {
    let mut found = None;
    for line in maps.lines() {
        let file = line.rsplit('/').next().unwrap_or_default();
        let runtime = LIBRARIES
            .iter()
            .find(|(name, _)| line.contains('/') && file.starts_with(name))
            .map(|(_, runtime)| *runtime);
        match (found, runtime) {
            (Some(one), Some(other)) if one != other => return None,
            (None, Some(runtime)) => found = Some(runtime),
            _ => {}
        }
    }
    found
}

fn by_name(name: &str) -> Option<&'static str> {
    let exact = EXACT.iter().find(|(known, _)| *known == name);
    let versioned = || {
        VERSIONED.iter().find(|(known, _)| {
            name.strip_prefix(known)
                .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
        })
    };
    exact.or_else(versioned).map(|(_, runtime)| *runtime)
}

#[cfg(test)]
mod tests {
    use super::{runtime_by_libraries, runtime_of};

    #[test]
    fn libraries() {
        let line = |path: &str| format!("7f1c00000000-7f1c00028000 r--p 00000000 fe:01 1835 {path}\n");
        for (maps, expected) in [
            (line("/opt/app/libcoreclr.so"), Some("dotnet")),
            (
                line("/usr/lib/x86_64-linux-gnu/libruby-3.1.so.3.1.2"),
                Some("ruby"),
            ),
            (
                line("/lib/libc.so.6") + &line("/usr/lib/jvm/lib/server/libjvm.so"),
                Some("java"),
            ),
            (
                line("/usr/lib/libpython3.11.so.1.0") + &line("/usr/lib/libruby-3.1.so"),
                None,
            ),
            (line("/usr/lib/mylibjvm.so"), None),
            (line("[heap]"), None),
            (String::new(), None),
        ] {
            assert_eq!(runtime_by_libraries(&maps), expected, "{maps}");
        }
    }

    #[test]
    fn names() {
        for (exe, comm, expected) in [
            ("/usr/bin/node", "node", Some("node")),
            // node names its main thread, not its process, after itself; titles may be anything.
            ("/usr/local/bin/node", "MainThread", Some("node")),
            ("/usr/bin/python3.12", "gunicorn", Some("python")),
            ("/usr/bin/python3.12 (deleted)", "x", Some("python")),
            ("", "python3", Some("python")),
            ("/usr/sbin/php-fpm8.2", "php-fpm8.2", Some("php")),
            ("/usr/bin/php8.2", "php", Some("php")),
            ("/usr/lib/erlang/erts-14/bin/beam.smp", "beam.smp", Some("erlang")),
            ("/usr/lib/jvm/java-17/bin/java", "java", Some("java")),
            ("/usr/share/dotnet/dotnet", "dotnet", Some("dotnet")),
            ("/usr/sbin/pgbouncer", "pgbouncer", Some("pgbouncer")),
            ("/usr/bin/ruby3.1", "puma 6.0: web", Some("ruby")),
            ("/opt/app/server", "server", None),
            ("/usr/bin/pythonista", "pythonista", None),
            ("/usr/bin/nodetool", "nodetool", None),
            ("", "", None),
        ] {
            assert_eq!(runtime_of(exe, comm), expected, "{exe} {comm}");
        }
    }
}
