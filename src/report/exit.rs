//! From a verdict to an exit code (Nagios's: 0 ok, 1 warning, 2 critical, 3 unknown).

use super::Status;

/// From which severity on a command fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailOn {
    /// Warnings and critical findings fail.
    #[default]
    Warning,
    /// Only critical findings fail.
    Critical,
    /// No finding fails.
    Never,
}

/// The exit code of a wrong invocation, and of a look that saw nothing.
pub const UNKNOWN: u8 = 3;

/// The exit code of `status`. That nothing could be observed is no finding, so `fail_on` does not hide it.
pub const fn code(status: Status, fail_on: FailOn) -> u8 {
    match (status, fail_on) {
        (Status::Unknown, _) => UNKNOWN,
        (Status::Critical, FailOn::Warning | FailOn::Critical) => 2,
        (Status::Warning, FailOn::Warning) => 1,
        (Status::Ok, _) | (Status::Warning | Status::Critical, _) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_the_line() {
        for (status, by_default, critical, never) in [
            (Status::Ok, 0, 0, 0),
            (Status::Warning, 1, 0, 0),
            (Status::Critical, 2, 2, 0),
            (Status::Unknown, 3, 3, 3),
        ] {
            assert_eq!(code(status, FailOn::default()), by_default);
            assert_eq!(code(status, FailOn::Critical), critical);
            assert_eq!(code(status, FailOn::Never), never);
        }
    }
}
