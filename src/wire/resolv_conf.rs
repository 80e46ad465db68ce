//! `/etc/resolv.conf` (resolv.conf(5)): whom the system asks for names.
//!
//! In: its text. Out: name servers in their order. Pure.

use std::net::IpAddr;

/// The resolver in the C library asks no more (MAXNS).
pub const MAX_SERVERS: usize = 3;

/// The name servers, at most [`MAX_SERVERS`]; with none the C library asks 127.0.0.1. A scope (`fe80::1%eth0`) is
/// dropped: such a server can be named but not asked by its address alone, so it is left out.
pub fn name_servers(text: &str) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        if let Some(Ok(server)) = words.next().map(str::parse)
            && !servers.contains(&server)
            && servers.len() < MAX_SERVERS
        {
            servers.push(server);
        }
    }
    if servers.is_empty() {
        servers.push(IpAddr::from([127, 0, 0, 1]));
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_in_their_order_and_no_more_than_are_asked() {
        let text = "# nameserver 9.9.9.9\nsearch example\nnameserver fdaa::3\r\nnameserver\t10.0.0.2 # x\n\
                    nameserver nonsense\nnameserver 10.0.0.2\nnameserver 10.0.0.4\nnameserver 10.0.0.5\n";
        let expected: Vec<IpAddr> = ["fdaa::3", "10.0.0.2", "10.0.0.4"]
            .map(|s| s.parse().unwrap())
            .into();
        assert_eq!(name_servers(text), expected);
        assert_eq!(name_servers("options edns0"), [IpAddr::from([127, 0, 0, 1])]);
    }
}
