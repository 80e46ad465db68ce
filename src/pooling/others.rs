//! What helps where reuse does not: closing what is left open, reaching what does not answer, carrying more on each
//! connection, more addresses.

use super::{Case, Evidence, Fix};
use crate::types::Proto;
use crate::words::{count, counted};

/// A leak of sockets that the other side has closed.
pub fn close(case: &Case<'_>) -> Fix {
    let s = case.sockets;
    Fix {
        title: format!("Close what {} has closed", case.to),
        why: format!(
            "{} of {} sockets are in CLOSE_WAIT: the other side has closed the connection and the program has not called \
             close(). That is a leak in the program; no setting of the system ends it.",
            count(s.close_wait),
            count(s.live)
        ),
        command: Some(format!("ss -tnpo state close-wait dst {}", case.to)),
        snippet: None,
        expect: Evidence::new().with("close_wait", 0),
    }
}

/// A destination that does not answer.
pub fn reach(case: &Case<'_>) -> Fix {
    let s = case.sockets;
    Fix {
        title: format!("Find out why {} does not answer", case.to),
        why: format!(
            "{} of {} sockets wait in SYN_SENT for an answer that does not come, and each holds a port until the program gives \
             up (about two minutes unless it sets a limit). Set a connect time-out of a few seconds and back off between \
             attempts.",
            count(s.syn_sent),
            count(s.live)
        ),
        command: Some(format!("ss -tnpo state syn-sent dst {}", case.to)),
        snippet: None,
        expect: Evidence::new().with("syn_sent", 0),
    }
}

/// Many connections that live long.
pub fn spread(case: &Case<'_>) -> Vec<Fix> {
    if case.proto == Proto::Udp {
        return vec![Fix {
            title: "Send from fewer UDP sockets".to_owned(),
            why: "A UDP socket holds its port against every destination, not against one only. One socket can send to any number \
                  of peers (sendto) and carry any number of requests at a time."
                .to_owned(),
            command: case.user.is_none().then(|| format!("ss -unp dst {}", case.to)),
            ..Fix::default()
        }];
    }
    let more = Fix {
        title: "Carry more on each connection".to_owned(),
        why: format!(
            "{} are open at once and live long, so reusing them more frees nothing. HTTP/2 or another protocol that \
             multiplexes, batching, or a proxy near {} makes them fewer.",
            counted(case.sockets.live, "connection", "connections"),
            case.to
        ),
        command: case
            .user
            .is_none()
            .then(|| format!("ss -tnpo state established dst {}", case.to)),
        ..Fix::default()
    };
    vec![more, addresses(case)]
}

/// More ports by more addresses: each pair of addresses and each port of the destination has a range of its own.
pub fn addresses(case: &Case<'_>) -> Fix {
    let each = case.ports.map_or_else(
        || "a range of local ports".to_owned(),
        |p| counted(p.usable, "port", "ports"),
    );
    Fix {
        title: "Give it more addresses".to_owned(),
        why: format!(
            "A local port is taken for one source, one destination and its port only. A second source address, a second address \
             or port of the destination, or IPv6 beside IPv4 brings {each} more. A program that binds to a source address \
             itself should set IP_BIND_ADDRESS_NO_PORT, or the kernel chooses the port before it knows the destination. A NAT on \
             the way has a limit of its own and needs more addresses too; over IPv6 there is none."
        ),
        ..Fix::default()
    }
}
