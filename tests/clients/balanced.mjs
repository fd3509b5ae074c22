// A page in Chromium behind a proxy that ends TLS, and `pusher` for Node that publishes through it.
// Arguments: host, port with TLS, the protocol that the browser is to find there, and the status of a WebSocket's answer:
// 200 where it is a stream of HTTP/2 (RFC 8441), else 101.

import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import PusherServer from "pusher";
import { app, args, assert, done, promise, server, within } from "./harness.mjs";

// The proxy's certificate is the test's own.
process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0";
const [protocol, handshake] = args;
const backend = new PusherServer({ ...app, ...server, useTLS: true });

const profile = fs.mkdtempSync(path.join(os.tmpdir(), "sockudo-chromium-"));
process.on("exit", () => fs.rmSync(profile, { recursive: true, force: true }));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: "/usr/bin/chromium",
  headless: true,
  ignoreHTTPSErrors: true,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--ignore-certificate-errors",
  ],
});
const page = browser.pages()[0] ?? (await browser.newPage());
const devtools = await browser.newCDPSession(page);
await devtools.send("Network.enable");
const handshakes = [];
devtools.on("Network.webSocketHandshakeResponseReceived", ({ response }) => handshakes.push(response.status));

await promise("a page is found over TLS", async () => {
  const answer = await page.goto(`https://${server.host}:${server.port}/live`);
  assert.equal(answer.status(), 200);
  const found = await page.evaluate(() => performance.getEntriesByType("navigation")[0].nextHopProtocol);
  assert.equal(found, protocol);
});

await promise("pusher-js connects eight times and subscribes", async () => {
  const file = path.join(path.dirname(fileURLToPath(import.meta.url)), "node_modules/pusher-js/dist/web/pusher.min.js");
  await page.addScriptTag({ path: file });
  const subscribed = page.evaluate(
    ({ key, host, port }) => {
      window.heard = [];
      const one = () =>
        new Promise((resolve, reject) => {
          const options = { cluster: "", wsHost: host, wssPort: port, forceTLS: true, enabledTransports: ["ws"], enableStats: false };
          const channel = new Pusher(key, options).subscribe("news");
          channel.bind("pusher:subscription_succeeded", resolve);
          channel.bind("pusher:subscription_error", reject);
          channel.bind("hello", (data) => window.heard.push(data));
        });
      return Promise.all(Array.from({ length: 8 }, one));
    },
    { key: app.key, ...server },
  );
  await within("eight subscriptions", subscribed);
  assert.deepEqual(handshakes, Array(8).fill(Number(handshake)));
});

await promise("an event that was published through the proxy reaches each", async () => {
  await within("the answer to an event", backend.trigger("news", "hello", { from: "outside" }));
  await page.waitForFunction(() => window.heard.length >= 8, null, { timeout: 20_000 });
  assert.deepEqual(await page.evaluate(() => window.heard), Array(8).fill({ from: "outside" }));
});

await browser.close();
done();
