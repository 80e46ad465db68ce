//! (being written)
use crate::report::Report;
use std::io::{self, Write};
/// x
pub fn render(_report: &Report, _out: &mut dyn Write) -> io::Result<()> {
    Ok(())
}
