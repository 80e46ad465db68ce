//! The source NAT rules of a network namespace, as far as they can be read.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::types::PortRange;

/// Rules listed at most; what is beyond is counted.
pub const MAX_RULES: usize = 256;

/// Every source NAT rule at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatRules {
    /// Those of nf_tables, iptables-nft's among them, in the kernel's order.
    pub rules: Vec<SnatRule>,
    /// Rules that did not fit.
    #[serde(default)]
    pub left_out: u64,
    /// Rules that could not be understood.
    #[serde(default)]
    pub malformed: u64,
    /// Whether legacy iptables has a NAT table here, whose rules are not read; `None` where that cannot be told.
    #[serde(default)]
    pub legacy: Option<bool>,
}

impl NatRules {
    /// Whether these are all the rules that there are.
    pub fn complete(&self) -> bool {
        self.left_out == 0 && self.malformed == 0 && self.legacy == Some(false)
    }
}

/// For which packets a rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleFamily {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
}

impl RuleFamily {
    /// Whether a packet with this address may meet the rule.
    pub fn holds(self, address: IpAddr) -> bool {
        match self {
            Self::Ip => address.is_ipv4(),
            Self::Ip6 => address.is_ipv6(),
            Self::Inet => true,
        }
    }

    /// As nft has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
        }
    }
}

/// The ports that a rule takes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RulePorts {
    /// It names none: the kernel's own range.
    Any,
    /// These.
    Range(PortRange),
    /// They come from a map or by arithmetic.
    Unknown,
}

/// A rule that translates source addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnatRule {
    /// The family of its table.
    pub family: RuleFamily,
    /// Its table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// Its handle, as `nft -a list ruleset` shows it.
    pub handle: u64,
    /// `masquerade`, not `snat`.
    pub masquerade: bool,
    /// First and last address; `None` for masquerade, and where they come from a map.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// The ports.
    pub ports: RulePorts,
    /// `random`: a random port for each flow, by a hash.
    pub random: bool,
    /// `fully-random`.
    pub fully_random: bool,
    /// `persistent`: one address for each client.
    pub persistent: bool,
    /// Only for this transport protocol (its number).
    #[serde(default)]
    pub protocol: Option<u8>,
    /// Only towards this address.
    #[serde(default)]
    pub destination: Option<IpAddr>,
    /// Only towards this port.
    #[serde(default)]
    pub destination_port: Option<u16>,
    /// Its other conditions, each as a number that is the same for the same condition.
    #[serde(default)]
    pub conditions: Vec<u64>,
}

impl SnatRule {
    /// Whether ports are chosen at random rather than kept.
    pub const fn randomises(&self) -> bool {
        self.random || self.fully_random
    }

    /// How many addresses it translates to, where it says: at most 2³².
    pub fn address_count(&self) -> Option<u64> {
        match self.addresses? {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                Some(u64::from(u32::from(last).checked_sub(u32::from(first))?) + 1)
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                let more = u128::from(last).checked_sub(u128::from(first))?;
                Some(u64::try_from(more).map_or(1 << 32, |m| m.saturating_add(1).min(1 << 32)))
            }
            _ => None,
        }
    }
}
