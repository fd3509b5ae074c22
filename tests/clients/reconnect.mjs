// pusher-js, unmodified: what it does after each close code.
// Arguments: host, port, package name, scenario.

import { createRequire } from "node:module";
import { app, args, assert, done, never, once, pause, promise, reaching, relay, step } from "./harness.mjs";

const Pusher = createRequire(import.meta.url)(args[0]);
const through = await relay();
const connect = (key, options = {}) => new Pusher(key, { ...reaching(through), ...options });

const errorCode = (client) =>
  new Promise((resolve) => client.connection.bind("error", (error) => resolve((error.data ?? error.error?.data)?.code)));

const scenarios = {
  // The server drains; another takes its place.
  async drained() {
    let client, channel;
    await promise("is connected and subscribed", async () => {
      client = connect(app.key);
      channel = client.subscribe("news");
      await once(channel, "pusher:subscription_succeeded");
    });
    await promise("comes back at once after 4200 and subscribes again", async () => {
      const first = client.connection.socket_id;
      const code = errorCode(client);
      const back = once(channel, "pusher:subscription_succeeded", 60_000);
      await step("ready to be drained", "drained");
      assert.equal(await code, 4200);
      await back;
      assert.notEqual(client.connection.socket_id, first);
    });
  },

  // What the client sends is lost on the way, and the server gives up on it.
  async unheard() {
    let client;
    await promise("comes back at once after 4201", async () => {
      client = connect(app.key, { pongTimeout: 90_000 });
      await once(client.connection, "connected");
      const code = errorCode(client);
      through.deaf = true;
      const left = once(client.connection, "connecting", 45_000);
      assert.equal(await code, 4201);
      through.deaf = false;
      await left;
      await once(client.connection, "connected");
      assert.equal(through.connections, 2);
    });
  },

  async unknown() {
    await stays_away("4001", "no-such-key", 4001);
  },

  async unwelcome() {
    await stays_away("4009", app.key, 4009);
  },
};

async function stays_away(name, key, expected) {
  await promise(`stays away after ${name}`, async () => {
    const client = connect(key);
    const code = errorCode(client);
    const states = [];
    client.connection.bind("state_change", ({ current }) => states.push(current));
    assert.equal(await code, expected);
    await pause(200);
    assert.equal(client.connection.state, "disconnected", states.join(" "));
    await never(client.connection, "connecting", 3_000);
    assert.equal(through.connections, 1);
  });
}

await scenarios[args[1]]();
done();
