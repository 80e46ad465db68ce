//! Links, addresses, routes and policy rules by rtnetlink, and look-ups of single ways (`RTM_GETROUTE`).
//!
//! Needs: nothing; works for any user. Costs: six dumps a look, in all well under a millisecond on a host with tens
//! of interfaces and routes. Bounds: 4,096 of each, the rest counted; a host with more routes than that is looked at
//! every 30 s only, since the kernel must walk all of them.

use std::time::Duration;

use libc::EOPNOTSUPP;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{Emit, ObserveError, Observer};
use crate::observation::host::{RouteAnswer, RouteTables, RouteWay};
use crate::observation::{Body, Request, RouteQuery, Source, SourceStatus};
use crate::sys::clock;
use crate::sys::netlink::{DUMP, Netlink, NetlinkError, REQUEST};
use crate::time::Span;
use crate::wire::netlink::route;

/// Items kept of each table and family.
const BOUND: usize = 4096;
/// A table that changes during each of this many dumps is taken as it is.
const TRIES: u32 = 3;

const INTERVAL: Span = Span::from_secs(2);
const INTERVAL_MANY_ROUTES: Span = Span::from_secs(30);

/// The observer.
pub struct Routes {
    netlink: Netlink,
    many_routes: bool,
}

impl Routes {
    /// For the calling thread's network namespace.
    pub fn open() -> Result<Self, ObserveError> {
        let netlink = Netlink::open(NETLINK_ROUTE, "route", Duration::from_secs(2))?;
        Ok(Self {
            netlink,
            many_routes: false,
        })
    }

    fn lookup(&mut self, query: &RouteQuery) -> Result<RouteAnswer, ObserveError> {
        let payload = route::lookup_request(query.destination, query.mark);
        let mut answer = None;
        let asked = self
            .netlink
            .request(route::GET_ROUTE, REQUEST, &payload, |kind, body| {
                if kind == route::NEW_ROUTE {
                    answer = route::parse_way(body);
                }
            });
        let way = match (asked, answer) {
            (Ok(_), Some(way)) => way,
            (Err(NetlinkError::Refused { errno, .. }), _) => RouteWay::None { errno },
            (Err(error), _) => return Err(error.into()),
            (Ok(_), None) => {
                let what = format!(
                    "the kernel's answer about the way to {} is not understood",
                    query.destination
                );
                return Err(ObserveError::Absent { what });
            }
        };
        Ok(RouteAnswer {
            query: query.clone(),
            way,
        })
    }
}

impl Observer for Routes {
    fn source(&self) -> Source {
        Source::Routes
    }

    fn interval(&self) -> Span {
        if self.many_routes {
            INTERVAL_MANY_ROUTES
        } else {
            INTERVAL
        }
    }

    fn look(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        let (at, began) = (clock::now(), clock::instant());
        let (tables, status) = dump(&mut self.netlink)?;
        self.many_routes = tables.routes_left_out > 0;
        emit.emit(at, began.elapsed(), Body::Routes(tables));
        Ok(status)
    }

    fn ask(&mut self, request: &Request, emit: &mut Emit<'_>) -> Result<(), ObserveError> {
        if let Request::RouteLookup(query) = request {
            let (at, began) = (clock::now(), clock::instant());
            let answer = self.lookup(query)?;
            emit.emit(at, began.elapsed(), Body::RouteAnswer(answer));
        }
        Ok(())
    }
}

/// What one dump gave.
struct List<T> {
    items: Vec<T>,
    /// Items beyond the bound.
    left_out: u64,
    /// Messages of the asked kind from which `read` made nothing.
    unread: u64,
    /// The table changed during every try.
    inexact: bool,
}

/// Dumps one table, again where it changed meanwhile. `read` makes an item of a message of type `answer`.
fn list<T>(
    netlink: &mut Netlink,
    request: u16,
    payload: &[u8],
    answer: u16,
    read: impl Fn(&[u8]) -> Option<T>,
) -> Result<List<T>, NetlinkError> {
    let mut tries = 1;
    loop {
        let mut list = List {
            items: Vec::new(),
            left_out: 0,
            unread: 0,
            inexact: false,
        };
        let dumped = netlink.request(request, REQUEST | DUMP, payload, |kind, body| {
            if kind != answer {
                return;
            }
            match read(body) {
                Some(item) if list.items.len() < BOUND => list.items.push(item),
                Some(_) => list.left_out += 1,
                None => list.unread += 1,
            }
        });
        match dumped {
            Ok(end) => list.inexact = end.interrupted,
            Err(NetlinkError::Overrun { .. }) => list.inexact = true,
            // This kernel has no IPv6, or no policy routing: the table is empty.
            Err(error) if error.errno() == Some(EOPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
        if !list.inexact || tries == TRIES {
            return Ok(list);
        }
        tries += 1;
    }
}

fn dump(netlink: &mut Netlink) -> Result<(RouteTables, SourceStatus), NetlinkError> {
    let links = list(
        netlink,
        route::GET_LINK,
        &route::links_request(None),
        route::NEW_LINK,
        route::parse_link,
    )?;
    let addresses = list(
        netlink,
        route::GET_ADDRESS,
        &route::addresses_request(),
        route::NEW_ADDRESS,
        route::parse_address,
    )?;
    // Asked for a family that it lacks, a kernel may answer with all others: hence the filters.
    let mut routes = |v6| {
        list(
            netlink,
            route::GET_ROUTE,
            &route::routes_request(v6),
            route::NEW_ROUTE,
            |body| route::parse_route(body).filter(|r| r.destination.addr().is_ipv6() == v6),
        )
    };
    let (routes4, routes6) = (routes(false)?, routes(true)?);
    let mut rules = |v6| {
        list(
            netlink,
            route::GET_RULE,
            &route::rules_request(v6),
            route::NEW_RULE,
            |body| route::parse_rule(body).filter(|r| r.v6 == v6),
        )
    };
    let (rules4, rules6) = (rules(false)?, rules(true)?);

    let routes_left_out = routes4.left_out + routes6.left_out;
    let others_left_out = links.left_out + addresses.left_out + rules4.left_out + rules6.left_out;
    let inexact = [links.inexact, addresses.inexact, routes4.inexact, routes6.inexact]
        .into_iter()
        .chain([rules4.inexact, rules6.inexact])
        .any(|i| i);
    let status = status(
        routes_left_out,
        others_left_out,
        links.unread + addresses.unread,
        inexact,
    );
    let tables = RouteTables {
        links: links.items,
        addresses: addresses.items,
        routes: [routes4.items, routes6.items].concat(),
        routes_left_out,
        rules: [rules4.items, rules6.items].concat(),
    };
    Ok((tables, status))
}

fn status(routes_left_out: u64, others_left_out: u64, unread: u64, inexact: bool) -> SourceStatus {
    let counted = [
        (routes_left_out, "routes beyond the first 4,096 were left out"),
        (
            others_left_out,
            "links, addresses or rules beyond the first 4,096 were left out",
        ),
        (unread, "links or addresses could not be read"),
    ];
    let mut reasons: Vec<String> = counted
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if inexact {
        reasons.push("tables changed while they were read: items may be missing or doubled".to_owned());
    }
    if reasons.is_empty() {
        SourceStatus::ok()
    } else {
        SourceStatus::degraded(reasons.join("; "))
    }
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
