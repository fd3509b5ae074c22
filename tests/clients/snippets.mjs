// Snippets that people copy, run beside the installed packages.

import fs from "node:fs";
import path from "node:path";
import { spawn } from "node:child_process";
import { assert, within } from "./harness.mjs";

function run(code, program = process.execPath) {
  const name = `.snippet-${process.pid}-${Math.random().toString(36).slice(2)}.mjs`;
  const file = path.join(import.meta.dirname, name);
  fs.writeFileSync(file, code);
  const child = spawn(program, [file], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise((resolve) => child.on("exit", resolve));
  ended.then(() => fs.rmSync(file, { force: true }));
  const said = { text: "" };
  child.stdout.on("data", (bytes) => (said.text += bytes));
  return { child, ended, said };
}

// Runs one that listens and one that sends until the first prints what the second sent. `program` runs the second.
export async function meet(listening, sending, program) {
  const listener = run(listening);
  const heard = new Promise((resolve) => {
    listener.child.stdout.on("data", () => /received.*hello world/s.test(listener.said.text) && resolve());
  });
  // The snippet says nothing once it is subscribed, so it is sent to until it hears.
  const met = (async () => {
    for (;;) {
      const sender = run(sending, program);
      assert.equal(await sender.ended, 0);
      if (await Promise.race([heard.then(() => true), new Promise((resolve) => setTimeout(resolve, 500))])) return;
    }
  })();
  try {
    await within("the snippets to meet", met);
  } finally {
    listener.child.kill();
    await listener.ended;
  }
}
