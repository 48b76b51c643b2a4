//! Typed events: an enum whose variants are the event types, read by serde without a copy.

use std::cell::Cell;

use serde::de::value::{Error as NameError, StrDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::error::{Error, ErrorKind, EventRef, Result};
use crate::event::RecordedEvent;

/// What to do with an event whose type the enum does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnUnknown {
    /// Ignore it; it is not even read.
    Ignore,
    /// Stop at it: every type must be known.
    Stop,
}

/// The event as a variant of `E`; `None` if `E` has no variant of its type.
pub(crate) fn decode<E: DeserializeOwned>(event: &RecordedEvent) -> Result<Option<E>> {
    let unknown = Cell::new(false);
    let reader = EventReader {
        event_type: &event.event_type,
        data: event.data.get(),
        unknown: &unknown,
    };
    match E::deserialize(reader) {
        Ok(typed) => Ok(Some(typed)),
        Err(_) if unknown.get() => Ok(None),
        Err(error) => Err(undigestible(event, format!("cannot be read: {error}"))
            .with_source(error)
            .with_hint("make the Rust type fit the event, or give the field a default")),
    }
}

/// An error about this event.
pub(crate) fn undigestible(event: &RecordedEvent, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Undigestible, format!("an event {what}")).with_event(EventRef {
        position: event.position,
        id: event.id,
        event_type: event.event_type.clone(),
    })
}

/// The error of an event whose type must be known and is not.
pub(crate) fn unknown(event: &RecordedEvent) -> Error {
    undigestible(event, "has a type that the projection does not know")
        .with_hint("add a variant for it, or set ON_UNKNOWN to Ignore")
}

/// The event types that `E` has variants for, aliases included; `None` if it is no enum.
pub(crate) fn variants_of<E: DeserializeOwned>() -> Option<&'static [&'static str]> {
    let variants = Cell::new(None);
    let _ = E::deserialize(VariantsOnly(&variants));
    variants.get()
}

struct EventReader<'a> {
    event_type: &'a str,
    data: &'a str,
    unknown: &'a Cell<bool>,
}

impl<'de> Deserializer<'de> for EventReader<'de> {
    type Error = serde_json::Error;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        if !variants.contains(&self.event_type) {
            self.unknown.set(true);
            return Err(serde_json::Error::custom("unknown event type"));
        }
        visitor.visit_enum(self)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Self::Error> {
        Err(serde_json::Error::custom(
            "the projection's event must be an enum with a variant for each event type",
        ))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> EnumAccess<'de> for EventReader<'de> {
    type Error = serde_json::Error;
    type Variant = DataReader<'de>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, DataReader<'de>), Self::Error> {
        let name: StrDeserializer<'_, NameError> = self.event_type.into_deserializer();
        let variant = seed.deserialize(name).map_err(serde_json::Error::custom)?;
        Ok((variant, DataReader(self.data)))
    }
}

struct DataReader<'a>(&'a str);

impl<'de> VariantAccess<'de> for DataReader<'de> {
    type Error = serde_json::Error;

    fn unit_variant(self) -> Result<(), Self::Error> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<S::Value, Self::Error> {
        seed.deserialize(&mut serde_json::Deserializer::from_str(self.0))
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        serde_json::Deserializer::from_str(self.0).deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        serde_json::Deserializer::from_str(self.0).deserialize_struct("event", fields, visitor)
    }
}

struct VariantsOnly<'a>(&'a Cell<Option<&'static [&'static str]>>);

impl<'de> Deserializer<'de> for VariantsOnly<'_> {
    type Error = serde_json::Error;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.set(Some(variants));
        Err(serde_json::Error::custom(
            "only the variants were asked for",
        ))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Self::Error> {
        Err(serde_json::Error::custom("not an enum"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
