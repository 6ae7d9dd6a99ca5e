//! Finds the slots of connections by something the connections themselves hold. A table of keys would take ten times the
//! memory, and bring as many cache lines to each packet.

use foldhash::quality::FixedState;
use hashbrown::HashTable;
use slab::Slab;
use std::hash::{BuildHasher, Hash};

/// Slots by a key that whoever keeps the connections can tell for each slot in here.
#[derive(Clone, Debug)]
pub struct Index {
    slots: HashTable<u32>,
    hasher: FixedState,
}

impl Index {
    /// Empty; the hasher is seeded, so that nobody outside can make keys collide.
    pub fn new(hasher: FixedState) -> Self {
        Self { slots: HashTable::new(), hasher }
    }

    /// The slot of the connection with this key.
    pub fn get<K: Hash + Eq>(&self, key: &K, key_of: impl Fn(usize) -> K) -> Option<usize> {
        let hash = self.hasher.hash_one(key);
        self.slots.find(hash, |slot| key_of(*slot as usize) == *key).map(|slot| *slot as usize)
    }

    /// From now on the connection in `slot` is found by its key, and no other.
    ///
    /// # Panics
    ///
    /// Beyond 2^32 slots: `limits.connections` allows sixteen million.
    pub fn insert<K: Hash + Eq>(&mut self, slot: usize, key_of: impl Fn(usize) -> K) {
        let key = key_of(slot);
        let hash = self.hasher.hash_one(&key);
        let slot = u32::try_from(slot).expect("no more connections than limits allow");
        match self.slots.find_mut(hash, |other| key_of(*other as usize) == key) {
            Some(other) => *other = slot,
            None => {
                let hasher = &self.hasher;
                self.slots.insert_unique(hash, slot, |slot| hasher.hash_one(key_of(*slot as usize)));
            }
        }
    }

    /// The connection in `slot`, which has this key, is not found any more, if it was.
    pub fn remove<K: Hash>(&mut self, key: &K, slot: usize) {
        let hash = self.hasher.hash_one(key);
        if let Ok(entry) = self.slots.find_entry(hash, |other| *other as usize == slot) {
            entry.remove();
        }
    }
}

/// Makes room for one more, and for a few of those after it: a table that doubles is half empty half of the time, and copies
/// all there is at once.
pub fn make_room<T>(slots: &mut Slab<T>) {
    if slots.len() == slots.capacity() {
        slots.reserve_exact(slots.len() / 4 + 16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn a_full_table_grows_by_a_quarter_and_a_few() {
        let mut slots = Slab::new();
        for capacity in [16, 16 + 4 + 16, 36 + 9 + 16] {
            make_room(&mut slots);
            assert_eq!(slots.capacity(), capacity);
            while slots.len() < capacity {
                slots.insert(());
                if slots.len() < capacity {
                    make_room(&mut slots);
                    assert_eq!(slots.capacity(), capacity, "there is room for one more");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_table_of_keys(steps in proptest::collection::vec((0_usize..40, 0_u8..20, any::<bool>()), 0..300)) {
            let mut index = Index::new(FixedState::with_seed(1));
            let (mut keys, mut table) = ([None; 40], HashMap::new());
            for (slot, key, adds) in steps {
                // A slot has one key for as long as it is used, and is found by it unless another took its place.
                match (adds, keys[slot]) {
                    (true, None) => {
                        keys[slot] = Some(key);
                        index.insert(slot, |slot| keys[slot]);
                        table.insert(key, slot);
                    }
                    (false, Some(key)) => {
                        index.remove(&Some(key), slot);
                        keys[slot] = None;
                        if table.get(&key) == Some(&slot) {
                            table.remove(&key);
                        }
                    }
                    _ => {}
                }
                for key in 0..20 {
                    prop_assert_eq!(index.get(&Some(key), |slot| keys[slot]), table.get(&key).copied());
                }
            }
        }
    }
}
