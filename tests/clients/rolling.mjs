// pusher-js on each of three nodes while they are restarted one after the other and events are published
// all the time: whatever was published while a client was subscribed reaches it, in order.
// Arguments: host and port of the first node, ports of the others.

import { createRequire } from "node:module";
import PusherServer from "pusher";
import { app, args, assert, done, pause, promise, reaching, server, step, within } from "./harness.mjs";

const Pusher = createRequire(import.meta.url)("pusher-js");
const nodes = [server, ...args.map((port) => ({ ...server, port: Number(port) }))];
const publishers = nodes.map((node) => new PusherServer({ ...app, ...node, useTLS: false, timeout: 10_000 }));

// What was published: by number the node, and whether it was answered; of what was not nobody knows.
const published = [];
let at = 0;
let goesOn = true;
async function publish() {
  while (goesOn) {
    const number = published.length;
    const event = { by: at, isTaken: false };
    published.push(event);
    try {
      await publishers[at].trigger("news", "n", { number, by: at });
      event.isTaken = true;
    } catch {
      at = (at + 1) % nodes.length;
    }
    await pause(2);
  }
}

// What a client hears, from one subscription to the next.
const clients = nodes.map((node) => {
  const client = new Pusher(app.key, reaching(node));
  const channel = client.subscribe("news");
  const times = [];
  channel.bind("pusher:subscription_succeeded", () => times.push({ since: published.length, heard: [] }));
  channel.bind("n", ({ number }) => times.at(-1).heard.push(number));
  return { client, times };
});

const until = (what, holds) =>
  within(what, (async () => { while (!holds()) await pause(20); })(), 60_000);

// Everybody is subscribed and hears what is published now.
async function everybodyHears() {
  const start = published.length;
  const hears = ({ times }) => (times.at(-1)?.heard.at(-1) ?? -1) > start + 20;
  await until("all clients to hear", () => clients.every(hears));
}

await promise("all hear one another's events", async () => {
  await until("all to subscribe", () => clients.every(({ times }) => times.length === 1));
  publish();
  await everybodyHears();
});

for (const [number] of nodes.entries()) {
  await promise(`node ${number} is restarted and its client is back`, async () => {
    const before = clients.map(({ times }) => times.length);
    await step(`restart ${number}`, `restarted ${number}`);
    before[number] += 1;
    await until("its client to subscribe again", () => clients[number].times.length >= before[number]);
    await everybodyHears();
    assert.deepEqual(clients.map(({ times }) => times.length), before, "nobody else was disturbed");
  });
}

await promise("nothing was lost while somebody was subscribed, and all came in order", async () => {
  goesOn = false;
  await pause(100);
  const last = published.findLastIndex(({ isTaken }) => isTaken);
  await until("the last event", () => clients.every(({ times }) => times.at(-1).heard.includes(last)));
  for (const [client, { times }] of clients.entries()) {
    for (const { since, heard } of times) {
      const where = `client ${client}, from ${since}`;
      const known = new Set(heard);
      assert.equal(known.size, heard.length, `${where}: none twice`);
      const [from, to] = [Math.min(since, ...heard), Math.max(...heard)];
      const missing = published.flatMap(({ isTaken }, number) =>
        isTaken && number >= from && number <= to && !known.has(number) ? [number] : []);
      assert.deepEqual(missing, [], where);
      for (const [node] of nodes.entries()) {
        const ofNode = heard.filter((number) => published[number].by === node);
        assert.deepEqual(ofNode, ofNode.toSorted((a, b) => a - b), `${where}, by node ${node}`);
      }
    }
  }
});

done();
