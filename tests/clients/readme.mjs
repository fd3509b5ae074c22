// The snippets of README.md, run as they are printed save for the address. A snippet is the code block below a line
// `<!-- runs: NAME -->`. Arguments: host, port, and the Python that has its library, if any.

import fs from "node:fs";
import path from "node:path";
import { args, assert, done, promise, server } from "./harness.mjs";
import { meet } from "./snippets.mjs";

const readme = fs.readFileSync(path.join(import.meta.dirname, "../../README.md"), "utf8");

function snippet(name) {
  const [, code] = readme.match(new RegExp(`<!-- runs: ${name} -->\n\`\`\`\\w+\n(.*?)\`\`\``, "s")) ?? [];
  assert.ok(code, `README.md has the snippet ${name}`);
  assert.match(code, /127\.0\.0\.1/);
  assert.match(code, /6001/);
  return code.replaceAll("127.0.0.1", server.host).replaceAll("6001", String(server.port));
}

await promise("its snippets work as they are printed", () => meet(snippet("browser"), snippet("node")));
const [python] = args;
if (python) {
  await promise("so does that for Python", () => meet(snippet("browser"), snippet("python"), python));
}
done();
