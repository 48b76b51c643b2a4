"""The events, the application that records them, and the projection of them into the read model."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from eventsourcing.application import Application
from eventsourcing.domain import DomainEvent, datetime_now_with_tzinfo
from eventsourcing.persistence import Tracking
from eventsourcing.postgres import PostgresTrackingRecorder
from eventsourcing.projection import Projection
from eventsourcing.utils import get_topic

SQL = Path(__file__).parent.parent / "sql"


def read(name):
    return re.sub(r"^--.*$", "", (SQL / name).read_text(), flags=re.MULTILINE)


READ_MODEL = f"create schema orders; set search_path = orders, public; {read('read_model.sql')}"
UPSERT = re.sub(r"\$(\d)", r"%(p\1)s", read("upsert.sql"))


@dataclass(frozen=True)
class OrderEvent(DomainEvent):
    order: str
    n: int
    sku: str
    quantity: int
    cents: int
    note: str


class OrderPlaced(OrderEvent):
    pass


class ItemAdded(OrderEvent):
    pass


class OrderShipped(OrderEvent):
    pass


KINDS = {kind.__name__: kind for kind in (OrderPlaced, ItemAdded, OrderShipped)}


class Orders(Application):
    name = "orders"


def change(event):
    """The one rule by which an event changes the read model, as kit/src/order.rs has it."""
    added = isinstance(event, ItemAdded)
    return {
        "p1": event.order,
        "p2": event.quantity if added else 0,
        "p3": event.cents if added else 0,
        "p4": "shipped" if isinstance(event, OrderShipped) else None,
        "p5": event.n,
    }


class OrderSummary(PostgresTrackingRecorder):
    def apply(self, event, tracking):
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute(UPSERT, change(event), prepare=True)


class OrderProjection(Projection[OrderSummary]):
    name = "order_summary"
    topics = tuple(get_topic(kind) for kind in KINDS.values())

    def process_event(self, domain_event, tracking: Tracking):
        self.view.apply(domain_event, tracking)


def environment(pool_size, create_table=False):
    url = urlsplit(os.environ["PEER_DATABASE_URL"])
    address = {key: values[0] for key, values in parse_qs(url.query).items()}
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": url.path.lstrip("/"),
        "POSTGRES_HOST": address["host"],
        "POSTGRES_PORT": address["port"],
        "POSTGRES_USER": address["user"],
        "POSTGRES_PASSWORD": "",
        "POSTGRES_POOL_SIZE": str(pool_size),
        "CREATE_TABLE": "yes" if create_table else "no",
    }


def recorded(append, originator):
    """An append of the workload as the domain events that save() would be given."""
    for version, event in enumerate(append["events"], start=append["first"]):
        yield KINDS[event["type"]](
            originator_id=originator,
            originator_version=version,
            timestamp=datetime_now_with_tzinfo(),
            **event["data"],
        )
