//! IMDSv2's session tokens (Amazon EC2 user guide, "Use IMDSv2"). A token is its end and a MAC over that and its guest, so
//! nothing is remembered for it; they end with the process.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::Guest;
use crate::types::PortIdx;

/// Seconds that a token may be asked for, at most.
pub(super) const MAX_TTL: u64 = 21_600;
/// Hexadecimal digits of a token's end.
const END: usize = 16;

/// The HMAC-SHA256 (RFC 2104, FIPS 180-4) that is fed with `parts`, under `key`.
pub(super) fn mac(key: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    // A key of HMAC has any length (RFC 2104, 2); an empty one stands in for an error that does not happen.
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| Hmac::<Sha256>::new(&Default::default()));
    parts.iter().for_each(|part| mac.update(part));
    mac
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn bound(key: &[u8], port: PortIdx, guest: &Guest, end: &str) -> Hmac<Sha256> {
    mac(key, &[b"token", &port.0.to_be_bytes(), end.as_bytes(), guest.instance_id.as_bytes()])
}

/// A token for a guest until `end`, in seconds of the service's clock.
pub(super) fn issue(key: &[u8; 32], port: PortIdx, guest: &Guest, end: u64) -> String {
    let end = format!("{end:016x}");
    let digits = hex(&bound(key, port, guest, &end).finalize().into_bytes());
    end + &digits
}

/// Whether a token is this guest's and has not ended. The MAC is compared in constant time.
pub(super) fn holds(key: &[u8; 32], port: PortIdx, guest: &Guest, token: &str, now: u64) -> bool {
    let Some((end, digits)) = token.split_at_checked(END) else { return false };
    let Some(claimed) = unhex(digits) else { return false };
    if bound(key, port, guest, end).verify_slice(&claimed).is_err() {
        return false;
    }
    u64::from_str_radix(end, 16).is_ok_and(|end| now < end)
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slowpath::metadata::tests::guest;

    #[test]
    fn the_mac_is_hmac_sha256() {
        // RFC 4231, 4.3.
        let digest = mac(b"Jefe", &[b"what do ya want ", b"for nothing?"]).finalize().into_bytes();
        assert_eq!(hex(&digest), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn a_token_holds_for_its_guest_and_its_time() {
        let (key, port, guest) = ([7; 32], PortIdx(3), guest(1));
        let token = issue(&key, port, &guest, 100);
        assert!(holds(&key, port, &guest, &token, 99));
        assert!(!holds(&key, port, &guest, &token, 100), "it has ended");
        assert!(!holds(&key, PortIdx(4), &guest, &token, 99), "another port");
        assert!(!holds(&[8; 32], port, &guest, &token, 99), "another process");
        let mut other = guest.clone();
        other.instance_id.push('x');
        assert!(!holds(&key, port, &other, &token, 99), "another instance at the port");
        let longer = token.replacen("0000000000000064", "00000000ffffffff", 1);
        assert_ne!(longer, token);
        assert!(!holds(&key, port, &guest, &longer, 99), "an end that is not its own");
        for bad in ["", "x", &token[..79], &token[1..], &format!("{token}00"), "é".repeat(40).as_str()] {
            assert!(!holds(&key, port, &guest, bad, 0), "{bad}");
        }
    }
}
