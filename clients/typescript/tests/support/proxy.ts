import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

/** What happens to a connection after so many bytes of response. */
export interface Fate {
  after: number;
  /** `stall`: it stays open, and no byte comes any more. */
  how: "end" | "reset" | "stall";
}

/** A connection is passed on to its end, ends early, or is answered by the proxy itself with these bytes. */
export type Plan = (connection: number) => Fate | { answer: string } | undefined;

/** A TCP proxy before the gateway. `plan` gets the number of each connection, from 0. */
export class CuttingProxy {
  /** How many connections it has ended early. */
  cuts = 0;
  connections = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(target: URL, plan: Plan) {
    this.#server = createServer((client) => this.#serve(client, target, plan(this.connections++)));
  }

  static async start(target: string, plan: Plan): Promise<CuttingProxy> {
    const proxy = new CuttingProxy(new URL(target), plan);
    proxy.#server.listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, "close");
  }

  #serve(client: Socket, target: URL, fate: ReturnType<Plan>): void {
    this.#keep(client);
    if (fate && "answer" in fate) {
      client.once("data", () => client.end(fate.answer));
      return;
    }
    const server = this.#keep(connect(Number(target.port), target.hostname));
    client.pipe(server);
    client.once("close", () => server.destroy());
    if (!fate) {
      server.pipe(client);
      return;
    }
    server.once("close", () => fate.how !== "stall" && client.end());
    let left = fate.after;
    server.on("data", (data) => {
      if (left <= 0) return;
      client.write(data.subarray(0, left));
      left -= data.length;
      if (left <= 0) this.#cut(client, server, fate.how);
    });
  }

  #cut(client: Socket, server: Socket, how: Fate["how"]): void {
    if (client.destroyed) return;
    this.cuts += 1;
    if (how === "end") client.end();
    if (how === "reset") client.resetAndDestroy();
    if (how !== "stall") server.destroy();
  }

  #keep(socket: Socket): Socket {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    // Connections that break are what it is for.
    socket.on("error", () => {});
    return socket;
  }
}
