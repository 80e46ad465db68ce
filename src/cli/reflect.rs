//! The options of `wgnat reflect`.

use std::net::SocketAddr;

use clap::Args;

/// `wgnat reflect`.
#[derive(Debug, Args)]
#[command(after_help = "\
With two addresses of a family it serves all of RFC 5780 for that family; with one, the tests that need no second address.
No answer over UDP is longer than its request, so that nobody can use the server to flood another: `wgnat nat` makes its
requests long enough. Other clients do not; --answer-short-requests serves them too.")]
pub struct Reflect {
    /// Serve at this address; give two of a family for all tests (may be repeated) [default: 127.0.0.1 and 127.0.0.2]
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    pub address: Vec<String>,
    /// The two ports, or one
    #[arg(long, value_name = "PORT[,PORT]", value_delimiter = ',', num_args = 1..=2, default_values_t = [3478, 3479], value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Vec<u16>,
    /// What clients know an --address by, where it is translated on the way in (in the order of --address)
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pub public: Vec<std::net::IpAddr>,
    /// Answer requests that are shorter than their answer, too: up to about five times the bytes go to whoever the request
    /// claims to be from
    #[arg(long)]
    pub answer_short_requests: bool,
    /// Requests per second that are answered for each source prefix (/24, /56); 0 for no limit
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub rate_limit: u32,
    /// Requests that a prefix may send at once
    #[arg(long, value_name = "N", default_value_t = 400)]
    pub burst: u32,
    /// Serve Prometheus metrics here; beyond loopback only if you say so
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Threads that serve each UDP socket
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub threads: u8,
}
