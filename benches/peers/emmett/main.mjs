// Emmett's verbs; kit/src/program.rs tells what each does.

import { parseArgs } from 'node:util';
import {
  getPostgreSQLEventStore,
  postgreSQLEventStoreConsumer,
  postgreSQLRawSQLProjection,
} from '@event-driven-io/emmett-postgresql';
import pg from 'pg';

import { READ_MODEL, upsert } from './order.mjs';
import { write } from './writers.mjs';

const CLIENTS = 16;
const connectionString = process.env.PEER_DATABASE_URL;

const setup = async () => {
  const store = getPostgreSQLEventStore(connectionString);
  await store.schema.migrate();
  await store.close();
  const client = new pg.Client({ connectionString });
  await client.connect();
  await client.query(READ_MODEL);
  await client.end();
};

const project = async () => {
  const batchSize = process.env.PEER_EMMETT_BATCH;
  const consumer = postgreSQLEventStoreConsumer({
    connectionString,
    pulling: batchSize === undefined ? {} : { batchSize: Number(batchSize), pullingFrequencyInMs: 1 },
  });
  consumer.projector({
    processorId: 'orders',
    projection: postgreSQLRawSQLProjection({
      name: 'orders',
      canHandle: ['OrderPlaced', 'ItemAdded', 'OrderShipped'],
      evolve: (event) => upsert(event.metadata.streamName, event),
    }),
  });
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0));
  await consumer.start();
};

const own = async (options) => {
  const pool = new pg.Pool({ connectionString, max: CLIENTS });
  const store = getPostgreSQLEventStore(connectionString, {
    schema: { autoMigration: 'None' },
    connectionOptions: { pool },
  });
  const report = await write(({ stream, events }) => store.appendToStream(stream, events), options);
  await store.close();
  await pool.end();
  return report;
};

// A session for each client, and a statement prepared once for each: as much as this client can do.
const plain = async (options) => {
  const INSERT = {
    name: 'plain',
    text: `insert into plain_event
        (stream_id, stream_position, partition, message_kind, message_data, message_metadata,
         message_schema_version, message_type, message_id, transaction_id)
      values ($1, $2, 'emt:default', 'E', $3, $4, '1', $5, gen_random_uuid(), pg_current_xact_id())`,
  };
  const clients = Array.from({ length: CLIENTS }, () => new pg.Client({ connectionString }));
  await Promise.all(clients.map((client) => client.connect()));
  const insert = ({ stream, first, events: [event] }, number) =>
    clients[number].query({ ...INSERT, values: [stream, first, event.data, {}, event.type] });
  const report = await write(insert, options);
  await Promise.all(clients.map((client) => client.end()));
  return report;
};

const options = () => {
  const { values } = parseArgs({
    args: process.argv.slice(4),
    options: { way: { type: 'string' }, rate: { type: 'string' }, seconds: { type: 'string' }, log: { type: 'string' } },
  });
  const number = (text) => (text === undefined ? undefined : Number(text));
  return { file: process.argv[3], rate: number(values.rate), seconds: number(values.seconds), log: values.log };
};

const verbs = {
  setup,
  project,
  write: async () => console.log(JSON.stringify(await own(options()))),
  plain: async () => console.log(JSON.stringify(await plain(options()))),
};
await verbs[process.argv[2]]();
