//! Why eBPF did not work, in words that help: the kernel's own are an errno and a verifier's log.

use std::error::Error;
use std::fmt::Write as _;
use std::io;

use crate::sys::bpf::Refused;

/// Why the kernel refused the program `name`.
pub fn refused(name: &str, refused: &Refused) -> String {
    match last_lines(&refused.log) {
        // Where it may not be loaded at all the verifier has not looked.
        Some(last) => format!("the kernel's verifier refused the eBPF program {name}: {last}"),
        None => reason(&refused.error),
    }
}

/// The last lines of a verifier's log that say something: its statistics do not.
fn last_lines(log: &str) -> Option<String> {
    let telling = |line: &&str| {
        let line = line.trim();
        !line.is_empty()
            && [
                "processed ",
                "verification time",
                "stack depth",
                "max_states_per_insn",
            ]
            .iter()
            .all(|noise| !line.starts_with(noise))
    };
    let mut last: Vec<&str> = log.lines().filter(telling).map(str::trim).rev().take(3).collect();
    last.reverse();
    (!last.is_empty()).then(|| last.join(" / "))
}

/// An error with all that lies beneath it; a refusal in words that help.
pub fn reason(error: &(dyn Error + 'static)) -> String {
    let errno = chain(error)
        .filter_map(|e| e.downcast_ref::<io::Error>())
        .find_map(io::Error::raw_os_error);
    match errno {
        Some(libc::EPERM | libc::EACCES) => {
            let lockdown = std::fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
            not_permitted(&lockdown)
        }
        Some(libc::ENOSYS) => "this kernel has no eBPF (CONFIG_BPF_SYSCALL is off)".to_owned(),
        Some(libc::ENOMEM) => "the kernel has no memory for the eBPF maps (about 12 MiB)".to_owned(),
        _ => format!("eBPF: {}", chained(error)),
    }
}

/// An error and all that lies beneath it, in one line.
pub fn chained(error: &(dyn Error + 'static)) -> String {
    let (mut text, mut last) = (String::new(), String::new());
    for part in chain(error).map(ToString::to_string) {
        // Many errors repeat the one beneath.
        if !last.contains(&part) {
            let colon = if last.is_empty() { "" } else { ": " };
            let _ = write!(text, "{colon}{part}");
            last = part;
        }
    }
    text
}

/// An error and all that lies beneath it.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |e| (**e).source())
}

fn not_permitted(lockdown: &str) -> String {
    let why = if lockdown.contains("[confidentiality]") {
        "the kernel is locked down in confidentiality mode, which forbids programs that read its memory"
    } else {
        "though the capabilities are held: a container's seccomp profile, a user namespace, or kernel.unprivileged_bpf_disabled \
         and locked-memory limits on old kernels do that"
    };
    format!("the kernel refused eBPF; {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_last_words_are_told() {
        let log = "0: R1=ctx()\n; int old = ctx[1];\n12: (85) call unknown#999\ninvalid func unknown#999\n\
                   processed 12 insns (limit 1000000)\nverification time 9 usec\nstack depth 0\n";
        let told = refused(
            "connects",
            &Refused {
                error: io::Error::from_raw_os_error(libc::EINVAL),
                log: log.to_owned(),
            },
        );
        assert_eq!(
            told,
            "the kernel's verifier refused the eBPF program connects: ; int old = ctx[1]; / 12: (85) call unknown#999 / \
             invalid func unknown#999"
        );
        assert_eq!(last_lines("\nprocessed 0 insns\n"), None);
    }

    #[test]
    fn a_refusal_names_what_to_look_at() {
        assert!(not_permitted("none integrity [confidentiality]\n").contains("locked down"));
        assert!(not_permitted("none [integrity] confidentiality\n").contains("seccomp"));
        let error = io::Error::from_raw_os_error(libc::EPERM);
        assert!(
            reason(&error).starts_with("the kernel refused eBPF"),
            "{}",
            reason(&error)
        );
        let error = io::Error::from_raw_os_error(libc::EINVAL);
        assert!(reason(&error).contains("Invalid argument"), "{}", reason(&error));
    }
}
