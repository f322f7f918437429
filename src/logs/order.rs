//! Names in the order in which people count.

use std::cmp::Ordering;

/// Numbers in names count as numbers: `D-2` comes before `D-10`, and `D` before both.
pub fn by_number(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let (first, second) = (digits(a), digits(b));
        let ordering = match (first, second) {
            (0, _) | (_, 0) => a.first().cmp(&b.first()),
            _ => {
                let number =
                    |bytes: &[u8]| bytes.iter().position(|byte| *byte != b'0').unwrap_or(bytes.len());
                let (left, right) = (&a[number(&a[..first])..first], &b[number(&b[..second])..second]);
                left.len().cmp(&right.len()).then_with(|| left.cmp(right))
            }
        };
        if ordering != Ordering::Equal || a.is_empty() {
            return ordering;
        }
        a = &a[first.max(1)..];
        b = &b[second.max(1)..];
    }
}

fn digits(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_as_numbers() {
        let sorted = ["", "a", "a__D", "a__D-1", "a__D-2", "a__D-10", "a__D-010-1", "a__E", "b"];
        for pair in sorted.windows(2) {
            assert_eq!(by_number(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(by_number(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
            assert_eq!(by_number(pair[0], pair[0]), Ordering::Equal);
        }
    }
}
