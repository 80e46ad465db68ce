//! Observer of the source NAT rules of the thread's namespace, by netlink; read only.
//!
//! In: nothing. Out: [`Body::NatRules`] at first and whenever the ruleset's generation has moved. Needs CAP_NET_ADMIN in
//! the namespace. Costs a few microseconds to ask for the generation, some 2 µs a rule when that moved. Legacy iptables keeps
//! its rules elsewhere: that it has a NAT table is seen in `/proc`, its rules are not read, which the status says.

use std::path::Path;

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::{Emit, ObserveError, Observer};
use crate::observation::nat_rules::{MAX_RULES, NatRules, RuleFamily, RulePorts, SnatRule};
use crate::observation::{Body, Source, SourceStatus};
use crate::sys::clock;
use crate::sys::netlink::{DUMP, Netlink, NetlinkError, REQUEST};
use crate::time::Span;
use crate::wire::netlink::nf_tables::{self as wire, Ports, Rule, family};

/// How often to ask whether the rules changed.
const INTERVAL: Span = Span::from_secs(10);
/// Limit of each wait for the kernel.
const ANSWER_WITHIN: Span = Span::from_secs(5);

/// Tables that legacy iptables has in the thread's namespace, one a line.
const LEGACY: [&str; 2] = [
    "/proc/thread-self/net/ip_tables_names",
    "/proc/thread-self/net/ip6_tables_names",
];

/// The observer.
pub struct NatRulesObserver {
    /// None where nf_tables is not there to be asked.
    netlink: Option<Netlink>,
    /// The generation that was read last.
    read: Option<Option<u32>>,
    /// Rules that the last reading missed.
    missed: u64,
}

impl NatRulesObserver {
    /// Opens it in the calling thread's namespace.
    pub fn open() -> Result<Self, ObserveError> {
        let netlink = match not_asked(|path| Path::new(path).exists(), builtin_modules) {
            None => Some(Netlink::open(NETLINK_NETFILTER, "nf_tables", ANSWER_WITHIN)?),
            Some(None) => None,
            Some(Some(what)) => return Err(ObserveError::Absent { what }),
        };
        Ok(Self {
            netlink,
            read: None,
            missed: 0,
        })
    }

    /// The rules, where they were not read yet or have changed since.
    fn changed(&mut self) -> Result<Option<NatRules>, NetlinkError> {
        let Some(netlink) = &mut self.netlink else {
            return Ok(self.read.replace(None).is_none().then(NatRules::default));
        };
        let generation = generation(netlink)?;
        if self.read.is_some_and(|read| read == generation) {
            return Ok(None);
        }
        let (mut rules, torn) = read(netlink)?;
        if torn {
            // Changed while it was read: once more.
            rules = read(netlink)?.0;
        }
        self.read = Some(generation);
        Ok(Some(rules))
    }
}

impl Observer for NatRulesObserver {
    fn source(&self) -> Source {
        Source::NatRules
    }

    fn interval(&self) -> Span {
        INTERVAL
    }

    fn look(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        let begun = clock::instant();
        let changed = self.changed().map_err(|error| {
            if error.is_denied() {
                ObserveError::Denied {
                    doing: "reading NAT rules",
                    needs: "CAP_NET_ADMIN",
                }
            } else if error.errno() == Some(libc::EINVAL) {
                // nfnetlink knows no such subsystem.
                ObserveError::Absent {
                    what: "this kernel has no nf_tables".to_owned(),
                }
            } else {
                error.into()
            }
        })?;
        let legacy = legacy();
        if let Some(mut rules) = changed {
            rules.legacy = legacy;
            self.missed = rules.left_out + rules.malformed;
            let took = clock::instant().duration_since(begun);
            emit.emit(clock::now(), took, Body::NatRules(rules));
        }
        Ok(match (legacy, self.missed) {
            (Some(true), _) => SourceStatus::degraded(
                "legacy iptables has a NAT table here, whose rules are not read (iptables-legacy-save -t nat shows them)",
            ),
            (_, 0) => SourceStatus::ok(),
            (_, missed) => SourceStatus {
                lost: missed,
                ..SourceStatus::degraded(format!("{missed} NAT rules could not be taken in"))
            },
        })
    }
}

