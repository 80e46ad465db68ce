//! A Fly machine in one line: who it is, what it leaves by, and what its private network says.

use crate::observation::fly::Internal;
use crate::observation::nat::Family;
use crate::output::{clean, human};
use crate::report::Report;

/// The line, where this is a Fly machine.
pub(super) fn line(report: &Report) -> Option<String> {
    let machine = report.host.as_ref()?.fly.as_ref()?;
    let mut parts = vec![format!("machine {}", clean::line(&machine.machine))];
    if let Some(group) = &machine.group {
        parts.push(format!("group {}", clean::line(group)));
    }
    if let Some(private) = machine.private {
        parts.push(format!("6PN {private}"));
    }
    parts.extend(leaves_by(report));
    if let Some(net) = &report.fly_net {
        let know = net.answers.iter().filter(|a| a.says == Internal::Listed).count();
        parts.push(format!(
            "{know} of {} know .internal",
            human::counted(net.answers.len() as u64, "name server", "name servers")
        ));
        parts.push(format!(
            "{} measured of {}",
            human::count(u64::from(net.measured)),
            human::counted(u64::from(net.machines), "other machine", "other machines")
        ));
    }
    // Its name alone says nothing that the verdict does not.
    (parts.len() > 1).then(|| parts.join("; "))
}

/// What the machine leaves by, each family by its best witness: a STUN server has seen it, the environment has said it.
fn leaves_by(report: &Report) -> Vec<String> {
    let machine = report.host.as_ref().and_then(|host| host.fly.as_ref());
    let public = machine.and_then(|machine| machine.public);
    let mut all = Vec::new();
    for family in [Family::Ipv4, Family::Ipv6] {
        let nat = report.nat.as_ref();
        let seen = nat.and_then(|nat| {
            let facts = nat.families.iter().find(|facts| facts.family == family)?;
            facts.external_addresses.first()
        });
        let said = public.filter(|ip| Family::of(*ip) == family);
        match (seen, said) {
            (Some(seen), Some(said)) if *seen != said => all.push(format!(
                "leaves by {seen} as STUN saw it ({}), not by FLY_PUBLIC_IP {said}",
                family.title()
            )),
            (Some(seen), _) => all.push(format!("leaves by {seen} ({}, seen by STUN)", family.title())),
            (None, Some(said)) => all.push(format!("leaves by {said} ({}, FLY_PUBLIC_IP)", family.title())),
            (None, None) => {}
        }
    }
    all
}
