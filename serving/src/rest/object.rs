//! Bodies that are JSON objects, and nothing else.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// What is read from a JSON object. A `struct` alone could be read from an array of its fields too, which nobody describes:
/// `[true]` would start a batch run over everything.
#[derive(Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OnlyObject(PhantomData)).map(Self)
    }
}

struct OnlyObject<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OnlyObject<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

#[cfg(test)]
mod tests {
    use reckon_data::jobs::RunRequest;

    use super::*;

    #[test]
    fn an_array_of_the_fields_is_no_object() {
        let read = |text: &str| serde_json::from_str::<Option<Object<RunRequest>>>(text);
        assert!(read("{\"full\": true}").unwrap().unwrap().0.full);
        assert!(read("null").unwrap().is_none());
        assert!(serde_json::from_str::<RunRequest>("[true]").is_ok_and(|request| request.full), "serde takes it");
        for text in ["[true]", "[]", "true", "{\"full\": 1}", "{\"fool\": true}", "{\"full\": true, \"full\": false}"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
