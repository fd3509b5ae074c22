// pusher-js, unmodified: every kind of channel, members, client events, users.
// Arguments: host, port, package name (one major version each).

import { createRequire } from "node:module";
import PusherServer from "pusher";
import {
  app, args, assert, done, masterKey, never, once, onceWithMetadata, promise, reaching, relay, server,
} from "./harness.mjs";

const Pusher = createRequire(import.meta.url)(args[0]);
const backend = new PusherServer({ ...app, ...server, useTLS: false, encryptionMasterKeyBase64: masterKey });
const through = await relay();

// A client of its own user, whose application signs as the `pusher` library does.
function connect(user, options = {}) {
  const answer = (sign, callback) => {
    try {
      callback(null, sign());
    } catch (error) {
      callback(error, null);
    }
  };
  return new Pusher(app.key, {
    ...reaching(through),
    channelAuthorization: {
      customHandler: ({ socketId, channelName }, callback) => {
        const member = { user_id: user, user_info: { name: user } };
        const data = channelName.startsWith("presence-") ? member : undefined;
        answer(() => backend.authorizeChannel(socketId, channelName, data), callback);
      },
    },
    userAuthentication: {
      customHandler: ({ socketId }, callback) =>
        answer(() => backend.authenticateUser(socketId, { id: user, watchlist: ["bob", "carol"] }), callback),
    },
    ...options,
  });
}

const subscribed = (channel) => once(channel, "pusher:subscription_succeeded");
let alice, bob;

await promise("connects", async () => {
  alice = connect("alice");
  bob = connect("bob");
  await Promise.all([once(alice.connection, "connected"), once(bob.connection, "connected")]);
  assert.match(alice.connection.socket_id, /^\d+\.\d+$/);
});

await promise("hears an event on a public channel", async () => {
  const channel = alice.subscribe("news");
  await subscribed(channel);
  const heard = once(channel, "hello");
  await backend.trigger("news", "hello", { text: "é日😀" });
  assert.deepEqual(await heard, { text: "é日😀" });
});

await promise("does not hear what its own socket id excluded", async () => {
  const silence = never(alice.channel("news"), "mine");
  await backend.trigger("news", "mine", {}, { socket_id: alice.connection.socket_id });
  await silence;
});

await promise("unsubscribes", async () => {
  alice.unsubscribe("news");
  const again = alice.subscribe("news");
  await subscribed(again);
  alice.unsubscribe("news");
  const silence = never(again, "hello");
  await backend.trigger("news", "hello", {});
  await silence;
});

await promise("joins a private channel and talks on it", async () => {
  const [hers, his] = [alice.subscribe("private-room"), bob.subscribe("private-room")];
  await Promise.all([subscribed(hers), subscribed(his)]);
  const heard = once(his, "client-typing");
  const echo = never(hers, "client-typing");
  assert.equal(hers.trigger("client-typing", { on: true }), true);
  assert.deepEqual(await heard, { on: true });
  await echo;
});

await promise("sees a private channel refused", async () => {
  const eve = connect("eve", {
    channelAuthorization: {
      customHandler: (_, callback) => callback(null, { auth: `${app.key}:${"0".repeat(64)}` }),
    },
  });
  const channel = eve.subscribe("private-room");
  const error = await once(channel, "pusher:subscription_error");
  assert.equal(error.status, 401);
  assert.equal(eve.connection.state, "connected");
  eve.disconnect();
});

await promise("sees members come, speak and go on a presence channel", async () => {
  const hers = alice.subscribe("presence-room");
  const members = await subscribed(hers);
  assert.equal(members.count, 1);
  assert.equal(members.me.id, "alice");
  const added = once(hers, "pusher:member_added");
  const his = bob.subscribe("presence-room");
  await subscribed(his);
  const member = await added;
  assert.equal(member.id, "bob");
  assert.deepEqual(member.info, { name: "bob" });
  assert.equal(his.members.count, 2);
  assert.deepEqual(his.members.get("alice").info, { name: "alice" });
  const heard = onceWithMetadata(his, "client-wave");
  hers.trigger("client-wave", { hand: 1 });
  assert.equal((await heard).metadata.user_id, "alice");
  const removed = once(hers, "pusher:member_removed");
  bob.unsubscribe("presence-room");
  assert.equal((await removed).id, "bob");
  assert.equal(hers.members.count, 1);
});

await promise("decrypts an encrypted channel", async () => {
  const channel = alice.subscribe("private-encrypted-room");
  await subscribed(channel);
  const heard = once(channel, "secret");
  await backend.trigger("private-encrypted-room", "secret", { text: "only for us" });
  assert.deepEqual(await heard, { text: "only for us" });
});

for (const name of ["cache-news", "private-cache-news", "presence-cache-news", "private-encrypted-cache-news"]) {
  await promise(`gets a miss and then the last event on ${name}`, async () => {
    const hers = alice.subscribe(name);
    await Promise.all([subscribed(hers), once(hers, "pusher:cache_miss")]);
    const live = once(hers, "hello");
    await backend.trigger(name, "hello", { number: 1 });
    assert.deepEqual(await live, { number: 1 });
    const his = bob.subscribe(name);
    const kept = once(his, "hello");
    await subscribed(his);
    assert.deepEqual(await kept, { number: 1 });
  });
}

await promise("counts subscribers when the app says so", async () => {
  const channel = alice.subscribe("counted");
  const count = once(channel, "pusher:subscription_count");
  await subscribed(channel);
  assert.equal((await count).subscription_count, 1);
  assert.equal(channel.subscriptionCount, 1);
});

await promise("signs in, is greeted and told who is there", async () => {
  bob.signin();
  await bob.user.signinDonePromise;
  const told = new Promise((resolve) => {
    const seen = {};
    const note = (name) => (event) => {
      for (const id of event.user_ids) seen[id] = name;
      if (Object.keys(seen).length === 2) resolve(seen);
    };
    alice.user.watchlist.bind("online", note("online"));
    alice.user.watchlist.bind("offline", note("offline"));
  });
  alice.signin();
  await alice.user.signinDonePromise;
  assert.equal(alice.user.user_data.id, "alice");
  assert.deepEqual(await told, { bob: "online", carol: "offline" });
  const greeted = once(alice.user, "greeting");
  // The user's own channel is subscribed to after the sign-in's answer.
  const again = setInterval(() => backend.sendToUser("alice", "greeting", { text: "hi" }), 100);
  assert.deepEqual(await greeted, { text: "hi" });
  clearInterval(again);
});

await promise("is told when a watched user comes and goes", async () => {
  const online = once(alice.user.watchlist, "online");
  const carol = connect("carol");
  await once(carol.connection, "connected");
  carol.signin();
  assert.deepEqual((await online).user_ids, ["carol"]);
  const offline = once(alice.user.watchlist, "offline");
  carol.disconnect();
  assert.deepEqual((await offline).user_ids, ["carol"]);
});

await promise("is sent away by terminate and does not come back", async () => {
  const gone = once(bob.connection, "disconnected");
  const before = through.connections;
  await backend.terminateUserConnections("bob");
  await gone;
  await never(bob.connection, "connecting", 2_500);
  assert.equal(through.connections, before);
  assert.equal(alice.connection.state, "connected");
});

await promise("disconnects", async () => {
  const gone = once(alice.connection, "disconnected");
  alice.disconnect();
  await gone;
});

done();
