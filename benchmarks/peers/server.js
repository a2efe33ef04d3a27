// The application of ../server.py, in Express or fastify:
//     node server.js express|fastify none|memory|redis://... PORT
// It answers /new, /read and /write in the same words.
"use strict";

const SECRET = "a secret for the benchmarks, longer than 32 bytes";
const PERSON = {
  user_id: 184467,
  name: "Ada Lovelace",
  roles: ["editor", "reviewer"],
  csrf: "k3v9XbQ7mT2sW8yZr5nLp0aDhJ4cU1e",
};
const [framework, storage, port] = process.argv.slice(2);

async function redisStore() {
  const { createClient } = require("redis");
  const { RedisStore } = require("connect-redis");
  const client = createClient({ url: storage });
  await client.connect();
  return new RedisStore({ client });
}

function routes(add) {
  add("/new", (session) => (session.number = 0));
  add("/read", (session) => found(session));
  add("/person", (session) => Object.assign(session, PERSON) && 0);
  add("/write", (session) => (session.number = found(session) + 1));
}

function found(session) {
  if (session.number === undefined) throw new Error("the session was not found");
  return session.number;
}

async function express() {
  const app = require("express")();
  if (storage === "none") {
    for (const path of ["/new", "/read", "/write"]) {
      app.get(path, (request, response) => response.type("text").send("0"));
    }
    return app.listen(Number(port), "127.0.0.1");
  }
  const session = require("express-session");
  const options = { secret: SECRET, resave: false, saveUninitialized: false };
  if (storage !== "memory") options.store = await redisStore();
  app.use(session(options));
  routes((path, act) =>
    app.get(path, (request, response) => response.type("text").send(String(act(request.session)))),
  );
  return app.listen(Number(port), "127.0.0.1");
}

async function fastify() {
  const app = require("fastify")();
  if (storage === "none") {
    for (const path of ["/new", "/read", "/write"]) {
      app.get(path, async () => "0");
    }
    return app.listen({ port: Number(port), host: "127.0.0.1" });
  }
  const options = {
    secret: SECRET,
    saveUninitialized: false,
    rolling: false,
    cookie: { secure: false },
  };
  if (storage !== "memory") options.store = await redisStore();
  await app.register(require("@fastify/cookie"));
  await app.register(require("@fastify/session"), options);
  routes((path, act) => app.get(path, async (request) => String(act(request.session))));
  return app.listen({ port: Number(port), host: "127.0.0.1" });
}

process.env.NODE_ENV = "production";
({ express, fastify })[framework]().catch((error) => {
  console.error(error);
  process.exit(1);
});
