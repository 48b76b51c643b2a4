//! The events, as disintegrate wants them: an enum, with the identifiers that a query can ask for.

use anyhow::{Result, bail};
use disintegrate::Event;
use peer_kit::order::Change;
use peer_kit::workload::{self, Data};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Event, Deserialize, Serialize)]
pub enum OrderEvent {
    OrderPlaced {
        #[id]
        order_id: String,
        data: Data,
    },
    ItemAdded {
        #[id]
        order_id: String,
        data: Data,
    },
    OrderShipped {
        #[id]
        order_id: String,
        data: Data,
    },
}

impl OrderEvent {
    pub fn of(stream: &str, event: &workload::Event) -> Result<OrderEvent> {
        let (order_id, data) = (stream.to_owned(), event.data.clone());
        Ok(match event.kind.as_str() {
            "OrderPlaced" => OrderEvent::OrderPlaced { order_id, data },
            "ItemAdded" => OrderEvent::ItemAdded { order_id, data },
            "OrderShipped" => OrderEvent::OrderShipped { order_id, data },
            other => bail!("no event {other}"),
        })
    }

    pub fn kind(&self) -> &'static str {
        self.name()
    }

    pub fn order_id(&self) -> &str {
        self.parts().0
    }

    pub fn change(&self) -> Change {
        Change::of(self.name(), self.parts().1)
    }

    fn parts(&self) -> (&str, &Data) {
        match self {
            OrderEvent::OrderPlaced { order_id, data }
            | OrderEvent::ItemAdded { order_id, data }
            | OrderEvent::OrderShipped { order_id, data } => (order_id, data),
        }
    }
}
