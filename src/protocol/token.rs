//! The token of the web front: what its command writes down, and the front goes by.

use std::fmt::Write;

use crate::time::Wall;

/// The file in the home that holds it.
pub const TOKEN_FILE: &str = "web.token";

/// Whoever has it may do what our user may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What is sent.
    pub secret: String,
    /// Until when it counts; `None`: until it is replaced.
    pub until: Option<Wall>,
}

/// What a token is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It opens the door.
    Admitted,
    /// It did once.
    Expired,
    /// It does not.
    Wrong,
}

impl Token {
    /// A token from random bytes.
    pub fn new(random: &[u8; 32], until: Option<Wall>) -> Token {
        let mut secret = String::new();
        for byte in random {
            let _ = write!(secret, "{byte:02x}");
        }
        Token { secret, until }
    }

    /// From the text of its file. One that could be guessed is none.
    pub fn read(text: &str) -> Option<Token> {
        let mut words = text.split_whitespace();
        let secret = words.next().filter(|secret| secret.len() >= 32)?.to_string();
        let until = match words.next() {
            None => None,
            Some(word) => Some(Wall(word.parse().ok()?)),
        };
        words.next().is_none().then_some(Token { secret, until })
    }

    /// The text of its file.
    pub fn written(&self) -> String {
        match self.until {
            None => format!("{}\n", self.secret),
            Some(until) => format!("{} {}\n", self.secret, until.0),
        }
    }

    /// What is to be said to somebody who sends this. A right guess takes as long as a wrong one.
    pub fn admits(&self, given: &str, now: Wall) -> Admission {
        let (given, ours) = (given.as_bytes(), self.secret.as_bytes());
        let differs = given.iter().zip(ours).fold(0, |sum, (a, b)| sum | (a ^ b));
        match (given.len() == ours.len() && differs == 0, self.until) {
            (false, _) => Admission::Wrong,
            (true, Some(until)) if until <= now => Admission::Expired,
            (true, _) => Admission::Admitted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        for until in [None, Some(Wall(5_000))] {
            let token = Token::new(&[0xa5; 32], until);
            assert_eq!(token.secret, "a5".repeat(32));
            assert_eq!(Token::read(&token.written()), Some(token));
        }
        for text in ["", "short\n", &format!("{} x", "a".repeat(64)), &format!("{} 1 2", "a".repeat(64))] {
            assert_eq!(Token::read(text), None, "{text:?}");
        }
    }

    #[test]
    fn only_the_whole_token_opens_the_door_and_not_for_ever() {
        let token = Token::new(&[7; 32], Some(Wall(10)));
        let secret = token.secret.clone();
        assert_eq!(token.admits(&secret, Wall(9)), Admission::Admitted);
        assert_eq!(token.admits(&secret, Wall(10)), Admission::Expired);
        for wrong in ["", &secret[1..], &format!("{secret}0"), &secret.replace("07", "08")] {
            assert_eq!(token.admits(wrong, Wall(9)), Admission::Wrong, "{wrong:?}");
        }
    }
}
