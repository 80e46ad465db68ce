//! What a Fly machine finds of its network: names, the private network, and what is let out.

use crate::observation::host::FlyMachine;
use crate::rules::{Input, Rule};

mod egress_policy;
mod internal_dns;
pub(super) mod sixpn_unreachable;
#[cfg(test)]
mod testing;

/// The rules, causes before symptoms.
pub const RULES: &[Rule] = &[internal_dns::RULE, sixpn_unreachable::RULE, egress_policy::RULE];

/// The machine, where this is one.
fn machine<'a>(input: &Input<'a>) -> Option<&'a FlyMachine> {
    input.world.host.as_ref()?.fly.as_ref()
}
