//! An HTTP/1.1 server that answers in batches: nobody in a batch has an answer before all of it have asked, so how many
//! connections a client uses at a time does not depend on how busy the machine is.

use super::Namespace;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// A batch that does not fill up (the rest failed) is answered after this.
const PATIENCE: Duration = Duration::from_millis(500);

/// The server. It listens until the test process ends, and closes a connection only after the client has.
#[derive(Debug)]
pub struct BatchServer {
    at: SocketAddr,
}

#[derive(Debug, Default)]
struct Batch {
    number: u64,
    waiting: usize,
}

impl BatchServer {
    /// Starts it in `ns`.
    #[track_caller]
    pub fn start(ns: &Namespace, at: SocketAddr, size: usize) -> Self {
        let listener = ns
            .run(|| TcpListener::bind(at))
            .unwrap_or_else(|e| panic!("cannot listen on {at}: {e}"));
        let batch = Arc::new((Mutex::new(Batch::default()), Condvar::new()));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let batch = Arc::clone(&batch);
                std::thread::spawn(move || serve(stream, size, &batch));
            }
        });
        Self { at }
    }

    /// Where to ask.
    pub fn url(&self) -> String {
        format!("http://{}/", self.at)
    }
}

fn serve(stream: TcpStream, size: usize, batch: &(Mutex<Batch>, Condvar)) {
    let Ok(mut answers) = stream.try_clone() else {
        return;
    };
    // A request without a body ends with an empty line.
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        if !line.is_empty() {
            continue;
        }
        await_batch(size, batch);
        if answers
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")
            .is_err()
        {
            return;
        }
    }
}

fn await_batch(size: usize, (state, changed): &(Mutex<Batch>, Condvar)) {
    let mut now = state.lock().expect("no panic while locked");
    let mine = now.number;
    now.waiting += 1;
    if now.waiting < size {
        now = changed
            .wait_timeout_while(now, PATIENCE, |b| b.number == mine)
            .expect("no panic while locked")
            .0;
    }
    if now.number == mine {
        now.number += 1;
        now.waiting = 0;
        changed.notify_all();
    }
}
