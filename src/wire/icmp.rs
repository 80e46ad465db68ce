//! What ICMP and ICMPv6 errors mean: a table, as IANA's registries have it.
//!
//! In: family, type and code. Out: the standard's words and a class that rules can match on.

/// What an error says of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IcmpClass {
    /// No route to the network.
    NetUnreachable,
    /// The last router gets no answer from the host.
    HostUnreachable,
    /// The host does not speak UDP.
    ProtocolUnreachable,
    /// No socket listens there.
    PortUnreachable,
    /// A filter refuses.
    Prohibited,
    /// Larger than the next link's MTU, and not to be fragmented.
    TooBig,
    /// TTL or hop limit used up: a routing loop, or a way that is too long.
    TimeExceeded,
    /// A header is wrong.
    ParameterProblem,
    /// An error of another type.
    Other,
}

/// The class and the words for an error. `v6` is the family of who sent it.
pub const fn meaning(v6: bool, icmp_type: u8, code: u8) -> (IcmpClass, &'static str) {
    use IcmpClass::*;
    if v6 {
        // RFC 4443, RFC 7112 (4/3), RFC 6550 (1/7), RFC 8883 (1/8).
        match (icmp_type, code) {
            (1, 0) => (NetUnreachable, "no route to destination"),
            (1, 1) => (Prohibited, "administratively prohibited"),
            (1, 2) => (NetUnreachable, "beyond scope of source address"),
            (1, 3) => (HostUnreachable, "address unreachable"),
            (1, 4) => (PortUnreachable, "port unreachable"),
            (1, 5) => (Prohibited, "source address failed ingress/egress policy"),
            (1, 6) => (Prohibited, "reject route to destination"),
            (1, 7) => (ParameterProblem, "error in source routing header"),
            (1, 8) => (ParameterProblem, "headers too long"),
            (1, _) => (NetUnreachable, "destination unreachable"),
            (2, _) => (TooBig, "packet too big"),
            (3, 0) => (TimeExceeded, "hop limit exceeded in transit"),
            (3, 1) => (TimeExceeded, "fragment reassembly time exceeded"),
            (3, _) => (TimeExceeded, "time exceeded"),
            (4, 0) => (ParameterProblem, "erroneous header field"),
            (4, 1) => (ParameterProblem, "unrecognised next header type"),
            (4, 2) => (ParameterProblem, "unrecognised IPv6 option"),
            (4, 3) => (ParameterProblem, "incomplete IPv6 header chain"),
            (4, _) => (ParameterProblem, "parameter problem"),
            _ => (Other, "unknown ICMPv6 error"),
        }
    } else {
        // RFC 792, RFC 1122 (3/6 to 3/12), RFC 1812 (3/13 to 3/15), RFC 1191 (3/4), RFC 1108 (12/1).
        match (icmp_type, code) {
            (3, 0) => (NetUnreachable, "network unreachable"),
            (3, 1) => (HostUnreachable, "host unreachable"),
            (3, 2) => (ProtocolUnreachable, "protocol unreachable"),
            (3, 3) => (PortUnreachable, "port unreachable"),
            (3, 4) => (TooBig, "fragmentation needed and DF set"),
            (3, 5) => (NetUnreachable, "source route failed"),
            (3, 6) => (NetUnreachable, "destination network unknown"),
            (3, 7) => (HostUnreachable, "destination host unknown"),
            (3, 8) => (HostUnreachable, "source host isolated"),
            (3, 9) => (Prohibited, "network administratively prohibited"),
            (3, 10) => (Prohibited, "host administratively prohibited"),
            (3, 11) => (NetUnreachable, "network unreachable for this TOS"),
            (3, 12) => (HostUnreachable, "host unreachable for this TOS"),
            (3, 13) => (Prohibited, "communication administratively prohibited"),
            (3, 14) => (Prohibited, "host precedence violation"),
            (3, 15) => (Prohibited, "precedence cutoff in effect"),
            (3, _) => (NetUnreachable, "destination unreachable"),
            (11, 0) => (TimeExceeded, "TTL exceeded in transit"),
            (11, 1) => (TimeExceeded, "fragment reassembly time exceeded"),
            (11, _) => (TimeExceeded, "time exceeded"),
            (12, 0) => (ParameterProblem, "erroneous header field"),
            (12, 1) => (ParameterProblem, "required option missing"),
            (12, 2) => (ParameterProblem, "bad header length"),
            (12, _) => (ParameterProblem, "parameter problem"),
            _ => (Other, "unknown ICMP error"),
        }
    }
}

/// Whether type `icmp_type` is an error that quotes a packet and that wgnat reads.
pub const fn is_error(v6: bool, icmp_type: u8) -> bool {
    if v6 {
        matches!(icmp_type, 1..=4)
    } else {
        matches!(icmp_type, 3 | 11 | 12)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_that_is_read_has_words_for_every_code() {
        for v6 in [false, true] {
            for icmp_type in 0..=u8::MAX {
                for code in 0..=u8::MAX {
                    let (class, words) = meaning(v6, icmp_type, code);
                    assert_eq!(class != IcmpClass::Other, is_error(v6, icmp_type));
                    assert!(!words.is_empty());
                }
            }
        }
    }

    #[test]
    fn the_same_number_differs_by_family() {
        assert_eq!(meaning(false, 3, 3).0, IcmpClass::PortUnreachable);
        assert_eq!(meaning(true, 1, 4).0, IcmpClass::PortUnreachable);
        assert_eq!(meaning(true, 3, 0).0, IcmpClass::TimeExceeded);
        assert_eq!(meaning(false, 3, 13).0, IcmpClass::Prohibited);
        assert_eq!(
            meaning(true, 1, 1),
            (IcmpClass::Prohibited, "administratively prohibited")
        );
    }
}
