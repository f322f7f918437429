//! The known name that is nearest to a mistyped one.

/// The nearest of `known`, if one is near enough to be what was meant.
pub fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Longer words are not typing errors, and the distance is quadratic.
    const LONGEST: usize = 64;
    let length = typed.chars().count();
    if length > LONGEST {
        return None;
    }
    // One slip in a short word, two in a longer one; two thirds wrong is another word.
    let allowed = if length <= 4 { 1 } else { 2 };
    known
        .map(|name| (distance(&typed.to_lowercase(), &name.to_lowercase()), name))
        .filter(|&(far, _)| far <= allowed)
        .min_by_key(|&(far, _)| far)
        .map(|(_, name)| name)
}

/// Insertions, deletions, replacements and swaps of neighbours between `a` and `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let known = ["start", "stop", "restart", "reload", "list", "logs", "describe", "sendSignal"];
        for (typed, expected) in [
            ("strat", Some("start")),
            ("statr", Some("start")),
            ("relaod", Some("reload")),
            ("stpo", Some("stop")),
            ("descirbe", Some("describe")),
            ("sendsignal", Some("sendSignal")),
            ("lst", Some("list")),
            ("", None),
            ("frobnicate", None),
            ("xy", None),
        ] {
            assert_eq!(nearest(typed, known.into_iter()), expected, "{typed}");
        }
        assert_eq!(nearest(&"x".repeat(10_000), known.into_iter()), None);
    }
}
