'use strict'

// The options of express-session as the environment gives them, on a store that is connected.
module.exports = async () => {
  const { REDIS_URL, SECRET, COOKIE, STORE, CLIENT, OPTIONS = '{}' } = process.env
  const { RedisStore } = require(STORE)
  const { createClient } = require(CLIENT)
  const client = createClient({ url: REDIS_URL })
  await client.connect()
  return {
    store: new RedisStore({ client }),
    secret: SECRET,
    name: COOKIE,
    resave: false,
    saveUninitialized: false,
    ...JSON.parse(OPTIONS),
  }
}
