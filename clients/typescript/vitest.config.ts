import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const source = (name: string) => fileURLToPath(new URL(`src/${name}.ts`, import.meta.url));

export default defineConfig({
  // The names under which users import it, as in tsconfig.json.
  resolve: {
    alias: { "agent-gateway-client/react": source("react"), "agent-gateway-client": source("index") },
  },
  test: {
    include: ["tests/**/*.test.ts"],
    maxWorkers: 2,
    // A bound, not an expectation: the cuts take most of it on a busy machine.
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
