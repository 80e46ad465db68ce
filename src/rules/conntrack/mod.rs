//! Conntrack and the NAT of this host, one rule a file.
//!
//! The counters tell the troubles apart (measured, docs of [`crate::observation::conntrack::CtCpuStats`]): `drop` equal to
//! `insert_failed` with `found` soaring is a NAT range without free ports; `drop` beyond `insert_failed` with the count at
//! its limit is a full table; `early_drop` without `drop` is a table that just makes room.

use super::Rule;

mod buckets;
pub(super) mod counters;
mod dns;
mod full;
mod insert_failed;
mod low;
mod remedies;
mod snat;
mod snat_exhausted;
mod snat_low;
mod stale;
#[cfg(test)]
mod testing;

/// The rules, in their reviewed order: causes before symptoms.
pub const RULES: &[Rule] = &[
    full::RULE,
    snat_exhausted::RULE,
    snat_low::RULE,
    low::RULE,
    insert_failed::RULE,
    stale::RULE,
    buckets::RULE,
    dns::RULE,
];
