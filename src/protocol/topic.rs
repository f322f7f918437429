//! Topics of the message bus: words with dots between them; in a pattern `*` stands for one word, `#` for any
//! number of them, none included.

/// The longest topic or pattern, in bytes.
pub const TOPIC_LIMIT: usize = 256;
/// Topics that begin so are pmx's own: nobody else can publish them.
pub const RESERVED: &str = "pmx.";

/// What is wrong with a topic that somebody wants to publish.
pub fn topic_fault(topic: &str) -> Option<String> {
    if topic.starts_with(RESERVED) {
        return Some(format!("topics that begin with {RESERVED} are pmx's own"));
    }
    if topic.contains(['*', '#']) {
        return Some("a topic holds no * and no #".to_string());
    }
    pattern_fault(topic)
}

/// What is wrong with a pattern.
pub fn pattern_fault(pattern: &str) -> Option<String> {
    if pattern.is_empty() || pattern.len() > TOPIC_LIMIT {
        return Some(format!("a topic has 1 to {TOPIC_LIMIT} bytes"));
    }
    pattern.chars().any(char::is_control).then(|| "a topic cannot hold control characters".to_string())
}

/// Whether a pattern covers a topic.
pub fn matches(pattern: &str, topic: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('.').collect();
    let topic: Vec<&str> = topic.split('.').collect();
    let (mut p, mut t) = (0, 0);
    // The last `#`, and how far it reaches.
    let mut back: Option<(usize, usize)> = None;
    while t < topic.len() {
        match pattern.get(p) {
            Some(&"#") => {
                back = Some((p, t));
                p += 1;
            }
            Some(word) if *word == "*" || *word == topic[t] => {
                p += 1;
                t += 1;
            }
            _ => match &mut back {
                Some((at, reach)) => {
                    *reach += 1;
                    (p, t) = (*at + 1, *reach);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|word| *word == "#")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_word_and_a_hash_any_number() {
        for (pattern, topic, expected) in [
            ("orders.new", "orders.new", true),
            ("orders.new", "orders", false),
            ("orders.*", "orders.new", true),
            ("orders.*", "orders", false),
            ("orders.*", "orders.new.eu", false),
            ("orders.#", "orders", true),
            ("orders.#", "orders.new.eu", true),
            ("orders.#", "order", false),
            ("#", "anything.at.all", true),
            ("#.eu", "orders.new.eu", true),
            ("#.eu", "orders.eu.new", false),
            ("a.#.z.#.z", "a.z.b.z.z", true),
            ("*.*", "a", false),
            ("process:*", "process:exception", false),
        ] {
            assert_eq!(matches(pattern, topic), expected, "{pattern} {topic}");
        }
        // Patterns made to be slow are not.
        assert!(!matches(&format!("{}b", "#.a.".repeat(50)), &format!("{}c", "a.".repeat(120))));
    }

    #[test]
    fn our_own_topics_are_nobody_elses() {
        assert!(topic_fault("pmx.process.online").is_some());
        assert!(topic_fault("a.*").is_some() && topic_fault("").is_some() && topic_fault("a\nb").is_some());
        assert_eq!((topic_fault("pmxx.a"), pattern_fault("pmx.#")), (None, None));
    }
}
