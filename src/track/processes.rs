//! Processes behind sockets: who holds a destination's connections, and who nears the limit of open files.
//!
//! In: [`ProcessTable`]s. Out: [`Owner`] of a destination; the inodes whose owners would tell one, each asked for once.
//! TIME_WAIT sockets have no owner (`sock_diag` gives inode 0), so a destination's owner is told from its live sockets.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::sockets::{History, SocketState};
use crate::observation::Request;
use crate::observation::socket::{ProcessFacts, ProcessIdentity, ProcessTable};
use crate::time::Timestamp;

/// Destinations whose owners are looked for.
const BUSY: usize = 8;

/// Inodes asked for at a time for one destination; with this many answers it is well enough known.
const INODES_EACH: usize = 16;

/// Inodes remembered as asked for or answered; the oldest are forgotten (and might be asked for again).
const MAX_INODES: usize = 4096;

/// Processes remembered; at the bound the one that was read longest ago makes room.
const MAX_PROCESSES: usize = 1024;

/// The process whose connections to a destination are: it holds most of the live sockets, or opened most.
#[derive(Clone, Debug, PartialEq)]
pub struct Owner {
    /// Who: of several processes of one program the one that holds most.
    pub process: ProcessIdentity,
    /// How many processes of the same program hold sockets of this destination, this one included: their pools add up.
    pub processes: u32,
    /// Sockets of this program…
    pub sockets: u32,
    /// …among those whose owner is known.
    pub known: u32,
}

/// Processes of one name and executable that hold sockets of a destination.
#[derive(Default)]
struct Program {
    sockets: u32,
    processes: u32,
    most: u32,
    pid: u32,
}

/// Processes behind sockets.
#[derive(Debug, Default)]
pub struct ProcessState {
    seen_at: Option<Timestamp>,
    unreadable: u32,
    processes: BTreeMap<u32, (Timestamp, ProcessFacts)>,
    owners: HashMap<u32, u32>,
    asked: HashSet<u32>,
    order: VecDeque<u32>,
    looked_at: Option<Timestamp>,
}

impl ProcessState {
    /// Takes processes in.
    pub fn apply(&mut self, at: Timestamp, table: &ProcessTable) {
        self.seen_at = Some(at);
        self.unreadable = table.unreadable;
        for facts in &table.processes {
            let known = self.processes.get(&facts.pid);
            if known.is_some_and(|(_, k)| k.start_ticks != facts.start_ticks) {
                // The pid has been given to another program since.
                self.owners.retain(|_, pid| *pid != facts.pid);
            }
            if known.is_none() && self.processes.len() >= MAX_PROCESSES {
                let oldest = self.processes.iter().min_by_key(|(_, (seen, _))| *seen);
                match oldest.map(|(pid, (seen, _))| (*pid, *seen)) {
                    Some((pid, seen)) if seen < at => self.processes.remove(&pid),
                    _ => continue,
                };
            }
            self.processes.insert(facts.pid, (at, facts.clone()));
        }
        for (inode, pid) in &table.owners {
            self.remember(*inode);
            self.owners.insert(*inode, *pid);
        }
    }

    fn remember(&mut self, inode: u32) {
        if self.asked.insert(inode) {
            self.order.push_back(inode);
        }
        while self.order.len() > MAX_INODES {
            if let Some(old) = self.order.pop_front() {
                self.asked.remove(&old);
                self.owners.remove(&old);
            }
        }
    }

    /// Inodes whose owner would tell whose a busy destination is, each returned once, newest first; nothing until the
    /// sockets have been looked at anew.
    pub fn owner_requests(&mut self, sockets: &SocketState) -> Vec<Request> {
        let newest = sockets.newest().map(|(at, _)| at);
        if newest == self.looked_at {
            return Vec::new();
        }
        self.looked_at = newest;
        let mut wanted = Vec::new();
        for (_, history) in sockets.busiest(BUSY) {
            let known = history.inodes().filter(|i| self.owners.contains_key(i)).count();
            let room = INODES_EACH.saturating_sub(known);
            let new: Vec<u32> = history
                .inodes()
                .rev()
                .filter(|i| !self.asked.contains(i))
                .take(room)
                .collect();
            for inode in new {
                self.remember(inode);
                wanted.push(inode);
            }
        }
        if wanted.is_empty() {
            Vec::new()
        } else {
            vec![Request::OwnersOf(wanted)]
        }
    }

    /// The process that holds most of the live sockets of `history`; `None` where none is known to hold more than half
    /// of those whose owner is known.
    pub fn owner(&self, history: &History) -> Option<Owner> {
        let mut by_pid: BTreeMap<u32, u32> = BTreeMap::new();
        for pid in history.inodes().filter_map(|inode| self.owners.get(&inode)) {
            *by_pid.entry(*pid).or_default() += 1;
        }
        let known: u32 = by_pid.values().sum();
        // Workers of one program share the load: they count together.
        let mut programs: BTreeMap<(&str, Option<&str>), Program> = BTreeMap::new();
        for (pid, sockets) in &by_pid {
            let Some((_, facts)) = self.processes.get(pid) else {
                continue;
            };
            let program = programs.entry((&facts.comm, facts.exe.as_deref())).or_default();
            program.sockets += sockets;
            program.processes += 1;
            if *sockets > program.most {
                (program.most, program.pid) = (*sockets, *pid);
            }
        }
        let Program {
            sockets,
            processes,
            pid,
            ..
        } = programs.into_values().max_by_key(|p| p.sockets)?;
        let (_, facts) = self.processes.get(&pid)?;
        (sockets * 2 > known).then_some(Owner {
            process: facts.into(),
            processes,
            sockets,
            known,
        })
    }

