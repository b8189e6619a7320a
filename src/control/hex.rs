//! Frames as hexadecimal text, as people paste them and as the API carries them.

use thiserror::Error;

/// A text that is not hexadecimal.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// A character that does not belong.
    #[error("`{0}` is not a hexadecimal digit")]
    Digit(char),
    /// Half a byte.
    #[error("an odd number of hexadecimal digits ({0})")]
    Odd(usize),
}

/// Bytes as lower-case digits.
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a text. White space, `:`, `-` and `.` between digits and a leading `0x` are passed over.
///
/// # Errors
/// For any other character, and half a byte.
pub fn decode(text: &str) -> Result<Vec<u8>, Error> {
    let text = text.trim();
    let text = text.strip_prefix("0x").unwrap_or(text);
    let mut digits = Vec::with_capacity(text.len());
    for character in text.chars() {
        match character.to_digit(16).and_then(|digit| u8::try_from(digit).ok()) {
            Some(digit) => digits.push(digit),
            None if character.is_whitespace() || ":-.".contains(character) => {}
            None => return Err(Error::Digit(character)),
        }
    }
    if !digits.len().is_multiple_of(2) {
        return Err(Error::Odd(digits.len()));
    }
    Ok(digits.as_chunks().0.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&bytes)).unwrap(), bytes);
        assert_eq!(decode("0x52:54-00 01.02").unwrap(), [0x52, 0x54, 0, 1, 2]);
        assert_eq!(decode("123"), Err(Error::Odd(3)));
        assert_eq!(decode("12zz"), Err(Error::Digit('z')));
    }
}
