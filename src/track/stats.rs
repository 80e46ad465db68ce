//! Small statistics over samples: shares with their interval, quantiles, jitter. Pure.

use crate::time::Span;

/// Wilson's score interval of `hits` of `all`, for 95 %; `None` of nothing.
pub fn wilson(hits: u64, all: u64) -> Option<(f64, f64)> {
    const Z: f64 = 1.96;
    if all == 0 {
        return None;
    }
    #[allow(clippy::cast_precision_loss)] // counts of packets
    let (n, p) = (all as f64, hits as f64 / all as f64);
    let middle = p + Z * Z / (2.0 * n);
    let spread = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let whole = 1.0 + Z * Z / n;
    Some((
        ((middle - spread) / whole).max(0.0),
        ((middle + spread) / whole).min(1.0),
    ))
}

/// The value below which a share `q` (0 to 1) of `sorted` lies, by the nearest rank; `None` of nothing.
pub fn quantile(sorted: &[Span], q: f64) -> Option<Span> {
    let last = sorted.len().checked_sub(1)?;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )] // within 0 ..= last
    let rank = (q.clamp(0.0, 1.0) * last as f64).round() as usize;
    sorted.get(rank).copied()
}

/// The middle of spans in any order; `None` of none.
pub fn median(spans: &[Span]) -> Option<Span> {
    let mut sorted = spans.to_vec();
    sorted.sort_unstable();
    quantile(&sorted, 0.5)
}

/// How much one sample differs from the one before it, on average (the difference that RFC 3550, section 6.4.1,
/// smooths); `None` of fewer than two.
pub fn jitter(samples: &[Span]) -> Option<Span> {
    let steps = u32::try_from(samples.len().checked_sub(1)?)
        .ok()
        .filter(|n| *n > 0)?;
    let sum: Span = samples
        .iter()
        .zip(samples.iter().skip(1))
        .map(|(a, b)| a.abs_diff(*b))
        .sum();
    Some(sum / steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Span {
        Span::from_millis(n)
    }

    #[test]
    fn intervals_hold_the_share_and_narrow_with_more_samples() {
        let (low, high) = wilson(0, 10).unwrap();
        assert!(low < 1e-9 && (0.27..0.29).contains(&high), "{low} {high}");
        let (low, high) = wilson(10, 10).unwrap();
        assert!((0.71..0.73).contains(&low) && high > 0.999, "{low} {high}");
        let (few, many) = (wilson(3, 10).unwrap(), wilson(300, 1000).unwrap());
        assert!(many.1 - many.0 < (few.1 - few.0) / 5.0);
        assert_eq!(wilson(0, 0), None);
    }

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let sorted: Vec<Span> = (1..=100).map(ms).collect();
        assert_eq!(quantile(&sorted, 0.5), Some(ms(51)));
        assert_eq!(quantile(&sorted, 0.95), Some(ms(95)));
        assert_eq!(quantile(&sorted, 1.0), Some(ms(100)));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn jitter_is_the_mean_step() {
        assert_eq!(jitter(&[ms(10), ms(14), ms(10)]), Some(ms(4)));
        assert_eq!(jitter(&[ms(10)]), None);
    }
}
