//! `--record` and `--replay`: observations as JSON lines.
