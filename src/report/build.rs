//! From a [`World`] and an [`Evaluation`] to a [`Report`].

use super::Report;
use crate::rules::Evaluation;
use crate::track::World;

/// Builds the report of `world` as it is now.
pub fn build(_world: &World, _evaluation: Evaluation, _version: &str) -> Report {
    unimplemented!()
}
