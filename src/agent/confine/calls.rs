//! Which system calls may be made: seccomp.
//!
//! One list for all threads of what a Rust program, tokio, SQLite and the observers use; for threads but the history's no
//! file may be opened for writing, and for HTTP's no socket be made. Anything else is refused with EPERM. No program can
//! be started, no process be traced, no mount, module, key or namespace be touched.

use std::collections::BTreeMap;

use anyhow::Context as _;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::{Role, Wanted};
use crate::observation::Source;

/// Whatever their arguments.
const ALLOWED: &[libc::c_long] = &[
    // Files and descriptors.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_lseek,
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_statfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_fchmod,
    libc::SYS_fchown,
    libc::SYS_umask,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_msync,
    libc::SYS_brk,
    // Threads, waiting, time.
    libc::SYS_clone3,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_membarrier,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    // Sockets.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
    // Who and where.
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrandom,
    libc::SYS_capget,
    libc::SYS_capset,
    // Threads confine themselves further, each by rules of its own where it is to reach others.
    libc::SYS_seccomp,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
];

/// Older calls that only this architecture has.
#[cfg(target_arch = "x86_64")]
const OLDER: &[libc::c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_poll,
    libc::SYS_epoll_wait,
    libc::SYS_time,
    libc::SYS_getdents,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[libc::c_long] = &[];

/// `ioctl`s that libraries make: is it a terminal, how wide, do not block, how much is there; an interface's number by its
/// name (`SIOCGIFINDEX`) and the reverse.
const IOCTLS: [u64; 6] = [0x5401, 0x5413, 0x5421, 0x541B, 0x8933, 0x8910];

/// To attach a program: `PERF_EVENT_IOC_SET_BPF`, `_ENABLE`, `_DISABLE`.
const PERF_IOCTLS: [u64; 3] = [0x4004_2408, 0x2400, 0x2401];

/// `prctl`s: a thread's name, a mapping's name, and to confine further.
const PRCTLS: [u64; 4] = [15, 0x5356_4d41, 38, 22];

/// The compiled filters.
pub struct Calls {
    all: BpfProgram,
    /// `clone3` hides its flags from filters: the C library then uses `clone`, whose flags can be seen.
    no_clone3: BpfProgram,
    read_only: BpfProgram,
    no_sockets: BpfProgram,
}

impl Calls {
    /// For the machine that this runs on.
    pub fn new(wanted: &Wanted) -> anyhow::Result<Self> {
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED
            .iter()
            .chain(OLDER)
            .map(|call| (*call, Vec::new()))
            .collect();
        let mut ioctls = IOCTLS.to_vec();
        if wanted.sources.contains(&Source::Bpf) {
            rules.insert(libc::SYS_bpf, Vec::new());
            rules.insert(libc::SYS_perf_event_open, Vec::new());
            ioctls.extend(PERF_IOCTLS);
        }
        rules.insert(libc::SYS_ioctl, any_of(1, &ioctls)?);
        rules.insert(libc::SYS_prctl, any_of(0, &PRCTLS)?);
        // A thread and nothing else; no new namespace.
        let thread = u64::try_from(libc::CLONE_THREAD)?;
        let is_thread = condition(0, SeccompCmpOp::MaskedEq(thread), thread)?;
        rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![is_thread])?]);
        // Its own limits may be read and none be set: the third argument is the new limit.
        let reads = condition(2, SeccompCmpOp::Eq, 0)?;
        rules.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![reads])?]);
        Ok(Self {
            all: compile(
                rules,
                SeccompAction::Errno(errno(libc::EPERM)),
                SeccompAction::Allow,
            )?,
            no_clone3: compile(
                [(libc::SYS_clone3, Vec::new())].into(),
                SeccompAction::Allow,
                SeccompAction::Errno(errno(libc::ENOSYS)),
            )?,
            read_only: compile(
                writes()?,
                SeccompAction::Allow,
                SeccompAction::Errno(errno(libc::EPERM)),
            )?,
            no_sockets: compile(
                [
                    libc::SYS_socket,
                    libc::SYS_socketpair,
                    libc::SYS_connect,
                    libc::SYS_bind,
                ]
                .map(|call| (call, Vec::new()))
                .into(),
                SeccompAction::Allow,
                SeccompAction::Errno(errno(libc::EPERM)),
            )?,
        })
    }

    /// Confines the calling thread, and all that it starts, to what any thread of the agent needs.
    pub fn apply_to_all(&self) -> anyhow::Result<()> {
        seccompiler::apply_filter(&self.no_clone3).context("seccomp")?;
        seccompiler::apply_filter(&self.all).context("seccomp")
    }

    /// Confines the calling thread further.
    pub fn apply(&self, role: Role) -> anyhow::Result<()> {
        match role {
            Role::Store => {}
            Role::Http => {
                // Its thread pool reads the history, through a database that may be opened anew.
                seccompiler::apply_filter(&self.no_sockets).context("seccomp")?;
            }
            Role::Observer(_) => {
                seccompiler::apply_filter(&self.read_only).context("seccomp")?;
            }
        }
        Ok(())
    }
}

