import { expect, test } from "vitest";
import { runTurns } from "./support/cut-turns.js";
import { cutAThousandTimes } from "./support/cutting.js";

test("after a thousand cuts at random bytes every answer is whole and no turn was made twice", async () => {
  await cutAThousandTimes("node", 16, runTurns);
  expect.hasAssertions();
});
