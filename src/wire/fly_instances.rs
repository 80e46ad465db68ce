//! Fly's `_instances.internal` TXT records: the machines that run in an organisation, with their 6PN addresses.
//!
//! In: the texts of the records. Out: [`Instance`]s. The form is `instance=ID,app=NAME,ip=ADDRESS,region=CODE`, records
//! joined by semicolons. Pure.

use std::net::Ipv6Addr;

/// Machines that are followed.
pub const MAX_INSTANCES: usize = 1024;

/// A started machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The machine's id.
    pub id: String,
    /// Its app.
    pub app: String,
    /// Its 6PN address.
    pub address: Ipv6Addr,
    /// Its region's code.
    pub region: String,
}

/// The machines in `texts`, and how many entries could not be read or did not fit.
pub fn instances<'a>(texts: impl IntoIterator<Item = &'a str>) -> (Vec<Instance>, usize) {
    let mut read = Vec::new();
    let mut passed_over = 0;
    for entry in texts.into_iter().flat_map(|text| text.split(';')) {
        if entry.trim().is_empty() {
            continue;
        }
        match instance(entry) {
            Some(one) if read.len() < MAX_INSTANCES => read.push(one),
            _ => passed_over += 1,
        }
    }
    (read, passed_over)
}

fn instance(entry: &str) -> Option<Instance> {
    let value = |wanted: &str| {
        entry
            .split(',')
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(key, _)| *key == wanted)
            .map(|(_, value)| value.to_owned())
    };
    let word = |text: &String| {
        !text.is_empty()
            && text.len() <= 63
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    Some(Instance {
        id: value("instance").filter(word)?,
        app: value("app").filter(word)?,
        address: value("ip")?.parse().ok()?,
        region: value("region").filter(word)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_read_and_what_is_none_is_counted() {
        let (read, passed_over) = instances([
            "instance=148e21,app=web,ip=fdaa:0:18:a7b:d6b:1:2:2,region=ams;instance=2,app=web,ip=fdaa::9, region=gru",
            "instance=3,app=web,ip=nowhere,region=gru;;instance=4",
        ]);
        let regions: Vec<&str> = read.iter().map(|i| i.region.as_str()).collect();
        assert_eq!(regions, ["ams", "gru"]);
        assert_eq!(passed_over, 2);
    }
}
