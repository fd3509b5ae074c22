// `pusher` for Node, unmodified: every call of the HTTP API, and verification of our webhooks.
// Arguments: host, port, port to receive webhooks on.

import http from "node:http";
import { createRequire } from "node:module";
import PusherServer from "pusher";
import { app, args, assert, done, masterKey, once, promise, reaching, server, within } from "./harness.mjs";

const Pusher = createRequire(import.meta.url)("pusher-js");
const backend = new PusherServer({ ...app, ...server, useTLS: false, encryptionMasterKeyBase64: masterKey });

const deliveries = [];
let wake = () => {};
const receiver = http.createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    deliveries.push({ headers: request.headers, rawBody: Buffer.concat(chunks).toString() });
    response.end();
    wake();
  });
});
await new Promise((resolve) => receiver.listen(Number(args[0]), server.host, resolve));

const client = new Pusher(app.key, {
  ...reaching(server),
  channelAuthorization: {
    customHandler: ({ socketId, channelName }, callback) =>
      callback(
        null,
        backend.authorizeChannel(
          socketId,
          channelName,
          channelName.startsWith("presence-") ? { user_id: "10", user_info: { name: "Ann" } } : undefined,
        ),
      ),
  },
});
const news = client.subscribe("news");
const room = client.subscribe("presence-room");
await Promise.all([once(news, "pusher:subscription_succeeded"), once(room, "pusher:subscription_succeeded")]);

const json = async (response) => {
  assert.equal(response.status, 200);
  return response.json();
};

await promise("trigger on one channel", async () => {
  const heard = once(news, "hello");
  assert.deepEqual(await json(await backend.trigger("news", "hello", { text: "+ é & = ?" })), {});
  assert.deepEqual(await heard, { text: "+ é & = ?" });
});

await promise("trigger on many channels with counts", async () => {
  const answer = await backend.trigger(["news", "presence-room"], "hello", "text", {
    info: "user_count,subscription_count",
  });
  assert.deepEqual(await json(answer), {
    channels: { news: { subscription_count: 1 }, "presence-room": { user_count: 1, subscription_count: 1 } },
  });
});

await promise("trigger on a hundred channels, and not on 101", async () => {
  const names = (count) => Array.from({ length: count }, (_, index) => `channel-${index}`);
  await json(await backend.trigger(names(100), "hello", {}));
  await assert.rejects(async () => backend.trigger(names(101), "hello", {}));
});

await promise("triggerBatch", async () => {
  const heard = Promise.all([once(news, "first"), once(room, "second")]);
  const answer = await backend.triggerBatch([
    { channel: "news", name: "first", data: { a: 1 }, info: "subscription_count" },
    { channel: "presence-room", name: "second", data: "b" },
  ]);
  assert.deepEqual(await json(answer), { batch: [{ subscription_count: 1 }, {}] });
  await heard;
});

await promise("trigger on an encrypted channel", async () => {
  const channel = client.subscribe("private-encrypted-x");
  await once(channel, "pusher:subscription_succeeded");
  const heard = once(channel, "secret");
  await json(await backend.trigger("private-encrypted-x", "secret", { s: 1 }));
  assert.deepEqual(await heard, { s: 1 });
});

await promise("get /channels", async () => {
  const answer = await backend.get({
    path: "/channels",
    params: { filter_by_prefix: "presence-", info: "user_count" },
  });
  assert.deepEqual(await json(answer), { channels: { "presence-room": { user_count: 1 } } });
});

await promise("get /channels/{name}", async () => {
  const answer = await backend.get({
    path: "/channels/presence-room",
    params: { info: "user_count,subscription_count" },
  });
  assert.deepEqual(await json(answer), { occupied: true, user_count: 1, subscription_count: 1 });
});

await promise("get /channels/{name}/users", async () => {
  const answer = await backend.get({ path: "/channels/presence-room/users" });
  assert.deepEqual(await json(answer), { users: [{ id: "10" }] });
});

await promise("sendToUser and terminateUserConnections", async () => {
  assert.deepEqual(await json(await backend.sendToUser("42", "hello", { a: 1 })), {});
  assert.deepEqual(await json(await backend.terminateUserConnections("42")), {});
});

await promise("a wrong secret is an error with status 401", async () => {
  const thief = new PusherServer({ ...app, secret: "wrong", ...server, useTLS: false });
  await assert.rejects(thief.trigger("news", "hello", {}), (error) => error.status === 401);
});

await promise("webhooks verify and say what happened", async () => {
  const seen = [];
  const wanted = ["channel_occupied news", "member_added presence-room"];
  const all = new Promise((resolve) => {
    wake = () => {
      while (deliveries.length > 0) {
        const webhook = backend.webhook(deliveries.shift());
        assert.equal(webhook.isValid(), true);
        assert.ok(webhook.getTime() instanceof Date);
        for (const event of webhook.getEvents()) seen.push(`${event.name} ${event.channel}`);
      }
      if (wanted.every((event) => seen.includes(event))) resolve();
    };
    wake();
  });
  await within(`the webhooks ${wanted.join(", ")}; so far ${seen.join(", ")}`, all);
});

await promise("a webhook with another body does not verify", async () => {
  client.subscribe("late");
  const delivery = await within("one more webhook", new Promise((resolve) => {
    wake = () => deliveries.length > 0 && resolve(deliveries.shift());
    wake();
  }));
  assert.equal(backend.webhook(delivery).isValid(), true);
  assert.equal(backend.webhook({ ...delivery, rawBody: `${delivery.rawBody} ` }).isValid(), false);
});

done();