/// Whether to leave nf_tables alone, because a question would make the kernel load it (nfnetlink_rcv_msg,
/// net/netfilter/nfnetlink.c): the reason why it is not known then, or none where it surely has no rules.
#[allow(clippy::option_option)] // do not ask, and then whether anything is unknown for it
fn not_asked(exists: impl Fn(&str) -> bool, builtin: impl Fn() -> Option<String>) -> Option<Option<String>> {
    if !exists("/proc/modules") || exists("/sys/module/nf_tables") {
        return None;
    }
    // What builds on a module is none that is built in, so it is a module that is not loaded: it has no rules.
    if exists("/sys/module/nfnetlink/initstate") {
        return Some(None);
    }
    match builtin() {
        Some(list) if list.lines().any(|l| l.ends_with("/nf_tables.ko")) => None,
        Some(_) => Some(None),
        None => Some(Some(
            "nf_tables was not asked: whether that would load its module cannot be told here".to_owned(),
        )),
    }
}

/// The modules that are built into this kernel.
fn builtin_modules() -> Option<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    std::fs::read_to_string(format!("/lib/modules/{}/modules.builtin", release.trim())).ok()
}

/// Whether legacy iptables has a NAT table here; `None` where that cannot be read.
fn legacy() -> Option<bool> {
    let mut seen = Some(false);
    for path in LEGACY {
        match std::fs::read_to_string(path) {
            Ok(names) if names.lines().any(|name| name == "nat") => return Some(true),
            Ok(_) => {}
            // A kernel without it has no such file.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(_) => seen = None,
        }
    }
    seen
}

fn generation(netlink: &mut Netlink) -> Result<Option<u32>, NetlinkError> {
    let mut generation = None;
    netlink.request(wire::GET_GEN, REQUEST, &wire::REQUEST, |_, payload| {
        generation = wire::generation(payload);
    })?;
    Ok(generation)
}

/// The rules, and whether they changed meanwhile.
fn read(netlink: &mut Netlink) -> Result<(NatRules, bool), NetlinkError> {
    let mut rules = NatRules::default();
    let end = netlink.request(
        wire::GET_RULE,
        DUMP,
        &wire::REQUEST,
        |_, payload| match wire::rule(payload) {
            Ok(None) => {}
            Ok(Some(_)) if rules.rules.len() == MAX_RULES => rules.left_out += 1,
            Ok(Some(rule)) => match snat_rule(rule) {
                Some(rule) => rules.rules.push(rule),
                None => rules.malformed += 1,
            },
            Err(wire::Malformed) => rules.malformed += 1,
        },
    )?;
    Ok((rules, end.interrupted))
}

/// `None` for a family that has no source NAT.
fn snat_rule(rule: Rule) -> Option<SnatRule> {
    Some(SnatRule {
        family: match rule.family {
            family::IPV4 => RuleFamily::Ip,
            family::IPV6 => RuleFamily::Ip6,
            family::INET => RuleFamily::Inet,
            _ => return None,
        },
        table: rule.table,
        chain: rule.chain,
        handle: rule.handle,
        masquerade: rule.masquerade,
        addresses: rule.addresses,
        ports: match rule.ports {
            Ports::Any => RulePorts::Any,
            Ports::Range(range) => RulePorts::Range(range),
            Ports::Unknown => RulePorts::Unknown,
        },
        random: rule.random,
        fully_random: rule.fully_random,
        persistent: rule.persistent,
        protocol: rule.protocol,
        destination: rule.destination,
        destination_port: rule.destination_port,
        conditions: rule.conditions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_module_is_loaded_by_asking() {
        const MODULES: &str = "/proc/modules";
        const LOADED: &str = "/sys/module/nf_tables";
        const NFNETLINK: &str = "/sys/module/nfnetlink/initstate";
        let builtin = Some("kernel/net/netfilter/nf_tables.ko\n");
        let others = Some("kernel/net/ipv4/tunnel4.ko\n");
        for (name, there, list, asked, known) in [
            ("no modules at all", &[][..], None, true, true),
            ("loaded", &[MODULES, LOADED, NFNETLINK], others, true, true),
            (
                "not loaded, so no rules",
                &[MODULES, NFNETLINK],
                builtin,
                false,
                true,
            ),
            ("built in", &[MODULES], builtin, true, true),
            ("a module, not loaded", &[MODULES], others, false, true),
            ("cannot be told", &[MODULES], None, false, false),
        ] {
            let verdict = not_asked(|path| there.contains(&path), || list.map(ToOwned::to_owned));
            assert_eq!(verdict.is_none(), asked, "{name}");
            assert_eq!(verdict.flatten().is_none(), known, "{name}");
        }
    }
}
