//! Spreads looks that cost others something, so that a fleet that was started at one moment does not ask all at once.

use crate::sys::random;
use crate::time::Span;

/// `span`, up to a tenth shorter or longer.
pub(super) fn jittered(span: Span) -> Span {
    random::bytes().map_or(span, |bytes| spread(span, u16::from_be_bytes(bytes)))
}

/// `chance` is even over its range.
fn spread(span: Span, chance: u16) -> Span {
    span.mul_f64(0.9 + 0.2 * f64::from(chance) / f64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_either_way() {
        let minute = Span::from_secs(60);
        assert_eq!(spread(minute, 0), Span::from_secs(54));
        assert_eq!(spread(minute, u16::MAX), Span::from_secs(66));
        let several: std::collections::BTreeSet<Span> = (0..16).map(|_| jittered(minute)).collect();
        assert!(several.len() > 1, "{several:?}");
    }
}
