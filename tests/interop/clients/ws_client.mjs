// Node's `ws`. See conversation.py for what is said here.

import { createInterface } from "node:readline";
import WebSocket from "ws";

const OFFERS = {
  off: false,
  default: true,
  "no-takeover": { serverNoContextTakeover: true, clientNoContextTakeover: true },
  "small-windows": { serverMaxWindowBits: 10, clientMaxWindowBits: 10 },
};

let ws;
// What has come and nobody has asked for yet, and who asked before it came.
let answers;
let waiters;

function arrive(answer) {
  const waiter = waiters.shift();
  if (waiter) waiter(answer);
  else answers.push(answer);
}

const encode = (data, isBinary) =>
  isBinary ? { binary: data.toString("base64") } : { text: data.toString() };
const decode = (message) =>
  "text" in message ? message.text : Buffer.from(message.binary, "base64");

const commands = {
  open({ url, subprotocols, deflate }) {
    answers = [];
    waiters = [];
    ws = new WebSocket(url, subprotocols, { perMessageDeflate: OFFERS[deflate] });
    const socket = ws;
    socket.on("message", (data, isBinary) => arrive({ message: encode(data, isBinary) }));
    return new Promise((resolve, reject) => {
      socket.on("open", () => resolve({ subprotocol: socket.protocol || null }));
      socket.on("unexpected-response", (request, response) => {
        response.destroy();
        resolve({ refused: response.statusCode });
      });
      // 'close' follows, and tells what there is to tell once the connection is open.
      socket.on("error", reject);
      socket.on("close", (code, reason) => {
        socket.ended = [code, reason.toString()];
        arrive({ closed: socket.ended });
      });
    });
  },

  send({ message }) {
    return new Promise((resolve) => {
      ws.send(decode(message), (error) =>
        resolve(error ? { error: String(error.stack) } : {}),
      );
    });
  },

  send_fragments({ parts }) {
    parts.forEach((part, index) => {
      ws.send(decode(part), { binary: "binary" in part, fin: index === parts.length - 1 });
    });
    return {};
  },

  recv() {
    if (answers.length) return answers.shift();
    return new Promise((resolve) => waiters.push(resolve));
  },

  ping({ data }) {
    return new Promise((resolve) => {
      ws.once("pong", (pong) =>
        resolve(pong.toString() === data ? {} : { error: `pong with ${pong}` }),
      );
      ws.ping(data);
    });
  },

  close({ code, reason }) {
    return new Promise((resolve) => {
      ws.once("close", () => resolve({ closed: ws.ended }));
      ws.close(code, reason);
    });
  },

  drop() {
    ws.terminate();
    return {};
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  let answer;
  try {
    answer = await commands[command.do](command);
  } catch (error) {
    answer = { error: String(error.stack) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
