//! pcapng's options: a list of code, length and value, each padded to 32 bits.

use super::Order;

/// The options in `bytes`, as far as they are sound: the list ends at its end mark or where it is cut.
pub fn options(order: Order, bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let ([a, b, c, d], after) = rest.split_first_chunk::<4>()?;
        let (code, length) = (order.u16([*a, *b]), usize::from(order.u16([*c, *d])));
        let value = after.get(..length)?;
        if code == 0 {
            return None;
        }
        rest = after.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((code, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_where_it_must() {
        let all = |bytes| {
            options(Order::Big, bytes)
                .map(|(c, v)| (c, v.len()))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            all(&[0, 9, 0, 1, 6, 0, 0, 0, 0, 2, 0, 4, 1, 2, 3, 4, 0, 0, 0, 0, 0, 9]),
            [(9, 1), (2, 4)]
        );
        assert_eq!(all(&[0, 9, 0, 1, 6]), [(9, 1)]);
        assert_eq!(all(&[0, 9, 0, 2, 6]), []);
        assert_eq!(all(&[0, 9, 0]), []);
    }
}
