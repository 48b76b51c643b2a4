//! The events, as evento wants them: structs that it encodes by bitcode.

use peer_kit::workload::Data;

#[derive(Clone, Debug, Default, PartialEq, bitcode::Decode, bitcode::Encode)]
pub struct Line {
    order: String,
    n: i32,
    sku: String,
    quantity: i32,
    cents: i64,
    note: String,
}

#[evento::aggregate(name = "shop/Order")]
pub enum Order {
    OrderPlaced { line: Line },
    ItemAdded { line: Line },
    OrderShipped { line: Line },
}

impl From<&Data> for Line {
    fn from(data: &Data) -> Line {
        Line {
            order: data.order.clone(),
            n: data.n,
            sku: data.sku.clone(),
            quantity: data.quantity,
            cents: data.cents,
            note: data.note.clone(),
        }
    }
}

impl From<&Line> for Data {
    fn from(line: &Line) -> Data {
        Data {
            order: line.order.clone(),
            n: line.n,
            sku: line.sku.clone(),
            quantity: line.quantity,
            cents: line.cents,
            note: line.note.clone(),
        }
    }
}
