// What the client scripts share: where the server is, checks with deadlines, and a TAP line for each promise kept.

import assert from "node:assert/strict";
import net from "node:net";
import readline from "node:readline";

export { assert };

const [host, port, ...more] = process.argv.slice(2);
export const server = { host, port: Number(port) };
export const args = more;
export const app = { appId: "app-id", key: "app-key", secret: "app-secret" };
export const masterKey = Buffer.from("0123456789abcdef0123456789abcdef").toString("base64");

// The options with which pusher-js reaches a server that is not Pusher's, without TLS.
export const reaching = ({ host, port }) => ({
  cluster: "",
  wsHost: host,
  wsPort: port,
  forceTLS: false,
  enabledTransports: ["ws"],
  enableStats: false,
});

const DEADLINE_MS = 20_000;
let kept = 0;

// Runs one promise of the server; the first that is not kept ends the script with exit code 1.
export async function promise(name, check) {
  try {
    await check();
    kept += 1;
    console.log(`ok ${kept} - ${name}`);
  } catch (error) {
    console.log(`not ok ${kept + 1} - ${name}`);
    console.error(error);
    process.exit(1);
  }
}

export function done() {
  console.log(`1..${kept}`);
  process.exit(0);
}

// Waits for a promise, and says what it waited for when the deadline passes.
export function within(what, waited, limit = DEADLINE_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${limit} ms for ${what}`)), limit);
  });
  return Promise.race([waited, late]).finally(() => clearTimeout(timer));
}

// The data of the next event of this name on a pusher-js channel, connection or client.
export async function once(source, name, limit) {
  return (await onceWithMetadata(source, name, limit)).data;
}

// The next event with what pusher-js tells about it beside its data.
export function onceWithMetadata(source, name, limit) {
  const heard = new Promise((resolve) => {
    const hear = (data, metadata) => {
      source.unbind(name, hear);
      resolve({ data, metadata });
    };
    source.bind(name, hear);
  });
  return within(name, heard, limit);
}

// Fails if the event comes within the time.
export async function never(source, name, limit = 500) {
  let heard = null;
  const hear = (data) => (heard = { data });
  source.bind(name, hear);
  await pause(limit);
  source.unbind(name, hear);
  assert.equal(heard, null, `${name} came: ${JSON.stringify(heard)}`);
}

export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// Steps between this script and the test that started it: a line out, a line in.
const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
export async function step(says, expects) {
  console.log(`# ${says}`);
  const { value } = await within(`the test to say ${expects}`, lines.next(), 60_000);
  assert.equal(value, expects);
}

// A relay in front of the server that counts connections and can go deaf for what the client sends.
export async function relay() {
  const state = { connections: 0, deaf: false, host: "127.0.0.1", port: 0 };
  const listener = net.createServer((client) => {
    state.connections += 1;
    const upstream = net.connect(server.port, server.host);
    client.on("data", (bytes) => state.deaf || upstream.write(bytes));
    upstream.on("data", (bytes) => client.write(bytes));
    for (const [one, other] of [[client, upstream], [upstream, client]]) {
      one.on("close", () => other.destroy());
      one.on("error", () => other.destroy());
    }
  });
  await new Promise((resolve) => listener.listen(0, state.host, resolve));
  state.port = listener.address().port;
  return state;
}