    /// Every process that is known, by its id, with when it was last read.
    pub fn all(&self) -> impl Iterator<Item = (Timestamp, &ProcessFacts)> {
        self.processes.values().map(|(at, facts)| (*at, facts))
    }

    /// When processes were last read.
    pub fn seen_at(&self) -> Option<Timestamp> {
        self.seen_at
    }

    /// Processes whose descriptors could not be read.
    pub fn unreadable(&self) -> u32 {
        self.unreadable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::socket::{DestinationTally, SocketTally, StateCounts};
    use crate::types::Proto;

    fn sockets(inodes: impl IntoIterator<Item = u32>) -> SocketState {
        let mut state = SocketState::default();
        look(&mut state, 1, inodes);
        state
    }

    fn look(state: &mut SocketState, at: i64, inodes: impl IntoIterator<Item = u32>) {
        let inodes: Vec<u32> = inodes.into_iter().collect();
        let mut states = StateCounts::default();
        states.0[1] = u32::try_from(inodes.len()).unwrap();
        let tally = SocketTally {
            destinations: vec![DestinationTally {
                proto: Proto::Tcp,
                source: [10, 0, 0, 2].into(),
                destination: ([203, 0, 113, 9], 443).into(),
                ports_in_range: states.total(),
                states,
                time_wait_left: [0; 6],
                inodes,
                uids: Vec::new(),
            }],
            ..SocketTally::default()
        };
        state.apply(Timestamp::from_secs(at), &tally);
    }

    fn process(pid: u32, start_ticks: u64, comm: &str) -> ProcessFacts {
        ProcessFacts {
            pid,
            start_ticks,
            comm: comm.to_owned(),
            exe: None,
            runtime: None,
            fds: 10,
            sockets: 5,
            fd_limit: Some(1024),
        }
    }

    fn table(processes: Vec<ProcessFacts>, owners: &[(u32, u32)]) -> ProcessTable {
        ProcessTable {
            processes,
            owners: owners.to_vec(),
            unreadable: 0,
        }
    }

    #[test]
    fn each_inode_is_asked_for_once_and_not_more_than_needed() {
        let mut sockets = sockets(1..=40);
        let mut state = ProcessState::default();
        let asked = |r: Vec<Request>| match r.as_slice() {
            [Request::OwnersOf(inodes)] => inodes.clone(),
            other => panic!("{other:?}"),
        };
        let first = asked(state.owner_requests(&sockets));
        assert_eq!(first, (25..=40).rev().collect::<Vec<_>>());
        assert_eq!(state.owner_requests(&sockets), Vec::new());
        look(&mut sockets, 2, 1..=40);
        let second = asked(state.owner_requests(&sockets));
        assert_eq!(second, (9..=24).rev().collect::<Vec<_>>());
        let owners: Vec<_> = first.iter().map(|i| (*i, 7)).collect();
        state.apply(
            Timestamp::from_secs(2),
            &table(vec![process(7, 1, "node")], &owners),
        );
        look(&mut sockets, 3, 1..=40);
        assert_eq!(state.owner_requests(&sockets), Vec::new());
    }

    #[test]
    fn the_owner_holds_more_than_half() {
        for (name, owners, expected) in [
            ("nobody known", &[][..], None),
            ("one", &[(1, 7), (2, 7), (3, 8)][..], Some((7, 1, 2, 3))),
            (
                "workers count together",
                &[(1, 7), (2, 8), (3, 9), (4, 9)][..],
                Some((9, 2, 3, 4)),
            ),
            ("two halves", &[(1, 7), (2, 8)][..], None),
            ("another destination's", &[(100, 7)][..], None),
        ] {
            let mut state = ProcessState::default();
            let processes = vec![
                process(7, 1, "node"),
                process(8, 1, "nginx"),
                process(9, 1, "nginx"),
            ];
            state.apply(Timestamp::from_secs(2), &table(processes, owners));
            let all = sockets(1..=10);
            let owner = state.owner(all.destinations().next().unwrap().1);
            let got = owner.map(|o| (o.process.pid, o.processes, o.sockets, o.known));
            assert_eq!(got, expected, "{name}");
        }
    }

    #[test]
    fn a_reused_pid_owns_nothing_of_its_predecessor() {
        let mut state = ProcessState::default();
        state.apply(
            Timestamp::from_secs(1),
            &table(vec![process(7, 1, "node")], &[(1, 7)]),
        );
        state.apply(Timestamp::from_secs(2), &table(vec![process(7, 99, "cron")], &[]));
        let all = sockets(1..=1);
        assert_eq!(state.owner(all.destinations().next().unwrap().1), None);
    }

    #[test]
    fn memory_is_bounded() {
        let mut state = ProcessState::default();
        for round in 0..3 {
            let processes = (0..1000).map(|i| process(round * 1000 + i, 1, "x")).collect();
            let owners: Vec<_> = (0..2000).map(|i| (round * 2000 + i, 1)).collect();
            state.apply(Timestamp::from_secs(round.into()), &table(processes, &[]));
            state.apply(Timestamp::from_secs(round.into()), &table(Vec::new(), &owners));
        }
        assert!(state.processes.len() <= MAX_PROCESSES);
        assert!(state.owners.len() <= MAX_INODES && state.asked.len() <= MAX_INODES);
        assert!(state.processes.contains_key(&2500));
    }
}
