// pusher-js on each of several nodes that share all backends, and `pusher` for Node on one, unmodified.
// Arguments: host and port of one node, ports of the others. The app is that of demo mode.

import { createRequire } from "node:module";
import PusherServer from "pusher";
import { app, args, assert, done, once, pause, promise, reaching, server } from "./harness.mjs";

const Pusher = createRequire(import.meta.url)("pusher-js");
const nodes = [server, ...args.map((port) => ({ ...server, port: Number(port) }))];
const demo = { ...app, appId: "1" };
const backends = nodes.map((node) => new PusherServer({ ...demo, ...node, useTLS: false }));
const clients = nodes.map((node) => new Pusher(demo.key, reaching(node)));

await promise("whoever is on any node hears what is published on another", async () => {
  const channels = clients.map((client) => client.subscribe("news"));
  await Promise.all(channels.map((channel) => channel.subscribed || once(channel, "pusher:subscription_succeeded")));
  for (const backend of backends) {
    const heard = channels.map((channel) => once(channel, "n"));
    await backend.trigger("news", "n", { from: "a node" });
    for (const data of await Promise.all(heard)) assert.deepEqual(data, { from: "a node" });
  }
});

await promise("the last event of a cache channel is that of all nodes", async () => {
  for (const [number, backend] of backends.entries()) {
    await backend.trigger("cache-last", "n", { number });
    // The cache has it by then: what it hears last is the last one.
    await pause(500);
  }
  const last = backends.length - 1;
  for (const client of clients) {
    let heard;
    for (let tries = 0; heard !== last && tries < 100; tries += 1) {
      if (tries > 0) await pause(100);
      client.unsubscribe("cache-last");
      heard = (await once(client.subscribe("cache-last"), "n")).number;
    }
    assert.equal(heard, last);
  }
});

await promise("requests are limited by all nodes together", async () => {
  // What a node has taken in advance is void by then, so each of them asks.
  await pause(2_000);
  const left = [];
  for (const backend of backends) {
    const response = await backend.get({ path: "/channels" });
    left.push(Number(response.headers.get("x-ratelimit-remaining")));
  }
  for (const [number, before] of left.entries()) {
    if (number > 0) assert.ok(left[number] < left[0], `${left} of node after node`);
    assert.ok(before > 0);
  }
});

done();
