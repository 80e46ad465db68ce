//! One network namespace that looks like a host: own network, own /run/wireguard, own /sys.

use super::{exec, mounts, sweep};
use nix::sched::{CloneFlags, setns, unshare};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// A handle on a network namespace and its private mounts. Clones are the same namespace.
///
/// The lab that made it removes it, whatever handles are left.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    dir: PathBuf,
    net: File,
    mnt: File,
}

impl Namespace {
    /// Makes a namespace; `dir` is a directory of its own for sockets and logs.
    pub(super) fn create(name: &str, dir: PathBuf) -> Self {
        let mut add = Command::new("ip");
        add.args(["netns", "add", name]);
        exec::run(add);
        std::fs::create_dir_all(dir.join("wireguard")).expect("the lab's directory is writable");
        let net = File::open(sweep::path(name)).expect("`ip netns add` has just made it");
        let mnt = mounts::private(&net, &dir.join("wireguard"))
            .unwrap_or_else(|e| panic!("cannot make private mounts for {name}: {e}"));
        let ns = Self(Arc::new(Inner {
            name: name.to_owned(),
            dir,
            net,
            mnt,
        }));
        // Addresses are usable at once, and tests need not wait for duplicate address detection.
        ns.sysctl("net.ipv6.conf.all.accept_dad", 0);
        ns.sysctl("net.ipv6.conf.default.accept_dad", 0);
        ns.ip(&["link set lo up"]);
        ns
    }

    /// The name, as `ip netns` and `wgnat --netns` know it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// A directory on the machine for this namespace's logs; the lab removes it.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Where this namespace's private /run/wireguard lies on the machine.
    pub fn wireguard_dir(&self) -> PathBuf {
        self.0.dir.join("wireguard")
    }

    /// The inode number of the network namespace.
    pub fn inode(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        self.0.net.metadata().expect("an open file has metadata").ino()
    }

    /// A command that will run in this namespace. It dies with the thread that starts it, so start it from the test.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let inner = Arc::clone(&self.0);
        let parent = std::process::id().cast_signed();
        let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let cwd = CString::new(cwd.as_os_str().as_bytes()).expect("a path has no NUL");
        let enter = move || {
            setns(&inner.net, CloneFlags::CLONE_NEWNET)?;
            setns(&inner.mnt, CloneFlags::CLONE_NEWNS)?;
            // SAFETY: chdir reads a string that the closure owns; prctl and getppid take and give numbers.
            unsafe {
                libc::chdir(cwd.as_ptr());
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                if libc::getppid() != parent {
                    return Err(io::Error::from_raw_os_error(libc::ESRCH));
                }
            }
            Ok(())
        };
        // SAFETY: the closure makes system calls only; it neither allocates nor takes a lock.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Runs a closure on a thread inside this network namespace. Sockets that it opens stay in the namespace afterwards.
    #[track_caller]
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let entered = || {
            self.enter();
            work()
        };
        match std::thread::scope(|scope| scope.spawn(entered).join()) {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Like [`Namespace::run`] on a thread of its own that the caller joins.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let ns = self.clone();
        std::thread::spawn(move || {
            ns.enter();
            // The handle would keep the namespace open for as long as the work lasts.
            drop(ns);
            work()
        })
    }

    /// Moves the calling thread into this network namespace for good.
    fn enter(&self) {
        setns(&self.0.net, CloneFlags::CLONE_NEWNET)
            .unwrap_or_else(|e| panic!("cannot enter {}: {e}", self.name()));
    }

    /// Runs `ip` commands in one batch, for example `["link set eth0 up", "route add default via 10.77.0.1"]`.
    #[track_caller]
    pub fn ip(&self, lines: &[&str]) {
        let mut command = Command::new("ip");
        command.args(["-n", self.name(), "-batch", "-"]);
        let what = lines.join("\n");
        let out = exec::output_within(command, Some(&what), exec::LIMIT);
        assert!(
            out.code == 0,
            "ip in {} failed: {}\nlines:\n{what}",
            self.name(),
            out.stderr
        );
    }

    /// Loads an nftables ruleset, atomically.
    #[track_caller]
    pub fn nft(&self, ruleset: &str) {
        let mut command = self.command("nft");
        command.args(["-f", "-"]);
        let out = exec::output_within(command, Some(ruleset), exec::LIMIT);
        assert!(
            out.code == 0,
            "nft in {} failed: {}\nruleset:\n{ruleset}",
            self.name(),
            out.stderr
        );
    }

    /// Writes a sysctl of this namespace, named with dots.
    #[track_caller]
    pub fn sysctl(&self, key: &str, value: impl std::fmt::Display) {
        let file = sysctl_file(key);
        let text = value.to_string();
        let result = self.run(|| std::fs::write(&file, &text));
        result.unwrap_or_else(|e| panic!("cannot set {key}={text} in {}: {e}", self.name()));
    }

    /// Reads a sysctl of this namespace.
    #[track_caller]
    pub fn read_sysctl(&self, key: &str) -> String {
        let file = sysctl_file(key);
        let result = self.run(|| std::fs::read_to_string(&file));
        result
            .unwrap_or_else(|e| panic!("cannot read {key} in {}: {e}", self.name()))
            .trim()
            .to_owned()
    }

    /// Reads a file below /proc/net as this namespace sees it, for example `snmp` or `sockstat`.
    #[track_caller]
    pub fn proc_net(&self, file: &str) -> String {
        // /proc/net follows the process's main thread, /proc/thread-self/net the calling one.
        let path = format!("/proc/thread-self/net/{file}");
        let result = self.run(|| std::fs::read_to_string(&path));
        result.unwrap_or_else(|e| panic!("cannot read {path} in {}: {e}", self.name()))
    }

    /// Gives this namespace a resolv.conf of its own; commands started later see it.
    #[track_caller]
    pub fn set_resolv_conf(&self, text: &str) {
        let file = self.dir().join("resolv.conf");
        std::fs::write(&file, text).expect("the lab's directory is writable");
        let enter_and_bind = || -> io::Result<()> {
            unshare(CloneFlags::CLONE_FS)?;
            setns(&self.0.mnt, CloneFlags::CLONE_NEWNS)?;
            mounts::bind(&file, Path::new("/etc/resolv.conf"))
        };
        let result = std::thread::scope(|s| s.spawn(enter_and_bind).join().expect("no panic in there"));
        result.unwrap_or_else(|e| panic!("cannot bind resolv.conf in {}: {e}", self.name()));
    }
}

fn sysctl_file(key: &str) -> String {
    format!("/proc/sys/{}", key.replace('.', "/"))
}
