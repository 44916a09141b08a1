import { execFileSync, spawnSync } from "node:child_process";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const ROOT = new URL("..", import.meta.url).pathname;
const MOST_BYTES = 6 * 1024;

function npm(...args: string[]): string {
  return execFileSync("npm", args, { cwd: ROOT, encoding: "utf8" });
}

async function sizeOf(entry: string, external: string[] = []): Promise<number> {
  const { outputFiles } = await build({
    entryPoints: [join(ROOT, entry)],
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    external,
    write: false,
  });
  return gzipSync(outputFiles[0]?.contents ?? "", { level: 9 }).length;
}

test("all of it, with the SSE parser, is smaller than 6 KiB", async () => {
  const size = await sizeOf("src/index.ts");
  const hook = await sizeOf("src/react.ts", ["react"]);
  console.log(`index: ${size} bytes, react: ${hook} bytes, minified and gzipped`);
  expect(size).toBeLessThan(MOST_BYTES);
  // The hook gets its client as an argument, and does not bring another one.
  expect(hook).toBeLessThan(1024);
});

test("the generated code is that of the OpenAPI document", () => {
  const folder = mkdtempSync(join(tmpdir(), "generated-"));
  try {
    execFileSync("node", [join(ROOT, "scripts/generate.mjs"), folder]);
    const kept = join(ROOT, "src/generated");
    expect(readdirSync(kept).sort()).toEqual(readdirSync(folder).sort());
    for (const name of readdirSync(folder)) {
      const isSame = readFileSync(join(kept, name)).equals(readFileSync(join(folder, name)));
      expect(isSame, `${name} is behind openapi/openapi.json: npm run generate`).toBe(true);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

describe("the package", () => {
  let folder: string;
  let paths: string[];

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "package-"));
    const told = npm("pack", "--json", "--pack-destination", folder);
    const [packed] = JSON.parse(told.slice(told.indexOf("[\n"))) as [
      { filename: string; files: { path: string }[] },
    ];
    paths = packed.files.map(({ path }) => path);
    // As `npm install` does it, without asking the registry for what is here already.
    const modules = join(folder, "node_modules");
    mkdirSync(modules);
    execFileSync("tar", ["-xzf", join(folder, packed.filename), "-C", modules]);
    renameSync(join(modules, "package"), join(modules, "agent-gateway-client"));
    for (const name of ["eventsource-parser", "react", "@types"]) {
      symlinkSync(join(ROOT, "node_modules", name), join(modules, name));
    }
  });

  afterAll(() => rmSync(folder, { recursive: true }));

  test("has only what its users need, and one dependency", () => {
    expect(paths).toEqual(
      expect.arrayContaining(["README.md", "LICENSE", "dist/index.js", "dist/index.d.ts"]),
    );
    expect(paths).toEqual(expect.arrayContaining(["dist/react.js", "dist/react.d.ts"]));
    const others = /^(dist\/.*\.(js|d\.ts)|README\.md|LICENSE|package\.json)$/;
    expect(paths.filter((path) => !others.test(path))).toEqual([]);
    const { dependencies } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
    expect(Object.keys(dependencies)).toEqual(["eventsource-parser"]);
  });

  test("is imported by Node.js, also from a folder of somebody else", () => {
    const program = `
      import { createClient, GatewayError } from "agent-gateway-client";
      import { useTurn } from "agent-gateway-client/react";
      const client = createClient({ baseUrl: "http://127.0.0.1:1" });
      console.log(typeof client.chat, typeof client.getAppInfo, typeof GatewayError, typeof useTurn);`;
    writeFileSync(join(folder, "program.mjs"), program);
    const told = execFileSync("node", ["program.mjs"], { cwd: folder, encoding: "utf8" });
    expect(told).toBe("function function function function\n");
  });

  test.each(["nodenext", "preserve"])("has types for a strict program with module %s", (module) => {
    const program = `
      import { createClient, type TurnEvent } from "agent-gateway-client";
      import { useTurn } from "agent-gateway-client/react";
      const client = createClient({ baseUrl: "" });
      export const info: Promise<{ mode: string }> = client.getAppInfo();
      export const text = (event: TurnEvent): string => (event.event === "message" ? event.answer : "");
      export const status = () => useTurn(client).status;`;
    writeFileSync(join(folder, "program.mts"), program);
    const options = ["--noEmit", "--strict", "--module", module, "--target", "es2022", "program.mts"];
    const done = spawnSync(join(ROOT, "node_modules/.bin/tsc"), options, { cwd: folder, encoding: "utf8" });
    expect(done.stdout).toBe("");
    expect(done.status).toBe(0);
  });
});
