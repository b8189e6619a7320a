//! MACs that follow from names.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::types::Mac;

/// Neutron's default `base_mac`, of which the first three bytes stay.
const BASE_MAC: [u8; 3] = [0xfa, 0x16, 0x3e];

/// A MAC that follows from a name. On a collision the name is hashed anew with a number, so that only the later one of
/// the two depends on the rest of the file.
pub(super) fn generated_mac(name: &str, taken: &mut BTreeSet<Mac>) -> Mac {
    let mut round = 0_u64;
    loop {
        let seed = if round == 0 { format!("mac/{name}") } else { format!("mac/{name}/{round}") };
        let [x, y, z, ..] = *Uuid::new_v5(&super::NAMESPACE, seed.as_bytes()).as_bytes();
        let [a, b, c] = BASE_MAC;
        let mac = Mac([a, b, c, x, y, z]);
        if taken.insert(mac) {
            return mac;
        }
        round += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_mac_is_stable_and_moves_on_collision() {
        let mut taken = BTreeSet::new();
        let first = generated_mac("web1", &mut taken);
        assert_eq!(first.0[..3], BASE_MAC);
        assert_eq!(generated_mac("web1", &mut BTreeSet::new()), first);
        let second = generated_mac("web1", &mut taken);
        assert_ne!(second, first);
        assert_eq!(second.0[..3], BASE_MAC);
    }
}
