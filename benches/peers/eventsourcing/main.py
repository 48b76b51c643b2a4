"""eventsourcing's verbs; kit/src/program.rs tells what each does."""

import argparse
import json
import os
import uuid

import psycopg
from eventsourcing.projection import ProjectionRunner

from orders import READ_MODEL, OrderProjection, Orders, OrderSummary, environment, recorded
from writers import write


def setup():
    Orders(environment(1, create_table=True)).close()
    with psycopg.connect(os.environ["PEER_DATABASE_URL"], autocommit=True) as connection:
        connection.execute(READ_MODEL)


def project():
    runner = ProjectionRunner(
        application_class=Orders,
        projection_class=OrderProjection,
        view_class=OrderSummary,
        env=environment(5, create_table=True),
    )
    with runner:
        runner.run_forever()


def originator(append):
    return uuid.uuid5(uuid.NAMESPACE_URL, append["stream"])


def own():
    """What Application.save() does with the events that an aggregate collected."""
    orders = Orders(environment(1))
    return lambda append: orders.events.put(list(recorded(append, originator(append))))


def plain():
    mapper = Orders(environment(1)).mapper
    connection = psycopg.connect(os.environ["PEER_DATABASE_URL"], autocommit=True)

    def insert(append):
        [event] = map(mapper.to_stored_event, recorded(append, originator(append)))
        connection.execute(
            "insert into plain_event (originator_id, originator_version, topic, state) values (%s, %s, %s, %s)",
            (event.originator_id, event.originator_version, event.topic, event.state),
            prepare=True,
        )

    return insert


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["setup", "project", "write", "plain"])
    parser.add_argument("file", nargs="?")
    parser.add_argument("--way")
    parser.add_argument("--rate", type=float)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--log")
    return parser.parse_args()


options = arguments()
match options.verb:
    case "setup":
        setup()
    case "project":
        project()
    case "write":
        print(json.dumps(write(own, options)))
    case "plain":
        print(json.dumps(write(plain, options)))
