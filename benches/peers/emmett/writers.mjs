// Clients that append a workload and tell when each append was committed, as kit/src/writers.rs does.

import { readFileSync, writeFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';

const ATTEMPTS_MAX = 1000;

const unixNanos = () => BigInt(Math.round((performance.timeOrigin + performance.now()) * 1e6));

const clientsOf = (file) => {
  const clients = [];
  for (const line of readFileSync(file, 'utf8').split('\n')) {
    if (line === '') continue;
    const append = JSON.parse(line);
    (clients[append.client] ??= []).push(append);
  }
  return clients;
};

export const write = async (append, { file, rate, seconds, log }) => {
  const clients = clientsOf(file);
  const commits = [];
  let failed = 0;
  let refused;

  const began = performance.now();
  const elapsed = () => (performance.now() - began) / 1000;
  const client = async (appends, number) => {
    for (const [i, one] of appends.entries()) {
      if (rate !== undefined) await sleep(Math.max(0, (i / rate - elapsed()) * 1000));
      for (let attempt = 1; ; attempt++) {
        if (seconds !== undefined && elapsed() >= seconds) return;
        try {
          await append(one, number);
          break;
        } catch (error) {
          if (attempt === ATTEMPTS_MAX) throw error;
          refused ??= error;
          failed++;
          await sleep(1);
        }
      }
      commits.push(`${one.stream},${one.first},${one.events.length},${unixNanos()}\n`);
    }
  };
  await Promise.all(clients.map(client));

  const report = { committed: commits.length, failed, seconds: elapsed() };
  if (refused) console.error(`${failed} attempts refused, one of them: ${refused.message}`);
  if (log !== undefined) writeFileSync(log, commits.join(''));
  return report;
};