/// Ways to open for writing, and to take away.
fn writes() -> anyhow::Result<BTreeMap<i64, Vec<SeccompRule>>> {
    let mode = u64::try_from(libc::O_ACCMODE)?;
    let mut rules = BTreeMap::new();
    let mut opens = vec![(libc::SYS_openat, 2)];
    #[cfg(target_arch = "x86_64")]
    opens.push((libc::SYS_open, 1));
    for (call, flags) in opens {
        let mut ways = Vec::new();
        for writing in [libc::O_WRONLY, libc::O_RDWR] {
            let writes = condition(flags, SeccompCmpOp::MaskedEq(mode), u64::try_from(writing)?)?;
            ways.push(SeccompRule::new(vec![writes])?);
        }
        for makes in [libc::O_CREAT, libc::O_TRUNC] {
            let makes = u64::try_from(makes)?;
            let bit = condition(flags, SeccompCmpOp::MaskedEq(makes), makes)?;
            ways.push(SeccompRule::new(vec![bit])?);
        }
        rules.insert(call, ways);
    }
    for call in [
        libc::SYS_unlinkat,
        libc::SYS_renameat,
        libc::SYS_renameat2,
        libc::SYS_ftruncate,
        libc::SYS_fchmod,
        libc::SYS_fchown,
    ] {
        rules.insert(call, Vec::new());
    }
    #[cfg(target_arch = "x86_64")]
    for call in [libc::SYS_unlink, libc::SYS_rename] {
        rules.insert(call, Vec::new());
    }
    Ok(rules)
}

fn any_of(argument: u8, values: &[u64]) -> anyhow::Result<Vec<SeccompRule>> {
    let rule = |value: &u64| -> anyhow::Result<SeccompRule> {
        Ok(SeccompRule::new(vec![condition(
            argument,
            SeccompCmpOp::Eq,
            *value,
        )?])?)
    };
    values.iter().map(rule).collect()
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> anyhow::Result<SeccompCondition> {
    // Pointers are as wide as the machine; flags and commands are 32 bits.
    let width = if value == 0 {
        SeccompCmpArgLen::Qword
    } else {
        SeccompCmpArgLen::Dword
    };
    Ok(SeccompCondition::new(argument, width, operator, value)?)
}

fn errno(errno: i32) -> u32 {
    errno.unsigned_abs()
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> anyhow::Result<BpfProgram> {
    let arch: TargetArch = std::env::consts::ARCH
        .try_into()
        .context("seccomp is not known for this architecture")?;
    let filter = SeccompFilter::new(rules, otherwise, matching, arch)?;
    Ok(filter.try_into()?)
}
