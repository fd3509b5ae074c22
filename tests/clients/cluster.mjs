// pusher-js on each of two nodes and `pusher` for Node on one, unmodified: as if the two were one server.
// Arguments: host and port of one node, port of the other.

import { createRequire } from "node:module";
import PusherServer from "pusher";
import { app, args, assert, done, once, pause, promise, reaching, server, step, within } from "./harness.mjs";

const Pusher = createRequire(import.meta.url)("pusher-js");
const nodes = [server, { ...server, port: Number(args[0]) }];
const backend = new PusherServer({ ...app, ...server, useTLS: false });

// All that each client is told, in order.
const clients = nodes.map((node) => {
  const client = new Pusher(app.key, {
    ...reaching(node),
    channelAuthorization: {
      customHandler: ({ socketId, channelName }, callback) =>
        callback(null, backend.authorizeChannel(socketId, channelName)),
    },
  });
  const heard = [];
  let wake = () => {};
  const channels = ["news", "private-room"].map((name) => client.subscribe(name));
  for (const channel of channels) {
    channel.bind_global((event, data) => {
      if (event.startsWith("pusher:")) return;
      heard.push(`${channel.name} ${event} ${JSON.stringify(data)}`);
      wake();
    });
  }
  const hears = (line) =>
    within(line, new Promise((resolve) => {
      wake = () => heard.includes(line) && resolve();
      wake();
    }));
  return { client, channels, heard, hears };
});
const [alice, bob] = clients;

await promise("both subscribe", async () => {
  const all = clients.flatMap(({ channels }) => channels);
  await Promise.all(all.map((channel) => channel.subscribed || once(channel, "pusher:subscription_succeeded")));
});

await promise("both hear what is triggered on one node, in order", async () => {
  for (let number = 0; number < 50; number += 1) await backend.trigger("news", "n", number);
  await Promise.all(clients.map(({ hears }) => hears("news n 49")));
  const expected = Array.from({ length: 50 }, (_, number) => `news n ${number}`);
  for (const { heard } of clients) assert.deepEqual(heard.splice(0), expected);
});

await promise("a client event crosses, and is not for its sender", async () => {
  bob.channels[1].trigger("client-typing", { by: "bob" });
  await alice.hears('private-room client-typing {"by":"bob"}');
  await pause(300);
  assert.equal(alice.heard.splice(0).length, 1);
  assert.deepEqual(bob.heard, []);
});

await promise("socket_id leaves out a client of the other node", async () => {
  await backend.trigger("news", "for others", {}, { socket_id: bob.client.connection.socket_id });
  await alice.hears("news for others {}");
  await pause(300);
  assert.equal(alice.heard.splice(0).length, 1);
  assert.deepEqual(bob.heard, []);
});

await promise("nobody loses a connection when the bus dies, and after it all goes on", async () => {
  const before = clients.map(({ client }) => client.connection.socket_id);
  await step("ready for the bus to die", "it is back");
  await backend.trigger("news", "again", {});
  await Promise.all(clients.map(({ hears }) => hears("news again {}")));
  await pause(300);
  for (const { heard } of clients) assert.deepEqual(heard.splice(0), ["news again {}"]);
  assert.deepEqual(clients.map(({ client }) => client.connection.socket_id), before);
});

done();
