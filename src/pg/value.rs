//! Values that know the SQL type they are sent as, so that callers need not name it.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use serde_json::Value;
use tokio_postgres::types::{Json, ToSql, Type};
use uuid::Uuid;

use crate::pg::Parameter;

/// A value that a statement can take as a parameter.
///
/// It is sent as the SQL type of its Rust type: `i64` as `bigint`, `&str` and `String` as `text`, a JSON
/// value as `jsonb`, a `Vec` or a slice as an array, an `Option` as null or its value. Cast it in the
/// statement where another type is wanted: `$1::text::money`.
pub trait SqlValue: Sync {
    #[doc(hidden)]
    fn typed(&self) -> (&Parameter<'_>, Type);
}

impl<T: SqlType + ToSql + Sync> SqlValue for T {
    fn typed(&self) -> (&Parameter<'_>, Type) {
        (self, T::TYPE)
    }
}

/// Values with the types that they are sent as.
pub(super) fn typed<'a>(values: &'a [&'a dyn SqlValue]) -> Vec<(&'a Parameter<'a>, Type)> {
    values.iter().map(|value| value.typed()).collect()
}

/// A Rust type that is sent as one SQL type.
pub trait SqlType {
    /// That type.
    const TYPE: Type;
}

/// A Rust type that an array can have as its elements.
pub trait SqlElement {
    /// The type of the array.
    const ARRAY: Type;
}

macro_rules! sql_types {
    ($($rust:ty => $sql:ident, $array:ident;)+) => {
        $(
            impl SqlType for $rust {
                const TYPE: Type = Type::$sql;
            }

            impl SqlElement for $rust {
                const ARRAY: Type = Type::$array;
            }
        )+
    };
}

sql_types! {
    bool => BOOL, BOOL_ARRAY;
    i16 => INT2, INT2_ARRAY;
    i32 => INT4, INT4_ARRAY;
    i64 => INT8, INT8_ARRAY;
    f32 => FLOAT4, FLOAT4_ARRAY;
    f64 => FLOAT8, FLOAT8_ARRAY;
    &str => TEXT, TEXT_ARRAY;
    String => TEXT, TEXT_ARRAY;
    &[u8] => BYTEA, BYTEA_ARRAY;
    Vec<u8> => BYTEA, BYTEA_ARRAY;
    Uuid => UUID, UUID_ARRAY;
    Value => JSONB, JSONB_ARRAY;
    Timestamp => TIMESTAMPTZ, TIMESTAMPTZ_ARRAY;
    DateTime => TIMESTAMP, TIMESTAMP_ARRAY;
    Date => DATE, DATE_ARRAY;
    Time => TIME, TIME_ARRAY;
}

impl<T> SqlType for Json<T> {
    const TYPE: Type = Type::JSONB;
}

impl<T> SqlElement for Json<T> {
    const ARRAY: Type = Type::JSONB_ARRAY;
}

impl<T: SqlType> SqlType for Option<T> {
    const TYPE: Type = T::TYPE;
}

impl<T: SqlElement> SqlElement for Option<T> {
    const ARRAY: Type = T::ARRAY;
}

impl<T: SqlType> SqlType for &T {
    const TYPE: Type = T::TYPE;
}

impl<T: SqlElement> SqlType for Vec<T> {
    const TYPE: Type = T::ARRAY;
}

impl<T: SqlElement> SqlType for &[T] {
    const TYPE: Type = T::ARRAY;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_sent_as_the_type_that_its_rust_type_stands_for() {
        let names = [Some("a"), None];
        let cases: [(&dyn SqlValue, Type); 9] = [
            (&1_i64, Type::INT8),
            (&&1_i64, Type::INT8),
            (&"a", Type::TEXT),
            (&Some("a".to_owned()), Type::TEXT),
            (&vec![1_u8], Type::BYTEA),
            (&vec![1_i64], Type::INT8_ARRAY),
            (&&names[..], Type::TEXT_ARRAY),
            (&Json([1]), Type::JSONB),
            (&Uuid::nil(), Type::UUID),
        ];
        for (value, expected) in cases {
            assert_eq!(value.typed().1, expected);
        }
    }
}
