import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { expect, test } from "vitest";

const ROOT = new URL("..", import.meta.url).pathname;
const MOST_BYTES = 6 * 1024;

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

test("the package has only what its users need, and its one dependency", () => {
  const told = execFileSync("npm", ["pack", "--dry-run", "--json"], { cwd: ROOT, encoding: "utf8" });
  const [{ files }] = JSON.parse(told.slice(told.indexOf("[\n"))) as [{ files: { path: string }[] }];
  const paths = files.map(({ path }) => path);
  expect(paths).toEqual(expect.arrayContaining(["README.md", "LICENSE", "dist/index.js", "dist/index.d.ts"]));
  expect(paths).toEqual(expect.arrayContaining(["dist/react.js", "dist/react.d.ts"]));
  expect(
    paths.filter((path) => !/^(dist\/.*\.(js|d\.ts)|README\.md|LICENSE|package\.json)$/.test(path)),
  ).toEqual([]);
  const { dependencies } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
  expect(Object.keys(dependencies)).toEqual(["eventsource-parser"]);
});
