//! From a verdict to an exit code (Nagios).
