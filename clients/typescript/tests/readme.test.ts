import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { build } from "esbuild";
import { afterAll, beforeAll, expect, test } from "vitest";
import { launch, publish } from "./support/chromium.js";
import { DEMO, KEY, PAGES } from "./support/world.js";

const ROOT = new URL("..", import.meta.url).pathname;
const run = promisify(execFile);

interface Example {
  code: string;
  /** The block of text that follows it; `…` in it stands for anything. */
  output: string;
}

/** Files of README.md, beside the sources: there they find what users import. */
let folder: string;
let programs: Example[];
let component: string;

beforeAll(async () => {
  folder = await mkdtemp(join(ROOT, ".readme-"));
  const readme = await readFile(join(ROOT, "README.md"), "utf8");
  programs = [...readme.matchAll(/^```ts\n(.*?)^```\n\n```text\n(.*?)^```$/gms)].map(([, code, output]) => ({
    code: code ?? "",
    output: output ?? "",
  }));
  component = /^```tsx\n(.*?)^```$/ms.exec(readme)?.[1] ?? "";
  // None was overlooked.
  expect(programs.length).toBe(readme.match(/^```ts$/gm)?.length);
  const files = programs.map(({ code }, index) => writeFile(join(folder, `example${index}.ts`), code));
  await Promise.all([...files, writeFile(join(folder, "chat.tsx"), component)]);
});

afterAll(() => rm(folder, { recursive: true }));

/** A text in which `…` stands for anything, in one line or several. */
function pattern(text: string): RegExp {
  const literal = text.split("…").map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${literal.join("[^]*")}$`);
}

test("every example compiles strictly", async () => {
  const options = { extends: "../tsconfig.json", include: ["*"] };
  await writeFile(join(folder, "tsconfig.json"), JSON.stringify(options));
  const { stdout } = await run(join(ROOT, "node_modules/.bin/tsc"), ["--project", folder]).catch(
    (error) => error,
  );
  expect(stdout).toBe("");
});

test("every example prints what is printed there", async () => {
  expect(programs.length).toBeGreaterThan(5);
  for (const [index, { code, output }] of programs.entries()) {
    const program = join(folder, `example${index}.mjs`);
    const contents = code.replaceAll("http://127.0.0.1:8000", DEMO).replaceAll("app-demo", KEY);
    await build({
      stdin: { contents, resolveDir: folder, loader: "ts" },
      outfile: program,
      bundle: true,
      platform: "node",
      format: "esm",
      tsconfig: join(ROOT, "tsconfig.json"),
    });
    const { stdout } = await run("node", [program], { timeout: 60_000 });
    expect(stdout, code).toMatch(pattern(output));
  }
});

test("the component answers in a page", async () => {
  const render = `
    import { createRoot } from "react-dom/client";
    ${component.replace("export ", "").replace('{ baseUrl: "/api/chat" }', JSON.stringify({ baseUrl: DEMO, apiKey: KEY }))}
    createRoot(document.body.appendChild(document.createElement("div"))).render(<Chat user="grace" />);`;
  const program = join(folder, "page.tsx");
  await writeFile(program, render);
  await publish("readme", program);
  const browser = await launch();
  try {
    const page = await browser.newPage();
    await page.goto(`${PAGES}/readme.html`);
    const ask = async (query: string, answer: string) => {
      await page.fill("input", query);
      await page.press("input", "Enter");
      await page.locator("output", { hasText: answer }).waitFor({ timeout: 20_000 });
    };
    await ask("My name is Grace.", "Nice to meet you, Grace.");
    await ask("What is my name?", "Your name is Grace");
  } finally {
    await browser.close();
  }
});
