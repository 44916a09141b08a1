import { execFileSync } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import { build } from "esbuild";
import { type Browser, chromium } from "playwright-core";
import { FOLDER } from "./world.js";

/** Chromium as the system has it, which asks nobody but the servers of the tests. */
export function launch(): Promise<Browser> {
  const executablePath = execFileSync("sh", ["-c", "command -v chromium"], { encoding: "utf8" }).trim();
  const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"];
  const quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync"];
  return chromium.launch({ executablePath, args: [...args, ...quiet] });
}

/** Puts a page with this program (of tests/browser, or anywhere) on the web server of the tests. */
export async function publish(name: string, program: string): Promise<void> {
  await build({
    entryPoints: [resolve(new URL("../browser", import.meta.url).pathname, program)],
    outfile: `${FOLDER}/${name}.js`,
    bundle: true,
    format: "esm",
    target: "es2022",
    jsx: "automatic",
    define: { "process.env.NODE_ENV": '"development"' },
    // The names are those of tsconfig.json.
    tsconfig: new URL("../../tsconfig.json", import.meta.url).pathname,
  });
  const page = `<!doctype html><meta charset="utf-8"><body><script type="module" src="/${name}.js"></script></body>`;
  await writeFile(`${FOLDER}/${name}.html`, page);
}
