//! A part of a struct that has a section of its own: among the bytes of the struct it takes none.
//! Where there are no sections (`fastboot show --state`) it stands in its place.
//!
//! What is read has an empty one until the other section is read too; nobody sees it before.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) fn serialize<T: Serialize, S: Serializer>(part: &T, serializer: S) -> Result<S::Ok, S::Error> {
    match serializer.is_human_readable() {
        true => part.serialize(serializer),
        false => serializer.serialize_unit(),
    }
}

pub(crate) fn deserialize<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    match deserializer.is_human_readable() {
        true => T::deserialize(deserializer),
        false => <()>::deserialize(deserializer).map(|()| T::default()),
    }
}
