// pusher-js and the `pusher` library over TLS; NODE_EXTRA_CA_CERTS names the server's authority.
// Arguments: host, port.

import { createRequire } from "node:module";
import PusherServer from "pusher";
import { app, assert, done, once, promise, server } from "./harness.mjs";

const Pusher = createRequire(import.meta.url)("pusher-js");
const backend = new PusherServer({ ...app, ...server, useTLS: true });
const client = new Pusher(app.key, {
  cluster: "",
  wsHost: server.host,
  wssPort: server.port,
  forceTLS: true,
  enabledTransports: ["ws", "wss"],
  enableStats: false,
});

await promise("a client connects by wss", () => once(client.connection, "connected"));

await promise("an event that was published over https arrives over wss", async () => {
  const channel = client.subscribe("news");
  await once(channel, "pusher:subscription_succeeded");
  const sizes = [1, 9_000, 0, 200];
  for (const size of sizes) {
    const text = "x".repeat(size);
    const [received] = await Promise.all([once(channel, "said"), backend.trigger("news", "said", { text })]);
    assert.deepEqual(received, { text });
  }
});

await promise("the library reads over https", async () => {
  const answer = await backend.get({ path: "/channels" });
  assert.deepEqual(Object.keys((await answer.json()).channels), ["news"]);
});

client.disconnect();
done();
