//! (being written)

/// State.
#[derive(Debug, Default)]
pub struct RouteState {}

use crate::observation::host::{RouteAnswer, RouteTables};
use crate::time::Timestamp;

impl RouteState {
    /// Takes tables in.
    pub fn apply_tables(&mut self, _at: Timestamp, _tables: &RouteTables) {}
    /// Takes an answer in.
    pub fn apply_answer(&mut self, _at: Timestamp, _answer: &RouteAnswer) {}
}
