//! Socket tables counted in the kernel by BPF iterators, for namespaces with so many sockets that carrying each of them here
//! costs more than all else.
//!
//! Needs: CAP_BPF and CAP_PERFMON (or root), Linux 5.9 with BTF. Costs: some 20 ms once, to load, and 1.5 MiB of kernel memory;
//! a tenth of a microsecond a socket then. The answers are those of [`SocketFold`](crate::observe::tally::sockets::SocketFold)
//! over `sock_diag`.

use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};

use super::load::{permitted, raise_memlock};
use super::object::{Aligned, Object, with_types};
use super::words;
use crate::observation::socket::SocketTally;
use crate::observe::tally::counted::{Outbound, tally};
use crate::observe::tally::ports::PortSet;
use crate::sys::bpf;
use crate::wire::bpf_tables::{self as records, BOARD, Board, END, PLACE, PORT, STATES, USE};

/// Entries of the maps.
const ENTRIES: u32 = 4096;

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!("../../../bpf/tables.bpf.o"));

const KEY: [u8; 4] = [0; 4];

/// The iterators, loaded.
pub struct Tables {
    object: Object,
    udp_served: OwnedFd,
    udp_connected: OwnedFd,
    tcp: OwnedFd,
    hertz: Option<u32>,
}

impl Tables {
    /// Loads them; an error says why not.
    pub fn load() -> Result<Self, String> {
        if !permitted() {
            return Err("eBPF needs CAP_BPF and CAP_PERFMON (or root)".to_owned());
        }
        raise_memlock();
        with_types(|types| {
            let object = Object::open(&OBJECT.0, &[], Some(types))?;
            let link = |name: &str, of: &str| {
                let program = object.program(name, bpf::TRACING, bpf::TRACE_ITER, types.iterator(of)?)?;
                bpf::link_iterator(program.as_fd())
                    .map_err(|e| format!("attaching the eBPF iterator {name}: {}", words::reason(&e)))
            };
            let (udp_served, udp_connected) = (link("udp_served", "udp")?, link("udp_connected", "udp")?);
            let tcp = link("tcp", "tcp")?;
            Ok(Self {
                object,
                udp_served,
                udp_connected,
                tcp,
                hertz: None,
            })
        })
    }

    /// Counts every socket of the calling thread's namespace; `usable` are the ports that the kernel hands out.
    pub fn count(&mut self, usable: &PortSet) -> Result<SocketTally, String> {
        self.wipe(usable)?;
        walk(&self.udp_served)?;
        if self.hertz.is_none() {
            // The ages of TIME_WAIT sockets are in ticks: how long one is must be known before TCP is walked.
            let board = self.board()?;
            self.hertz = records::hertz(board.jiffies, board.monotonic);
            if self.hertz.is_none() {
                return Err(
                    "the length of the kernel's ticks cannot be told around five minutes after boot"
                        .to_owned(),
                );
            }
            self.wipe(usable)?;
            walk(&self.udp_served)?;
        }
        walk(&self.udp_connected)?;
        walk(&self.tcp)?;
        let board = self.board()?;
        let mut outbound = Vec::new();
        let drained = bpf::drain::<PLACE, USE>(self.object.map("outbound")?, ENTRIES, |place, used| {
            outbound.push(Outbound::new(records::place(place), records::used(used)));
        });
        drained.map_err(|e| failed(&e))?;
        let mut inbound = Vec::new();
        let drained = bpf::drain::<PORT, STATES>(self.object.map("inbound")?, ENTRIES, |port, states| {
            let port = u16::try_from(u32::from_ne_bytes(*port)).unwrap_or(0);
            inbound.push((port, records::states(states)));
        });
        drained.map_err(|e| failed(&e))?;
        let mut served_at = Vec::new();
        let drained = bpf::drain::<END, 4>(self.object.map("specific")?, ENTRIES, |end, _| {
            served_at.extend(records::listener(end));
        });
        drained.map_err(|e| failed(&e))?;
        if board.outbound_beyond + board.inbound_beyond > 0 {
            return Err(format!(
                "there are more than {ENTRIES} destinations or served ports"
            ));
        }
        Ok(tally(&board, outbound, inbound, &served_at, usable))
    }

    fn wipe(&self, usable: &PortSet) -> Result<(), String> {
        let fresh = records::fresh_board(usable.words(), self.hertz.unwrap_or(0));
        bpf::map_update(self.object.map("board")?, &KEY, &fresh).map_err(|e| failed(&e))?;
        bpf::drain::<END, 4>(self.object.map("specific")?, ENTRIES, |_, _| {}).map_err(|e| failed(&e))
    }

    fn board(&self) -> Result<Board, String> {
        let mut bytes = vec![0; BOARD];
        bpf::map_lookup(self.object.map("board")?, &KEY, &mut bytes).map_err(|e| failed(&e))?;
        let bytes = bytes.first_chunk::<BOARD>().ok_or("the board is cut")?;
        Ok(records::board(bytes))
    }
}

fn failed(error: &std::io::Error) -> String {
    format!("reading the counted socket tables: {}", words::reason(error))
}

/// Reads a walk to its end: its program writes nothing, so that is one read, or a few where the table is very long.
fn walk(link: &OwnedFd) -> Result<(), String> {
    let iterator = bpf::iterate(link.as_fd()).map_err(|e| failed(&e))?;
    let mut file = std::fs::File::from(iterator);
    let mut nothing = [0; 64];
    loop {
        match file.read(&mut nothing) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            // A million sockets without a byte written: to be continued.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(&error)),
        }
    }
}
