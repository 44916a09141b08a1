// Makes src/generated/ from the OpenAPI document: `npm run generate`, or with another folder as its argument.
//
// openapi-typescript makes the types (api.ts). operations.ts is what the types cannot be at run time: method and
// path of each call, and the error codes.
//
// Other generators make functions that bring their own way to send requests: minified and compressed, 2.0 KB
// (swagger-typescript-api), 2.4 KB (orval) and 4.7 KB (@hey-api/openapi-ts). This table and calls.ts take 1.2 KB.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import openapiTS, { astToString, stringToAST } from "openapi-typescript";

const HEAD = "// Made by `npm run generate` from the OpenAPI document. Do not edit.\n";
const document = JSON.parse(
  await readFile(new URL("../../../openapi/openapi.json", import.meta.url), "utf8"),
);
const folder = process.argv[2] ?? new URL("../src/generated/", import.meta.url).pathname;

const operations = Object.entries(document.paths).flatMap(([path, item]) =>
  Object.entries(item).map(([method, operation]) => ({ path, method: method.toUpperCase(), operation })),
);

// A ticket is a parameter of the query, but the document has it as a security scheme.
for (const { operation } of operations) {
  if (operation.security?.some((scheme) => "Ticket" in scheme)) {
    const { name, in: place, description } = document.components.securitySchemes.Ticket;
    const schema = { type: "string" };
    operation.parameters.push({ name, in: place, description, required: false, schema });
  }
}

/** How the body is sent and how the response is read, where it is not JSON. */
function kindOf({ requestBody, responses }) {
  if (requestBody && "multipart/form-data" in requestBody.content) return "form";
  const success = Object.keys((responses["200"] ?? responses["201"])?.content ?? {});
  if (success.includes("application/json") || success.length === 0) return undefined;
  return success.includes("text/event-stream") ? "stream" : "raw";
}

function rowOf({ path, method, operation }) {
  const kind = kindOf(operation);
  // A stream is read by turn.ts, not by a plain call.
  if (kind === "stream") return [];
  const parts = [method, path, ...(kind ? [kind] : [])];
  return [
    `  /** ${operation.summary}: ${method} ${path} */`,
    `  ${operation.operationId}: ${JSON.stringify(parts).replaceAll(",", ", ")},`,
  ];
}

/** The codes that the document names in the description of `ErrorBody.code`. */
function errorCodes() {
  const { description } = document.components.schemas.ErrorBody.properties.code;
  const codes = [...description.matchAll(/`(\w+)` \(\d{3}\)/g)].map(([, code]) => code);
  if (codes.length === 0) throw new Error("ErrorBody.code names no codes.");
  return codes;
}

const blob = stringToAST("type T = Blob")[0].type;
const types = await openapiTS(document, {
  // What has a default may be left out of a request.
  defaultNonNullable: false,
  transform: ({ format, contentMediaType }) =>
    format === "binary" || contentMediaType === "application/octet-stream" ? blob : undefined,
});
const table = `${HEAD}
/** Method and path of each call; what is not JSON is marked. */
export const operations = {
${operations.flatMap(rowOf).join("\n")}
} as const;

/** The codes of errors. A newer gateway may know more. */
export type ErrorCode =
${errorCodes()
  .map((code) => `  | "${code}"`)
  .join("\n")};
`;

await mkdir(folder, { recursive: true });
await writeFile(`${folder}/api.ts`, HEAD + astToString(types));
await writeFile(`${folder}/operations.ts`, table);
