//! A connection to an agent that stays open for many requests, or for its events.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use super::{Agent, Answer};

/// The connection.
pub struct KeptOpen(BufReader<TcpStream>);

impl KeptOpen {
    /// To `agent`.
    #[track_caller]
    pub fn to(agent: &Agent) -> Self {
        Self(BufReader::new(agent.connect()))
    }

    fn ask(&mut self, path: &str) {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.0.get_mut().write_all(head.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let length = self.0.read_line(&mut line).expect("the agent answers");
        assert_ne!(length, 0, "the agent has closed the connection");
        line.trim_end().to_owned()
    }

    fn head(&mut self) -> String {
        let mut head = String::new();
        loop {
            match self.line() {
                line if line.is_empty() => return head,
                line => head += &format!("{line}\r\n"),
            }
        }
    }

    /// GET.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Answer {
        self.ask(path);
        let head = self.head();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        let mut answer = Answer {
            status,
            head,
            body: String::new(),
        };
        let length = answer
            .header("content-length")
            .expect("a length")
            .parse()
            .unwrap();
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("the whole body");
        answer.body = String::from_utf8(body).unwrap();
        answer
    }

    /// From now on it carries events.
    #[track_caller]
    pub fn listen(&mut self) {
        self.ask("/api/v1/events");
        let head = self.head();
        assert!(head.contains(" 200 "), "{head}");
        self.until_event("hello");
    }

    /// Waits for the next event of this kind.
    #[track_caller]
    pub fn until_event(&mut self, kind: &str) {
        let wanted = format!("event: {kind}");
        while self.line() != wanted {}
    }
}
