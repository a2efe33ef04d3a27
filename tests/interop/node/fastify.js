'use strict'

// The same as a Fastify application with @fastify/session: POST /<action> does one thing.

const fastify = require('fastify')
const cookie = require('@fastify/cookie')
const session = require('@fastify/session')

const actions = require('./actions')
const options = require('./options')

const own = {
  // Its sessions hold more than their data, so that it is asked to take the data along itself.
  async loginKeepingAll(request) {
    const { cookie, ...before } = request.session
    await request.session.regenerate(Object.keys(before))
    Object.assign(request.session, request.body)
    return actions.read(request)
  },

  async id(request) {
    return request.session.sessionId
  },
}

const main = async () => {
  const { name, resave, ...rest } = await options()
  const app = fastify()
  app.register(cookie)
  app.register(session, {
    cookieName: name,
    cookiePrefix: 's:',
    rolling: false,
    ...rest,
    cookie: { secure: 'auto', ...rest.cookie },
  })
  app.post('/:action', async (request) => {
    const { action } = request.params
    return { result: await (own[action] || actions[action])(request) }
  })
  await app.listen({ port: Number(process.env.PORT), host: '127.0.0.1' })
}

main()
