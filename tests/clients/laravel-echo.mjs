// Laravel Echo, unmodified, over pusher-js: its own words for what the wire does.
// Arguments: host, port.

import { createRequire } from "node:module";
import Echo from "laravel-echo";
import PusherServer from "pusher";
import { app, assert, done, masterKey, once, promise, reaching, server, within } from "./harness.mjs";

const Pusher = createRequire(import.meta.url)("pusher-js");
const backend = new PusherServer({ ...app, ...server, useTLS: false, encryptionMasterKeyBase64: masterKey });

function connect(user) {
  const client = new Pusher(app.key, {
    ...reaching(server),
    channelAuthorization: {
      customHandler: ({ socketId, channelName }, callback) => {
        const member = { user_id: user, user_info: { name: user } };
        const data = channelName.startsWith("presence-") ? member : undefined;
        callback(null, backend.authorizeChannel(socketId, channelName, data));
      },
    },
  });
  return new Echo({ broadcaster: "pusher", client, key: app.key, namespace: false });
}

const alice = connect("alice");
const bob = connect("bob");
const joined = (channel) => within("the subscription", new Promise((resolve) => channel.subscribed(resolve)));
const told = (what, ask) => within(what, new Promise(ask));

await promise("listens on a public channel", async () => {
  const channel = alice.channel("orders");
  await joined(channel);
  const heard = told("OrderShipped", (resolve) => channel.listen(".OrderShipped", resolve));
  await backend.trigger("orders", "OrderShipped", { id: 7 });
  assert.deepEqual(await heard, { id: 7 });
});

await promise("whispers on a private channel", async () => {
  const [hers, his] = [alice.private("room"), bob.private("room")];
  await Promise.all([joined(hers), joined(his)]);
  const heard = told("the whisper", (resolve) => his.listenForWhisper("typing", resolve));
  hers.whisper("typing", { name: "alice" });
  assert.deepEqual(await heard, { name: "alice" });
});

await promise("knows who is here, joining and leaving", async () => {
  const room = alice.join("room");
  const here = await told("here", (resolve) => room.here(resolve));
  assert.deepEqual(here, [{ name: "alice" }]);
  const joining = told("joining", (resolve) => room.joining(resolve));
  const leaving = told("leaving", (resolve) => room.leaving(resolve));
  bob.join("room");
  assert.deepEqual(await joining, { name: "bob" });
  bob.leave("room");
  assert.deepEqual(await leaving, { name: "bob" });
});

await promise("reads an encrypted private channel", async () => {
  const channel = alice.encryptedPrivate("vault");
  await joined(channel);
  const heard = told("Opened", (resolve) => channel.listen(".Opened", resolve));
  await backend.trigger("private-encrypted-vault", "Opened", { by: "bob" });
  assert.deepEqual(await heard, { by: "bob" });
});

await promise("knows its socket id, which the application sends to exclude it", async () => {
  assert.match(alice.socketId(), /^\d+\.\d+$/);
});

await promise("disconnects", async () => {
  const gone = once(alice.connector.pusher.connection, "disconnected");
  alice.disconnect();
  await gone;
});

done();
