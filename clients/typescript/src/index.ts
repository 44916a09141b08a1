/** The client of agent-gateway. */
export type { Calls } from "./calls.js";
export {
  type ChatBody,
  type ChatOptions,
  type Client,
  type ClientOptions,
  createClient,
  type FollowOptions,
  type TurnOptions,
  type TurnReference,
  type Turns,
} from "./client.js";
export { ConnectionError, type ErrorCode, type ErrorDetails, GatewayError } from "./errors.js";
export type { TurnEvent } from "./events.js";
export type { components, operations } from "./generated/api.js";
export type { Reconnect } from "./reader.js";
export type { Turn, TurnIds } from "./turn.js";
