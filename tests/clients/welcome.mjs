// The welcome page in headless Chromium, and its snippets run as they are printed.
// Arguments: host, port, file for a picture of the page, and the Python that has its library, if any.

import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { chromium } from "playwright-core";
import { args, assert, done, promise, server } from "./harness.mjs";
import { meet } from "./snippets.mjs";

const profile = fs.mkdtempSync(path.join(os.tmpdir(), "sockudo-chromium-"));
process.on("exit", () => fs.rmSync(profile, { recursive: true, force: true }));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: "/usr/bin/chromium",
  headless: true,
  viewport: { width: 1100, height: 1000 },
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
const page = browser.pages()[0] ?? (await browser.newPage());
const errors = [];
page.on("pageerror", (error) => errors.push(String(error)));
page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
const outside = [];
page.on("request", (request) => {
  if (!request.url().startsWith(`http://${server.host}:${server.port}/`) && !request.url().startsWith("data:")) {
    outside.push(request.url());
  }
});
const frames = () => page.locator("#frames li pre").allTextContents();

await promise("connects and subscribes", async () => {
  await page.goto(`http://${server.host}:${server.port}/`);
  await page.locator('#state[data-state="connected"]').waitFor({ timeout: 15_000 });
  await page.locator("#frames li", { hasText: "subscription_succeeded" }).waitFor({ timeout: 15_000 });
});

await promise("shows the event that its form published", async () => {
  await page.fill("[name=event]", "greeting");
  await page.fill("[name=data]", '{"message":"é日😀 + & ="}');
  await page.click("text=Publish >> nth=-1");
  const row = page.locator("#frames li.received.event", { hasText: '"greeting"' });
  await row.waitFor({ timeout: 15_000 });
  assert.equal(await page.textContent("#answer"), "published");
  assert.match((await frames()).join("\n"), /é日😀 \+ & =/);
});

await promise("its snippets are for https where the page came over it", async () => {
  const texts = await page.evaluate(() => {
    const from = { protocol: "https:", hostname: "localhost", port: "" };
    return templates.map((text) => printed(text, from));
  });
  const all = texts.join("\n");
  for (const part of ["wssPort: 443, forceTLS: true", "useTLS: true", "port=443, ssl=True", '"https", "useTLS" => true']) {
    assert.ok(all.includes(part), `${part} in ${all}`);
  }
});

await promise("its snippets work as they are printed", async () => {
  const snippet = (id) => page.textContent(`#${id}`);
  await meet(await snippet("browser"), await snippet("node"));
  const [, python] = args;
  if (python) await meet(await snippet("browser"), await snippet("python"), python);
});

await promise("needs nothing from outside and has no errors", async () => {
  assert.deepEqual(errors, []);
  assert.deepEqual(outside.filter((url) => !url.startsWith("ws:")), []);
});

await promise("reads well in the dark too", async () => {
  await page.emulateMedia({ colorScheme: "dark" });
  const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  assert.match(ground, /rgb\((\d|1\d|2\d), /);
  await page.screenshot({ path: args[0], fullPage: true });
});

await browser.close();
done();
