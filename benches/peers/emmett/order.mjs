// The one rule by which an event changes the read model, as kit/src/order.rs has it.

import { readFileSync } from 'node:fs';
import { sql } from '@event-driven-io/dumbo';

const SQL_DIRECTORY = new URL('../sql/', import.meta.url);

const read = (name) => readFileSync(new URL(name, SQL_DIRECTORY), 'utf8').replace(/^--.*$/gm, '');

export const READ_MODEL = `create schema orders; set search_path = orders, public; ${read('read_model.sql')}`;

// The client formats values into the text; each $n may occur more than once.
const UPSERT = read('upsert.sql');
const UPSERT_FORMAT = UPSERT.replace(/\$\d/g, '%L');
const UPSERT_ORDER = [...UPSERT.matchAll(/\$(\d)/g)].map(([, n]) => Number(n) - 1);

export const upsert = (stream, { type, data }) => {
  const added = type === 'ItemAdded';
  const values = [
    stream,
    added ? data.quantity : 0,
    added ? data.cents : 0,
    type === 'OrderShipped' ? 'shipped' : null,
    data.n,
  ];
  return sql(UPSERT_FORMAT, ...UPSERT_ORDER.map((i) => values[i]));
};
