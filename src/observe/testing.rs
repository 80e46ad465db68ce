//! Help for the observers' own tests: a thread in a network namespace of its own, and an observer's output as a list.

use nix::sched::{CloneFlags, unshare};

use super::{Emit, ObserveError, Observer};
use crate::observation::{Body, Request, SourceStatus};

/// Runs `test` on a thread in a new network namespace (lo is down, nothing else is there). Needs root, as the lab does.
pub fn in_own_netns<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (needs root)");
            test()
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// One look: what it emitted, and what it said of itself.
pub fn look(observer: &mut dyn Observer) -> (Vec<Body>, Result<SourceStatus, ObserveError>) {
    let mut bodies = Vec::new();
    let mut send = |_, _, _, body| bodies.push(body);
    let status = observer.look(&mut Emit::new(observer.source(), &mut send));
    (bodies, status)
}

/// One request: what it emitted.
pub fn ask(observer: &mut dyn Observer, request: &Request) -> Result<Vec<Body>, ObserveError> {
    let mut bodies = Vec::new();
    let mut send = |_, _, _, body| bodies.push(body);
    observer.ask(request, &mut Emit::new(observer.source(), &mut send))?;
    Ok(bodies)
}

/// Runs `ip` in the calling thread's namespace.
pub fn ip(arguments: &str) {
    let done = std::process::Command::new("ip")
        .args(arguments.split(' '))
        .status()
        .expect("ip (iproute2)");
    assert!(done.success(), "ip {arguments}");
}
